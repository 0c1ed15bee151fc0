"""Builds a module in Cython, one in C and one in C++ against the installed fastsoftmax."""

from setuptools import Extension, setup

import fastsoftmax

include = [fastsoftmax.get_include()]
setup(
    ext_modules=[
        Extension("in_cython", ["in_cython.pyx"]),
        Extension("in_c", ["in_c.c"], include_dirs=include),
        Extension(
            "in_cpp", ["in_cpp.cpp"], include_dirs=include, extra_compile_args=["-std=c++17"]
        ),
    ]
)
