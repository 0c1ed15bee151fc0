# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""top_k and rank over one instruction set's kernels.

Kernels select among float32, float64 or int64; other types are packed as one of these, of the same
order, and values are taken from the input by the indices found, byte for byte.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cimport numpy as cnp

from .._arguments import arrays as arguments
from .._arguments import values
from .._arguments.results import TopK

from fastsoftmax._front.arrays cimport as_input, empty_array, is_narrow_float, native_dtype
from fastsoftmax._front.cost cimport cost_select
from fastsoftmax._front.execute cimport parse_workers, run_rows
from fastsoftmax._front.long_selection cimport run_packed_top_k
from fastsoftmax._front.packed_rows cimport packed_rows, packing_for
from fastsoftmax._front.plan cimport (
    MAX_AXES,
    Operand,
    Plan,
    begin_plan,
    finish_plan,
    place_of,
    set_operand,
)
from fastsoftmax._front.results cimport new_tuple
from fastsoftmax._front.row_arguments cimport checked_ids
from fastsoftmax._front.tables cimport copy_table
from fastsoftmax._front.values cimport scalar_or_array
from fastsoftmax._kernels.abi cimport (
    ELEMENT_BOOL,
    ELEMENT_FLOAT32,
    ELEMENT_INT16,
    ELEMENT_INT64,
    ELEMENT_INT8,
    ELEMENT_UINT16,
    ELEMENT_UINT64,
    ELEMENT_UINT8,
    FLOAT32,
    FLOAT64,
    INT64,
    MANY_IDS,
    PackedRows,
    PackingKernels,
    RankCall,
    SelectionKernels,
    TopKCall,
)

cnp.import_array()


cdef int selection_dtype(int element) noexcept:
    """Return the type in which elements are compared: exact, and in their order."""
    if element == ELEMENT_INT64 or element == ELEMENT_UINT64:
        return INT64
    if (
        element == ELEMENT_FLOAT32 or is_narrow_float(element)
        or element == ELEMENT_BOOL or element == ELEMENT_INT8 or element == ELEMENT_UINT8
        or element == ELEMENT_INT16 or element == ELEMENT_UINT16
    ):
        return FLOAT32
    return FLOAT64


cdef void reverse(char *bytes, Py_ssize_t size) noexcept:
    """Reverse the order of `size` bytes."""
    cdef Py_ssize_t i
    for i in range(size // 2):
        bytes[i], bytes[size - 1 - i] = bytes[size - 1 - i], bytes[i]


cdef inline void copy_elements(
    const char *x, Py_ssize_t step, const int64_t *places, Py_ssize_t k, Py_ssize_t size, char *y,
    Py_ssize_t y_step,
) noexcept nogil:
    """Copy k elements of `size` bytes, those at `places` or, if NULL, all, with steps between."""
    cdef Py_ssize_t j
    for j in range(k):
        memcpy(y + j * y_step, x + (places[j] if places != NULL else j) * step, size)


cdef inline void copy_sized(
    const char *x, Py_ssize_t step, const int64_t *places, Py_ssize_t k, Py_ssize_t size, char *y,
    Py_ssize_t y_step,
) noexcept nogil:
    """Call `copy_elements` with a size that the compiler knows."""
    if size == 2:
        copy_elements(x, step, places, k, 2, y, y_step)
    elif size == 4:
        copy_elements(x, step, places, k, 4, y, y_step)
    elif size == 8:
        copy_elements(x, step, places, k, 8, y, y_step)
    else:
        copy_elements(x, step, places, k, 1, y, y_step)


cdef void take(const Plan *p, const int64_t *indices, Py_ssize_t k, char *y) noexcept:
    """Copy the elements of each row that `indices` names, k a row, to y, in native byte order."""
    cdef Py_ssize_t size = p.x.itemsize
    cdef Py_ssize_t step = p.x.inner[0] if p.inner_ndim > 0 else size
    cdef Py_ssize_t row, j
    for row in range(p.rows):
        copy_sized(p.x.data + place_of(p, &p.x, row), step, indices + row * k, k, size, y, size)
        if p.x.swapped:
            for j in range(k):
                reverse(y + j * size, size)
        y += k * size


cdef cnp.ndarray empty_selection(const Plan *p, Py_ssize_t k, cnp.dtype dtype):
    """Return an array of the input's shape, but for k elements along the axis of a row."""
    cdef cnp.npy_intp shape[MAX_AXES]
    cdef int d
    for d in range(p.ndim):
        shape[d] = k if p.reduced[d] else p.shape[d]
    return empty_array(p.ndim, shape, dtype)


cdef class SelectionFunctions:
    """top_k and rank, by the kernels of one instruction set.

    Parameters
    ----------
    name : str
        That of the instruction set.
    select, packing : module
        Its kernels, named after their sources.
    """

    cdef readonly str NAME
    cdef SelectionKernels kernels
    cdef PackingKernels packing

    def __cinit__(self, str name, select, packing):
        self.NAME = name
        copy_table(select.kernels, &self.kernels)
        copy_table(packing.kernels, &self.packing)

    def top_k(self, x, k, *, axis=-1, mode="largest", sorted=True, workers=None):
        cdef Plan p
        cdef cnp.ndarray given, found, taken
        cdef Py_ssize_t count
        cdef bint largest, in_order
        # What has code of its own comes before anything is measured.
        workers = parse_workers(workers)
        given = as_input(x, "x")
        if type(axis) is not int:
            axis = arguments.one_axis(axis, max(1, cnp.PyArray_NDIM(given)))
        if type(k) is not int:
            k = values.count(k, "k", 0)
        largest = type(mode) is str and mode == "largest"
        if not largest:
            values.choice(mode, "mode", ("largest", "smallest"))
        in_order = sorted if type(sorted) is bool else values.switch(sorted, "sorted")
        begin_plan(&p, given, axis)
        if not 0 <= k <= p.n:
            values.count(k, "k", 0, p.n)
        count = k
        p.dtype = selection_dtype(p.x.element)
        taken = empty_selection(&p, count, native_dtype(given))
        found = empty_selection(&p, count, cnp.PyArray_DescrFromType(cnp.NPY_INT64))
        if count > 0 and p.rows > 0:
            self.select(&p, count, largest, in_order, taken, found, workers)
        return new_tuple(TopK, (taken, found))

    cdef int select(
        self, Plan *p, Py_ssize_t k, bint largest, bint in_order, cnp.ndarray taken,
        cnp.ndarray found, workers,
    ) except -1:
        """Write the first k of each row of a begun plan into `taken`, and where they were."""
        cdef TopKCall call
        cdef Operand taking
        cdef int d
        cdef Py_ssize_t size = cnp.PyArray_ITEMSIZE(taken)
        cdef bint direct, copies = p.x.element != p.dtype
        cdef double work
        cdef char *scratch = NULL
        set_operand(&p.y, found)
        p.y.n = k
        for d in range(p.ndim):
            p.y.axes[d] = cnp.PyArray_STRIDE(found, d)
        finish_plan(p, False)
        direct = (p.batch_ndim == 0 or p.batch_ndim == 1 and p.y.batch[0] == k * 8) and (
            p.inner_ndim == 0 or p.y.inner[0] == 8
        )
        taking = p.y
        p.y.data = NULL
        call.dtype = p.dtype
        call.n = p.n
        call.k = k
        call.largest = largest
        call.sorted = in_order
        call.indices = <int64_t *>cnp.PyArray_DATA(found)
        call.values = cnp.PyArray_DATA(taken)
        if not direct or copies:
            scratch = <char *>malloc(p.rows * k * (8 + 8))
            if scratch == NULL:
                raise MemoryError(f"no memory for {p.rows * k} selected elements")
            if not direct:
                call.indices = <int64_t *>scratch
            call.values = scratch + p.rows * k * 8
        work = cost_select(<double>p.rows * p.n, <double>p.rows * k)
        try:
            if not run_packed_top_k(&self.packing, self.kernels.top_k, &call, p, work, workers):
                run_rows(&self.packing, self.kernels.top_k, &call, p, work, workers)
            if copies:
                if direct:
                    take(p, call.indices, k, <char *>cnp.PyArray_DATA(taken))
                else:
                    take(p, call.indices, k, <char *>call.values)
            if not direct:
                self.spread(p, &taking, call.indices, 8)
                for d in range(p.batch_ndim):
                    taking.batch[d] = taking.batch[d] // 8 * size
                taking.inner[0] = taking.inner[0] // 8 * size if p.inner_ndim > 0 else size
                taking.data = <char *>cnp.PyArray_DATA(taken)
                self.spread(p, &taking, call.values, size)
        finally:
            free(scratch)
        return 0

    cdef void spread(
        self, const Plan *p, const Operand *o, const void *x, Py_ssize_t size
    ) noexcept:
        """Copy contiguous rows of elements of `size` bytes to where an array has them."""
        cdef Py_ssize_t step = o.inner[0] if p.inner_ndim > 0 else size
        cdef const char *source = <const char *>x
        cdef Py_ssize_t row
        for row in range(p.rows):
            copy_sized(source, size, NULL, o.n, size, o.data + place_of(p, o, row), step)
            source += o.n * size

    def rank(self, logits, ids):
        cdef Plan p
        cdef RankCall call
        cdef PackedRows rows
        cdef cnp.ndarray given, checked, ranks
        given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        p.dtype = selection_dtype(p.x.element)
        checked = checked_ids(ids, &p)
        ranks = cnp.PyArray_EMPTY(
            cnp.PyArray_NDIM(checked), cnp.PyArray_DIMS(checked), cnp.NPY_INT64, 0
        )
        if cnp.PyArray_SIZE(checked) > 0:
            finish_plan(&p, False)
            call.dtype = p.dtype
            call.n = p.n
            call.m = cnp.PyArray_SIZE(checked) // p.rows
            call.packed = packed_rows(&rows, &self.packing, &p)
            call.ids = <const int64_t *>cnp.PyArray_DATA(checked)
            call.ranks = <int64_t *>cnp.PyArray_DATA(ranks)
            p.effort = p.n * min(call.m, <Py_ssize_t>MANY_IDS) + call.m
            run_rows(
                packing_for(call.packed, &self.packing), self.kernels.rank, &call, &p, 0, 1
            )
        return scalar_or_array(ranks)
