"""What is built once for each instruction set: loops over rows and columns in C types.

A ``.pyx`` here is a family of operations, the ``.pxd`` files are what they are made of. Nothing
here knows of Python arrays, and nothing outside cimports a kernel: ``_front`` gets pointers to
them (``abi.pxd``) once the CPU is known to run them.
"""
