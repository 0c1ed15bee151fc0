# cython: language_level=3
"""What `_front` and the kernels of verification and beams agree on; see ``abi.pxd``."""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.abi cimport Filters, PackedRows, Race

# Return where a row of a plan begins; NULL where it cannot be read as it lies.
ctypedef const void *(*locate_fn)(const void *plan, Py_ssize_t row) noexcept nogil

cdef struct RowSource:  # the rows of an array of any layout, each found when it is needed
    locate_fn locate
    bint is_packed  # whether none is found where it lies;
    PackedRows packed  # then to load them, whole or by parts

cdef enum Method:
    CHAIN
    BLOCKS
    RACES

cdef struct VerifyCall:  # of requests: `length` drafts each, and one target row more
    int dtype  # DType
    Py_ssize_t n
    Py_ssize_t length
    int method  # Method
    const RowSource *target
    const RowSource *draft  # NULL: the draft is certain of its ids
    const Filters *filters
    Py_ssize_t filter_stride  # 1 if there are filters for each request, else 0
    const double *uniforms  # length + 1 a request: for the last id, then for each draft
    const Race *race  # in their place for RACES
    const int64_t *drafts  # may change meanwhile: an id outside the row ends the draft
    int64_t *ids  # length + 1 a request
    # How many ids there are; or -1 - (2 j + d) where row j of the target (d = 0) or of the draft
    # (d = 1) has no probabilities.
    int64_t *counts

cdef struct BeamCall:  # of groups of beams
    int dtype  # DType
    Py_ssize_t n
    Py_ssize_t beams  # of a group, each with a row
    Py_ssize_t width  # continuations that are wanted of a group
    const RowSource *source
    const double *running  # score of each beam; one of -inf is not read
    const double *factors  # of the score of each beam's continuations, NULL for 1
    double *scores  # `width` a group
    int64_t *parents
    int64_t *ids
    int64_t *bad  # a group: the first of its beams without probabilities, -1 for none
