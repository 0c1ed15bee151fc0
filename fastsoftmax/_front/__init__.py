"""The public functions over the kernels of one instruction set: from Python arguments to C structs.

May import ``_arguments`` (what is wrong with an argument) and ``_threads``, and cimport
``_kernels/abi``, ``philox`` and ``history``; kernels are reached by pointer only. ``_dispatch``
alone imports this folder, and gives the functions their docstrings.
"""
