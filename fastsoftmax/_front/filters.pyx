# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The parameters of filters: one for all rows, or one for each."""

from libc.math cimport INFINITY
from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cimport numpy as cnp

import numpy as np

from .._arguments import values

from fastsoftmax._front.arrays cimport is_input, numbers_as_array
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.plan cimport Operand, Plan, batch_shape_of, broadcast, set_operand
from fastsoftmax._front.values cimport number_within, whole_number
from fastsoftmax._kernels.abi cimport FLOAT64, Block, Filters, PackingKernels

cnp.import_array()

# Not thread-local: where there is no memory for such storage, the process ends.
cdef extern from *:
    """
    static double fs_last_min_p = 1, fs_last_log = 0;
    static char fs_lent;
    static inline int fs_borrow_last(void) {
        return !__atomic_exchange_n(&fs_lent, 1, __ATOMIC_ACQUIRE);
    }
    static inline void fs_return_last(void) { __atomic_store_n(&fs_lent, 0, __ATOMIC_RELEASE); }
    """
    double last_min_p "fs_last_min_p"  # they belong together
    double last_log "fs_last_log"
    bint borrow_last "fs_borrow_last"() noexcept nogil  # False: another thread has them
    void return_last "fs_return_last"() noexcept nogil


cdef double log_of(double min_p) except? -1:
    """Return NumPy's log of `min_p`, -inf for 0."""
    global last_min_p, last_log
    cdef double log = -INFINITY
    cdef bint known = min_p == 0
    if not known and borrow_last():
        known = min_p == last_min_p
        log = last_log
        return_last()
    if not known:
        log = np.log(min_p)
        if borrow_last():
            last_min_p = min_p
            last_log = log
            return_last()
    return log


cdef class FilterArgs:
    """The filters of a call: one for all rows, or one for each."""

    cdef const Filters *data(self) noexcept:
        """Return the first of them."""
        if self.each is None:
            return &self.one
        return <const Filters *>cnp.PyArray_DATA(self.each)

    cdef Py_ssize_t stride(self) noexcept:
        """Return 1 if each row has its own, else 0."""
        return 0 if self.each is None else 1

    cdef double fewest(self) noexcept:
        """Return a number of elements that are surely selected from each row; 0 for all."""
        return self.one.top_k if self.each is None else 0


cdef bint spread_values(
    const Plan *p, const PackingKernels *packing, object value, char *first, Py_ssize_t step
) except -1:
    """Write one number a row, as float64 and `step` bytes apart, of an array that broadcasts.

    Return False where `value` is no array of real numbers that does.
    """
    cdef Operand o
    cdef Block block, out
    cdef double row[256]
    cdef Py_ssize_t done = 0, i, offset, run, m
    cdef int d, last = p.ndim - 2
    if not is_input(value) or cnp.PyArray_TYPE(value) == cnp.NPY_BOOL:
        return False
    if not broadcast(&o, value, p, True):
        return False
    set_operand(&o, value)
    block.element = o.element
    block.swapped = o.swapped
    block.step = o.axes[last] if last >= 0 else o.itemsize
    block.row_step = 0
    out.element = FLOAT64
    out.swapped = False
    out.step = step
    out.row_step = 0
    while done < p.rows:
        offset = 0
        i = done
        run = p.rows
        for d in range(last, -1, -1):
            if d == last:
                run = p.shape[d] - i % p.shape[d]
            offset += i % p.shape[d] * o.axes[d]
            i //= p.shape[d]
        m = min(run, <Py_ssize_t>256)
        block.data = o.data + offset
        packing.load(&block, NULL, 1, m, FLOAT64, row)
        out.data = first + done * step
        packing.store(&out, 1, m, FLOAT64, row)
        done += m
    return True


cdef bint spread_filter(
    const Plan *p, const PackingKernels *packing, object value, double no_op, double high,
    bint whole, char *first,
) except -1:
    """Write a filter's parameter for each row; return False where it takes more than that."""
    cdef double number
    cdef Py_ssize_t count, i
    cdef Py_ssize_t step = sizeof(Filters)
    value = numbers_as_array(value)
    if value is None:
        number = no_op
    elif whole and whole_number(value, &count):
        number = count
    elif whole or not number_within(value, high, &number):
        if whole and not (is_input(value) and value.dtype.kind in "iu"):
            return False
        if not spread_values(p, packing, value, first, step):
            return False
        for i in range(p.rows):
            memcpy(&number, first + i * step, sizeof(double))
            if not 0 <= number <= high:
                return False
        return True
    for i in range(p.rows):
        memcpy(first + i * step, &number, sizeof(double))
    return True


cdef FilterArgs parse_filters(
    const Plan *p, const PackingKernels *packing, temperature, top_k, top_p, min_p, min_keep
):
    """Return the checked filters of a call; raise where one is wrong."""
    cdef uint64_t environment = enter_environment()
    try:
        return filters_of(p, packing, temperature, top_k, top_p, min_p, min_keep)
    finally:
        leave_environment(environment)


cdef FilterArgs filters_of(
    const Plan *p, const PackingKernels *packing, temperature, top_k, top_p, min_p, min_keep
):
    """Do as `parse_filters`, in the environment of kernels."""
    cdef FilterArgs args = FilterArgs.__new__(FilterArgs)
    cdef Filters *f = &args.one
    cdef Filters *each
    cdef Py_ssize_t i
    cdef double number, least = 0
    f.top_k = 0
    f.top_p = 1
    args.each = None
    if not (whole_number(min_keep, &f.min_keep) and f.min_keep >= 1):
        values.count(min_keep, "min_keep", 1)
        f.min_keep = 1 << 53
    if (
        number_within(temperature, INFINITY, &f.temperature)
        and (top_k is None or whole_number(top_k, &f.top_k))
        and (top_p is None or number_within(top_p, 1, &f.top_p))
        and (min_p is None or number_within(min_p, 1, &least))
    ):
        f.log_min_p = log_of(least)
        return args
    args.each = np.empty(p.rows, values.FILTERS)
    each = <Filters *>cnp.PyArray_DATA(args.each)
    if p.rows > 0 and temperature is not None and (
        spread_filter(p, packing, temperature, 1, INFINITY, False, <char *>&each.temperature)
        and spread_filter(p, packing, top_k, 0, 9007199254740992.0, True, <char *>&each.top_k)
        and spread_filter(p, packing, top_p, 1, 1, False, <char *>&each.top_p)
        and spread_filter(p, packing, min_p, 0, 1, False, <char *>&each.log_min_p)
    ):
        for i in range(p.rows):
            memcpy(&number, &each[i].top_k, sizeof(double))
            each[i].top_k = <Py_ssize_t>number
            each[i].min_keep = f.min_keep
            least = each[i].log_min_p
            each[i].log_min_p = log_of(least)
        return args
    args.each = values.filters(
        batch_shape_of(p), temperature, top_k, top_p, min_p, min_keep
    )
    if cnp.PyArray_SIZE(args.each) == 1:
        args.one = (<Filters *>cnp.PyArray_DATA(args.each))[0]
        args.each = None
    return args
