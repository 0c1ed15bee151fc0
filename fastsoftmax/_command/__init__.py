"""The ``fastsoftmax`` command lives here, on top of the package, which imports nothing of it.

`cli` reads the command line and runs ``softmax``, ``top-k``, ``sample`` and ``info``; `demo` and
`selftest` are commands of their own, `files` reads and writes arrays, `terminal` prints. Only `cli`
imports all of these; they import `terminal`, `demo` also `selftest`, and all the whole package.
"""
