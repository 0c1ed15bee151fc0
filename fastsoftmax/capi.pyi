"""The C interface: a capsule for C, and what ``capi.pxd`` declares for Cython."""

_C_API: object  # a capsule
__pyx_capi__: dict[str, object]  # capsules, for ``scipy.LowLevelCallable.from_cython``
