"""The ``fastsoftmax`` command lives here, on top of the package; nothing imports this folder.

`cli` reads the command line, runs ``softmax``, ``top-k``, ``sample`` and ``info``, and imports the
others: `demo` and `selftest`, a command each, `files`, which reads and writes arrays, and
`terminal`, which prints. All may import the package; of each other, `demo` imports `selftest` and
`terminal`, `selftest` imports `terminal`.
"""
