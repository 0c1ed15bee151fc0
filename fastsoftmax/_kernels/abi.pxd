# cython: language_level=3
"""What `_front` and the kernels of an instruction set agree on: one struct for each kind of call.

A module of an instruction set may only be imported by name once the CPU is known to run it, never
cimported: its functions travel as pointers, in a capsule for each family (`SoftmaxKernels`, ...).

All kernels but those for columns have one form, `rows_fn`. It gets `rows` contiguous, aligned rows
in the type that is computed in, which begin at row `first` of the call: parameters and results that
have one entry a row are counted from there. It returns 0, or -1 if there was no memory.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastsoftmax._kernels.reserve cimport Reserve

cdef enum DType:  # what is computed in
    FLOAT32
    FLOAT64
    INT64  # for selection

# `x2` is a second input (NULL where there is none), `y` the rows of the result (NULL where results
# are in the call). y is x, or x2, or does not overlap them.
ctypedef int (*rows_fn)(
    const void *call, Py_ssize_t first, Py_ssize_t rows, const void *x, const void *x2, void *y,
) noexcept nogil


# Look for signals; return whether to stop, as the results no longer matter.
ctypedef int (*look_fn)() noexcept nogil


# ---- packing -------------------------------------------------------------------------------------

cdef enum Element:  # what lies in memory; the first three as DType
    ELEMENT_FLOAT32
    ELEMENT_FLOAT64
    ELEMENT_INT64
    ELEMENT_FLOAT16
    ELEMENT_BFLOAT16
    ELEMENT_BOOL
    ELEMENT_INT8
    ELEMENT_UINT8
    ELEMENT_INT16
    ELEMENT_UINT16
    ELEMENT_INT32
    ELEMENT_UINT32
    ELEMENT_UINT64
    ELEMENT_UNKNOWN

cdef struct Block:  # some rows of an array of any layout
    char *data
    int element  # Element
    bint swapped  # not in the byte order of this machine
    Py_ssize_t step  # bytes from an element of a row to the next
    Py_ssize_t row_step  # bytes from a row to the next

# Load rows of n elements into `y`, contiguous, of `dtype`; where `mask` (NULL for none) is False,
# -inf. Integers keep their order: uint64 is shifted into the range of int64.
ctypedef void (*load_fn)(
    const Block *x, const Block *mask, Py_ssize_t rows, Py_ssize_t n, int dtype, void *y,
) noexcept nogil
# Store contiguous rows `x` of `dtype`, rounded once.
ctypedef void (*store_fn)(
    const Block *y, Py_ssize_t rows, Py_ssize_t n, int dtype, const void *x,
) noexcept nogil
# Write `value` into contiguous rows `y` where `mask` is False.
ctypedef void (*fill_fn)(
    const Block *mask, Py_ssize_t rows, Py_ssize_t n, int dtype, double value, void *y,
) noexcept nogil
# Write a bit for each of n elements of a row, 1 if it counts: of a mask of n bools or of `count`
# words of 32 such bits, the lowest first. What is beyond the words is 0, as is the rest of the last
# word.
ctypedef void (*load_bits_fn)(
    const Block *mask, Py_ssize_t count, Py_ssize_t n, uint32_t *bits,
) noexcept nogil

cdef struct PackingKernels:
    load_fn load
    store_fn store
    fill_fn fill
    load_bits_fn load_bits

# A kernel that gets `PackedRows` reads a row part by part. `load` moves n elements of it, from
# `start` on, to `part`, contiguous, of the type that is computed in, `load_x2` those of the second
# input; `store` moves them back to the result. Where that can be worked on as it stands, `place`
# returns where a part of it lies; else it is NULL. Where `load` is NULL, the rows are those that
# the kernel is called with. `load_mask`, NULL if there are no masks, writes the bits of a row's
# mask; it returns False if the row has none.
ctypedef void (*move_part_fn)(
    const PackedRows *rows, Py_ssize_t row, Py_ssize_t start, Py_ssize_t n, void *part,
) noexcept nogil

ctypedef void *(*place_part_fn)(
    const PackedRows *rows, Py_ssize_t row, Py_ssize_t start,
) noexcept nogil

ctypedef bint (*load_mask_fn)(
    const PackedRows *rows, Py_ssize_t row, uint32_t *bits,
) noexcept nogil

cdef enum:
    LONG_ROW = 1 << 20  # elements from which on a row is packed by parts

cdef struct PackedRows:
    move_part_fn load
    move_part_fn load_x2
    move_part_fn store
    place_part_fn place
    load_mask_fn load_mask
    const PackingKernels *packing
    const void *plan
    const void *masks
    const Reserve *workspace  # for losses and gradients


# ---- softmax -------------------------------------------------------------------------------------

cdef enum Op:
    SOFTMAX
    LOG_SOFTMAX
    LOGSUMEXP

cdef struct SoftmaxCall:
    int dtype  # DType
    Op op
    Py_ssize_t n
    const double *temperature
    Py_ssize_t temperature_stride  # 1 if there is one for each row (or column), else 0
    const Reserve *workspace  # for columns

# For columns `start` to `stop` of (outer, n, inner), along the middle axis; -1 with an exception
# set, which is that of a signal.
ctypedef int (*columns_fn)(
    SoftmaxCall *call, Py_ssize_t inner, Py_ssize_t start, Py_ssize_t stop,
    const void *x, void *y,
) except -1 nogil

# Return the bytes of workspace that `columns` columns, or fewer, need.
ctypedef Py_ssize_t (*columns_bytes_fn)(
    const SoftmaxCall *call, Py_ssize_t columns,
) noexcept nogil

cdef struct BackwardCall:  # x: gradient of the result, x2: the result
    int dtype  # DType
    Op op
    Py_ssize_t n
    const double *temperature
    Py_ssize_t temperature_stride
    bint streams  # whether no cache would keep the result; it may be an input
    const PackedRows *packed  # NULL: rows come as they are


# One long row, shared by threads.
cdef struct LongRow:
    int dtype  # DType
    int op  # Op
    Py_ssize_t n
    double temperature  # in range
    const void *x
    void *y  # is x, or does not overlap it; one element for LOGSUMEXP
    const void *next_part  # bring it to L1 during softmax's exponentials; NULL: what follows x
    double *lanes  # scratch: 16 for each of the row's blocks, of `row_block` elements
    # Between the phases:
    bint is_max
    double pivot  # the maximum, if `is_max`
    Py_ssize_t max_block
    double sum_high
    double sum_low
    double log_sum

cdef enum RowPhase:
    ROW_PIVOT  # choose a pivot, for softmax with y apart from x; 0 if none serves
    ROW_MAXIMA  # of each block
    ROW_MAXIMUM  # by those; 0 if it is not finite
    ROW_SUMS  # of each block's exponentials, which softmax writes into y
    ROW_SUM  # of those; 0 if the pivot did not serve: on from ROW_MAXIMA
    ROW_RESULT

# Does a phase for blocks `start` to `stop`. ROW_PIVOT, ROW_MAXIMUM, ROW_SUM, and ROW_RESULT for
# LOGSUMEXP, are for one thread, with all blocks; the others' blocks may be shared. 1 but for the
# above.
ctypedef int (*phase_fn)(
    LongRow *row, int phase, Py_ssize_t start, Py_ssize_t stop,
) noexcept nogil


cdef inline bint temperature_in_range(double temperature) noexcept nogil:
    """Return whether exponentials are made at `temperature`; at others, scores are rewritten."""
    return 1e-30 <= temperature <= 1e30


# ---- selection -----------------------------------------------------------------------------------

cdef struct TopKCall:
    int dtype  # DType
    Py_ssize_t n
    Py_ssize_t k
    bint largest
    bint sorted
    void *values  # k a row, of `dtype`
    int64_t *indices

cdef enum:
    MANY_IDS = 512  # of a row, from which on a sort ranks them sooner than looks into the row

cdef struct RankCall:
    int dtype  # DType
    Py_ssize_t n
    Py_ssize_t m  # ids a row
    const int64_t *ids  # may change meanwhile: an id outside the row gets the rank -1
    int64_t *ranks
    const PackedRows *packed  # NULL: rows come as they are


# ---- sampling ------------------------------------------------------------------------------------

cdef struct Filters:
    double temperature
    Py_ssize_t top_k  # 0 for all
    double top_p  # 1 for all
    double log_min_p  # -inf for all
    Py_ssize_t min_keep

cdef struct LogprobOutput:
    # Of the ids drawn, the former two of the logits' type.
    void *logprobs
    void *filtered
    int64_t *ranks

cdef struct Race:  # the draws of a race
    const uint64_t *seeds
    Py_ssize_t seed_stride  # 1 if there is one for each row, else 0
    const uint64_t *positions
    Py_ssize_t position_stride
    double *scores  # of the ids drawn
    # Of a part of a vocabulary:
    int64_t first_id  # a multiple of 128
    const double *highest  # of all parts, of each row; NULL: the rows' own
    const void *map  # a ScoreMap that makes scores of a row's logits; NULL: they are them

cdef struct SampleCall:
    int dtype  # DType
    Py_ssize_t n
    const PackedRows *packed  # NULL: rows come as they are
    const Filters *filters
    Py_ssize_t filter_stride  # 1 if there are filters for each row, else 0
    Py_ssize_t m  # draws a row
    const double *uniforms
    bint replace
    const Race *race  # NULL: by the uniforms
    int64_t *ids  # -1 for a row without probabilities, or used up
    LogprobOutput output
    bint has_output

cdef struct FilterLogitsCall:
    int dtype  # DType
    Py_ssize_t n
    const PackedRows *packed  # NULL: rows come as they are
    const Filters *filters
    Py_ssize_t filter_stride
    bint every_tie
    double largest  # finite number of the result's type
    const Reserve *workspace  # of `filter_logits_bytes`, as the next
    const Reserve *spare

# Set the bytes of workspace for `rows` rows, or fewer, and those of the spare: what a row is worked
# on in that turns out to need more, 0 if none can or it is the only one.
ctypedef void (*filter_logits_bytes_fn)(
    const FilterLogitsCall *call, Py_ssize_t rows, Py_ssize_t *bytes, Py_ssize_t *spare,
) noexcept nogil

cdef struct SupportCall:
    int dtype  # DType
    Py_ssize_t n
    const PackedRows *packed  # NULL: rows come as they are
    const Filters *filters
    Py_ssize_t filter_stride
    Py_ssize_t width  # room a row; a row that needs more gets its count alone
    int64_t *indices
    void *probs
    int64_t *counts

cdef struct TokenLogprobsCall:
    int dtype  # DType
    Py_ssize_t n
    const PackedRows *packed  # NULL: rows come as they are
    const double *temperature
    Py_ssize_t temperature_stride
    Py_ssize_t m
    const int64_t *ids  # may change meanwhile: an id outside the row gets NaN
    void *logprobs

cdef struct TopLogprobsCall:
    int dtype  # DType
    Py_ssize_t n
    const PackedRows *packed  # NULL: rows come as they are
    const double *temperature
    Py_ssize_t temperature_stride
    Py_ssize_t k
    void *logprobs
    int64_t *indices


# ---- losses --------------------------------------------------------------------------------------

cdef struct CrossEntropyCall:  # x2: label probabilities, y: gradient, not x2; each may be NULL
    int dtype  # DType
    Py_ssize_t n  # classes
    double temperature
    const int64_t *targets  # NULL where there are label probabilities; may change meanwhile
    const double *weight  # of each class; NULL is 1
    double smoothing
    int64_t ignore_index
    double factor  # of the gradient, without 1 / temperature
    double *losses
    Py_ssize_t inner  # of columns, which lie in (outer, n, inner)
    const PackedRows *packed  # NULL: rows come as they are
    const Reserve *workspace  # of `cross_entropy_bytes`, or `cross_entropy_columns_bytes`

# Return the bytes of workspace that rows, or columns, need.
ctypedef Py_ssize_t (*loss_bytes_fn)(const CrossEntropyCall *call) noexcept nogil

# Of `rows` targets, return where the first one is that is neither `ignore_index` nor one of n
# classes, or -1 and in `total` the sum of the weights of those that are not `ignore_index`.
# `weight` of each class; NULL is 1, and then `total` is their number. Targets may change meanwhile.
ctypedef Py_ssize_t (*weigh_targets_fn)(
    const int64_t *targets, Py_ssize_t rows, Py_ssize_t n, int64_t ignore_index,
    const double *weight, double *total,
) noexcept nogil

# Return the sum of `rows` losses: in 8 lanes, each a pair of float64, and these in order.
ctypedef double (*sum_losses_fn)(const double *losses, Py_ssize_t rows) noexcept nogil


# ---- tables --------------------------------------------------------------------------------------

cdef struct SoftmaxKernels:
    rows_fn softmax_rows
    columns_fn softmax_columns
    columns_bytes_fn softmax_columns_bytes
    phase_fn long_row
    Py_ssize_t row_block

cdef struct BackwardKernels:
    rows_fn backward
    Py_ssize_t packed_bytes  # of workspace for packed rows

cdef struct SelectionKernels:
    rows_fn top_k
    rows_fn rank
    look_fn *look  # for the front to set

cdef struct SamplingKernels:
    rows_fn sample
    rows_fn filter_logits
    rows_fn support
    rows_fn token_logprobs
    rows_fn top_logprobs
    rows_fn chain  # of a `ChainCall`, in ``chain_abi.pxd``
    rows_fn verify  # of a `VerifyCall`, in ``verify_abi.pxd``, as the next one
    rows_fn beam_step
    look_fn *look  # for the front to set
    filter_logits_bytes_fn filter_logits_bytes

cdef struct LossKernels:
    rows_fn cross_entropy
    weigh_targets_fn weigh_targets
    sum_losses_fn sum_losses
    # For columns of arrays that it gets whole, along the middle axis of (outer, n, inner), of at
    # most so many elements, at temperatures in range.
    rows_fn cross_entropy_columns
    Py_ssize_t max_column_float32
    Py_ssize_t max_column_float64
    loss_bytes_fn cross_entropy_bytes
    loss_bytes_fn cross_entropy_columns_bytes
