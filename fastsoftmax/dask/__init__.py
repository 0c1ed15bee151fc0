"""The functions of `fastsoftmax` on dask arrays, also where chunks split the rows.

Each returns dask arrays and computes nothing. Where the chunks hold whole rows, the function of the
same name works on each. Where they split the rows (classes or a vocabulary in shards), each chunk
gives a sum, some candidates or a winner, and a tree merges those: a softmax reads the chunks a
second time, nothing is rechunked. Results are those of one array within the bounds of the function;
indices and ids do not depend on the chunks.

`sums`, `selection` and `loss` have the functions; `graph` says how a call becomes a graph, `chunks`
and `chunk_losses` what is done with a chunk, in NumPy. May import `_arguments` and `_dispatch`.
Needs dask, ``pip install 'fastsoftmax[dask]'``.
"""

try:
    import dask.array as _dask_array  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"fastsoftmax.dask needs dask ({error}); pip install 'fastsoftmax[dask]'"
    ) from error

from .loss import cross_entropy
from .selection import sample, top_k
from .sums import log_softmax, logsumexp, softmax

__all__ = ["cross_entropy", "log_softmax", "logsumexp", "sample", "softmax", "top_k"]
