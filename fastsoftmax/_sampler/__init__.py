"""`Sampler` lives here, above `fastsoftmax.steps`.

`sampler` holds the class and what it returns, `presets` its constructors that follow other systems,
`program` what its steps are as a program for the compiled chain, `execution` the same chain in
readable Python, which runs what is not compiled and tells what is wrong. They import
`fastsoftmax.steps` and the checks of arguments; only `fastsoftmax.__init__` imports this folder,
when `Sampler` is first asked for.
"""

from .sampler import Sampler

__all__ = ["Sampler"]
