"""Arrays that are computed later are no arguments: NumPy would compute them without a word."""

from typing import Any


def refuse_lazy(value: Any, name: str) -> None:
    """Raise if `value`, the argument called `name`, is of dask, or wraps what is."""
    graph = getattr(type(value), "__dask_graph__", None)
    if graph is not None and graph(value) is not None:
        raise TypeError(
            f"{name} is a {type(value).__module__}.{type(value).__name__} that is yet to be "
            f"computed; fastsoftmax.dask has functions of dask arrays, or pass {name}.compute()"
        )
