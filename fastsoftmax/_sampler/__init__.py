"""`Sampler` lives here, above `fastsoftmax.steps`, in pure Python.

`sampler` holds the class and what it returns, `presets` its constructors that follow other systems,
`execution` runs the steps on the few tokens of a row that can be left. They import
`fastsoftmax.steps` and the checks of arguments; only `fastsoftmax.__init__` imports this folder,
when `Sampler` is first asked for.
"""

from .sampler import Sampler

__all__ = ["Sampler"]
