# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Sampling, its filters and log-probabilities over one instruction set's kernels.

Rows are logits along the last axis. Randomness is an argument of the kernels: the uniforms are
drawn before, in row order, so no lock is held and no number of threads changes them.
"""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy

cimport numpy as cnp
from cpython.pycapsule cimport PyCapsule_GetPointer

import numpy as np

from .._arguments import values
from .._arguments.results import SampleResult, Support, TopLogprobs, finish_draw

from fastsoftmax._front.cost cimport cost_draw, cost_exp
from fastsoftmax._front.environment cimport enter_environment, leave_environment
from fastsoftmax._front.execute cimport parse_workers, run_rows
from fastsoftmax._front.plan cimport (
    MAX_AXES,
    Operand,
    Plan,
    as_input,
    batch_shape_of,
    begin_plan,
    broadcast,
    checked_ids,
    empty_result,
    finish_plan,
    is_input,
    is_narrow_float,
    result_dtype,
    row_temperatures,
    same_memory,
    set_array,
    set_operand,
    set_temperature,
    writable_result,
)
from fastsoftmax._front.values cimport is_behaved_c, number_within, scalar_or_array, whole_number
from fastsoftmax._kernels.abi cimport (
    FLOAT32,
    FLOAT64,
    Block,
    FilterLogitsCall,
    Filters,
    PackingKernels,
    SampleCall,
    SamplingKernels,
    SupportCall,
    TokenLogprobsCall,
    TopLogprobsCall,
)
from fastsoftmax._kernels.philox cimport philox_rows

cnp.import_array()

cdef extern from "numpy/random/bitgen.h":
    ctypedef struct bitgen_t:
        void *state
        double (*next_double)(void *state) noexcept nogil

cdef enum:
    INITIAL_SUPPORT_WIDTH = 1024  # survivors a row that are provided for

cdef object Generator = np.random.Generator


# ---- filters -------------------------------------------------------------------------------------


cdef double last_min_p = 1
cdef double last_log = 0


cdef double log_of(double min_p) except? -1:
    """Return NumPy's log of `min_p`, -inf for 0."""
    global last_min_p, last_log
    cdef uint64_t environment
    if min_p == 0:
        return -INFINITY
    if min_p != last_min_p:
        environment = enter_environment()
        try:
            last_log = np.log(min_p)
        finally:
            leave_environment(environment)
        last_min_p = min_p
    return last_log


cdef class FilterArgs:
    """The filters of a call: one for all rows, or one for each."""

    cdef Filters one
    cdef cnp.ndarray each  # of `values.FILTERS`, or None

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


# ---- uniforms ------------------------------------------------------------------------------------


cdef bint parse_words(
    object value, const Plan *p, uint64_t *one, const uint64_t **word, Py_ssize_t *stride
) except -1:
    """Take an ordinary seed or position, or one a row; return whether it is that.

    An int of 64 bits goes into `one`, an array of the rows' shape stays where it is; negative
    numbers are their two's complement.
    """
    cdef int d
    word[0] = one
    stride[0] = 0
    if type(value) is int:
        if not -(1 << 63) <= value < 1 << 64:
            return False
        one[0] = value if value >= 0 else <uint64_t><int64_t>value
        return True
    if not (
        is_behaved_c(value)
        and (cnp.PyArray_TYPE(value) == cnp.NPY_INT64 or cnp.PyArray_TYPE(value) == cnp.NPY_UINT64)
        and cnp.PyArray_NDIM(value) == p.ndim - 1
    ):
        return False
    for d in range(p.ndim - 1):
        if cnp.PyArray_DIM(value, d) != p.shape[d]:
            return False
    word[0] = <const uint64_t *>cnp.PyArray_DATA(value)
    stride[0] = 1
    return True


def philox(const uint64_t[::1] seed, const uint64_t[::1] position, Py_ssize_t m):
    """Return m uniforms for each row, of a seed and a position for each."""
    u = np.empty((seed.shape[0], m))
    cdef double[:, ::1] target = u
    if u.size:
        philox_rows(&seed[0], 1, &position[0], 1, seed.shape[0], m, &target[0, 0])
    return u


cdef object uniforms_for(const Plan *p, Py_ssize_t m, rng, seed, position, double *one):
    """Return m uniforms for each row, in an array or, if it is a single one, in `one`."""
    cdef uint64_t s, t
    cdef const uint64_t *seeds
    cdef const uint64_t *positions
    cdef Py_ssize_t seed_stride, position_stride
    cdef bitgen_t *bits
    cdef cnp.ndarray u
    if type(rng) is Generator and seed is None and position is None:
        if p.rows * m != 1:
            return rng.random(p.rows * m)
        source = rng.bit_generator  # as `random` does it, in half the time
        with source.lock:
            bits = <bitgen_t *>PyCapsule_GetPointer(source.capsule, "BitGenerator")
            one[0] = bits.next_double(bits.state)
        return None
    if (
        rng is None
        and parse_words(seed, p, &s, &seeds, &seed_stride)
        and parse_words(position, p, &t, &positions, &position_stride)
    ):
        if p.rows * m == 1:
            philox_rows(seeds, seed_stride, positions, position_stride, 1, 1, one)
            return None
        u = np.empty(p.rows * m)
        philox_rows(
            seeds, seed_stride, positions, position_stride, p.rows, m,
            <double *>cnp.PyArray_DATA(u),
        )
        return u
    given = values.uniforms(rng, seed, position, batch_shape_of(p), m, philox)
    return np.require(given, dtype=np.float64, requirements=["C", "A"])


# ---- results -------------------------------------------------------------------------------------


cdef cnp.ndarray empty_draws(const Plan *p, Py_ssize_t m, bint has_axis, int number):
    """Return an array of NumPy's type `number` for m results a row; without their axis if not
    `has_axis`."""
    cdef cnp.npy_intp shape[MAX_AXES]
    cdef int d
    for d in range(p.ndim - 1):
        shape[d] = p.shape[d]
    shape[p.ndim - 1] = m
    return cnp.PyArray_EMPTY(p.ndim if has_axis else p.ndim - 1, shape, number, 0)


cdef inline int number_of(const Plan *p) noexcept:
    """Return NumPy's number of the type that is computed in."""
    return cnp.NPY_FLOAT32 if p.dtype == FLOAT32 else cnp.NPY_FLOAT64


cdef object as_result(const Plan *p, cnp.ndarray x, cnp.ndarray y):
    """Return results of the type that is computed in as those of the input x: rounded, a scalar."""
    if is_narrow_float(p.x.element):
        with np.errstate(all="ignore"):
            y = y.astype(result_dtype(x))
    return scalar_or_array(y)


cdef class RowsOf:
    """The rows of logits, by their numbers: what an error looks at."""

    cdef object x, shape

    def __getitem__(self, i):
        if self.x.ndim == 0:
            return self.x.reshape(1)
        return self.x[np.unravel_index(i, self.shape)] if self.shape else self.x


cdef double largest_of(cnp.ndarray y) except? -1:
    """Return the largest finite number of an array's type that is computed with."""
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT32:
        return 3.4028234663852886e+38
    if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT64:
        return 1.7976931348623157e+308
    return 65504 if cnp.PyArray_TYPE(y) == cnp.NPY_FLOAT16 else 3.3895313892515355e+38


cdef class SamplingFunctions:
    """The functions that choose tokens, by the kernels of one instruction set.

    Parameters
    ----------
    name : str
        That of the instruction set.
    sample, packing : module
        Its kernels, named after their sources.
    """

    cdef readonly str NAME
    cdef SamplingKernels kernels
    cdef PackingKernels packing

    def __cinit__(self, str name, sample, packing):
        self.NAME = name
        self.kernels = (
            <SamplingKernels *>PyCapsule_GetPointer(sample.kernels, "fastsoftmax.SamplingKernels")
        )[0]
        self.packing = (
            <PackingKernels *>PyCapsule_GetPointer(packing.kernels, "fastsoftmax.PackingKernels")
        )[0]

    def sample(
        self,
        logits,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        size=None,
        replace=True,
        rng=None,
        seed=None,
        position=None,
        on_invalid="raise",
        workers=None,
    ):
        cdef Plan p
        cdef cnp.ndarray given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        return self.draw(
            &p, given, args, size, replace, rng, seed, position, on_invalid, workers, False
        )

    def sample_with_logprobs(
        self,
        logits,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        size=None,
        replace=True,
        rng=None,
        seed=None,
        position=None,
        on_invalid="raise",
        workers=None,
    ):
        cdef Plan p
        cdef cnp.ndarray given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        return self.draw(
            &p, given, args, size, replace, rng, seed, position, on_invalid, workers, True
        )

    cdef object draw(
        self, Plan *p, cnp.ndarray x, FilterArgs args, size, replace, rng, seed, position,
        on_invalid, workers, bint report,
    ):
        """Draw from the rows of a begun plan; return the ids, or a SampleResult if `report`."""
        cdef SampleCall call
        cdef cnp.ndarray ids, logprobs, filtered, ranks
        cdef Py_ssize_t m = 1, i
        cdef double one = 0
        cdef bint flag, valid = True
        cdef int64_t *id
        workers = parse_workers(workers)
        if size is not None and not whole_number(size, &m):
            m = values.draws(size)
        call.replace = replace if type(replace) is bool else values.switch(replace, "replace")
        flag = values.choice(on_invalid, "on_invalid", ("raise", "flag")) == "flag"
        uniforms = uniforms_for(p, m, rng, seed, position, &one)
        ids = empty_draws(p, m, size is not None, cnp.NPY_INT64)
        call.has_output = report
        if report:
            logprobs = empty_draws(p, m, size is not None, number_of(p))
            filtered = empty_draws(p, m, size is not None, number_of(p))
            ranks = empty_draws(p, m, size is not None, cnp.NPY_INT64)
            call.output.logprobs = cnp.PyArray_DATA(logprobs)
            call.output.filtered = cnp.PyArray_DATA(filtered)
            call.output.ranks = <int64_t *>cnp.PyArray_DATA(ranks)
        id = <int64_t *>cnp.PyArray_DATA(ids)
        if p.n == 0:
            for i in range(p.rows * m):
                id[i] = -1
            if report:
                logprobs.fill(np.nan)
                filtered.fill(np.nan)
                ranks.fill(-1)
        elif p.rows * m > 0:
            finish_plan(p, False)
            call.dtype = p.dtype
            call.n = p.n
            call.filters = args.data()
            call.filter_stride = args.stride()
            call.m = m
            call.uniforms = &one
            if uniforms is not None:
                call.uniforms = <const double *>cnp.PyArray_DATA(uniforms)
            call.ids = id
            p.effort = p.n + m
            run_rows(
                &self.packing, self.kernels.sample, &call, p,
                cost_draw(<double>p.rows * p.n, args.fewest() * p.rows, <double>p.rows * m),
                workers,
            )
        for i in range(p.rows * m):
            valid &= id[i] >= 0
        if not valid and not flag:
            self.fail(p, x, ids, m, size)
        if not report:
            return scalar_or_array(ids)
        return SampleResult(
            scalar_or_array(ids), as_result(p, x, logprobs), as_result(p, x, filtered),
            scalar_or_array(ranks),
        )

    cdef object fail(self, const Plan *p, x, ids, Py_ssize_t m, size):
        """Raise the error for ids of which some are -1."""
        cdef RowsOf rows = RowsOf.__new__(RowsOf)
        rows.x = x
        rows.shape = batch_shape_of(p)
        finish_draw(ids.reshape(p.rows, m), rows, rows.shape, size, False)

    def filter_logits(
        self,
        logits,
        *,
        temperature=1.0,
        top_k=None,
        top_p=None,
        min_p=None,
        min_keep=1,
        ties="index",
        out=None,
        workers=None,
    ):
        cdef Plan p
        cdef FilterLogitsCall call
        cdef FilterArgs args
        cdef cnp.ndarray given, y
        workers = parse_workers(workers)
        call.every_tie = values.choice(ties, "ties", ("index", "all")) == "all"
        given = as_input(logits, "logits")
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        y = empty_result(&p, given) if out is None else writable_result(out, &p, given, None)
        if p.rows > 0 and p.n > 0:
            set_array(&p.y, y, &p)
            finish_plan(&p, False)
            call.dtype = p.dtype
            call.n = p.n
            call.filters = args.data()
            call.filter_stride = args.stride()
            call.largest = largest_of(y)
            if p.dtype == FLOAT32:
                call.largest = min(call.largest, 3.4028234663852886e+38)
            run_rows(
                &self.packing, self.kernels.filter_logits, &call, &p,
                cost_draw(<double>p.rows * p.n, args.fewest() * p.rows, 0), workers,
            )
        if out is None:
            return scalar_or_array(y)
        if y is not out and not same_memory(y, np.asarray(out)):
            out[...] = y
        return out

    def support(
        self, logits, *, temperature=1.0, top_k=None, top_p=None, min_p=None, min_keep=1
    ):
        cdef Plan p
        cdef SupportCall call
        cdef FilterArgs args
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray indices, probs, counts, kept, shares
        cdef Py_ssize_t most, width = -1, r, size
        cdef int64_t *count
        begin_plan(&p, given, -1)
        args = parse_filters(&p, &self.packing, temperature, top_k, top_p, min_p, min_keep)
        counts = empty_draws(&p, 0, False, cnp.NPY_INT64)
        count = <int64_t *>cnp.PyArray_DATA(counts)
        most = min(p.n, INITIAL_SUPPORT_WIDTH)
        for r in range(p.rows):
            count[r] = 0
        finish_plan(&p, False)
        while most > width:  # a second time if the room did not suffice
            width = most
            indices = empty_draws(&p, width, True, cnp.NPY_INT64)
            probs = empty_draws(&p, width, True, number_of(&p))
            if p.rows > 0 and p.n > 0:
                call.dtype = p.dtype
                call.n = p.n
                call.filters = args.data()
                call.filter_stride = args.stride()
                call.width = width
                call.indices = <int64_t *>cnp.PyArray_DATA(indices)
                call.probs = cnp.PyArray_DATA(probs)
                call.counts = count
                run_rows(&self.packing, self.kernels.support, &call, &p, 0, 1)
            most = 0
            for r in range(p.rows):
                most = max(most, count[r])
        kept = empty_draws(&p, most, True, cnp.NPY_INT64)
        shares = empty_draws(&p, most, True, number_of(&p))
        size = cnp.PyArray_ITEMSIZE(probs)
        for r in range(p.rows):
            memcpy(
                <char *>cnp.PyArray_DATA(kept) + r * most * 8,
                <char *>cnp.PyArray_DATA(indices) + r * width * 8, most * 8,
            )
            memcpy(
                <char *>cnp.PyArray_DATA(shares) + r * most * size,
                <char *>cnp.PyArray_DATA(probs) + r * width * size, most * size,
            )
        return Support(kept, as_result(&p, given, shares), scalar_or_array(counts))

    def token_logprobs(self, logits, ids, *, temperature=1.0):
        cdef Plan p
        cdef TokenLogprobsCall call
        cdef double one = 1
        cdef double *each
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray checked, y
        begin_plan(&p, given, -1)
        temperature = set_temperature(&p, temperature, &one)
        checked = checked_ids(ids, &p)
        y = cnp.PyArray_EMPTY(
            cnp.PyArray_NDIM(checked), cnp.PyArray_DIMS(checked), number_of(&p), 0
        )
        if cnp.PyArray_SIZE(checked) > 0:
            finish_plan(&p, False)
            each = row_temperatures(&p, &self.packing)
            call.dtype = p.dtype
            call.n = p.n
            call.temperature = each if each != NULL else &one
            call.temperature_stride = each != NULL
            call.m = cnp.PyArray_SIZE(checked) // p.rows
            call.ids = <const int64_t *>cnp.PyArray_DATA(checked)
            call.logprobs = cnp.PyArray_DATA(y)
            p.effort = p.n + call.m
            try:
                run_rows(
                    &self.packing, self.kernels.token_logprobs, &call, &p,
                    cost_exp(<double>p.rows * p.n, False), 1,
                )
            finally:
                free(each)
        return as_result(&p, given, y)

    def top_logprobs(self, logits, n, *, temperature=1.0):
        cdef Plan p
        cdef TopLogprobsCall call
        cdef double one = 1
        cdef double *each
        cdef Py_ssize_t k
        cdef cnp.ndarray given = as_input(logits, "logits")
        cdef cnp.ndarray indices, y
        if type(n) is not int:
            n = values.count(n, "n", 0)
        begin_plan(&p, given, -1)
        if not 0 <= n <= p.n:
            values.count(n, "n", 0, p.n)
        k = n
        temperature = set_temperature(&p, temperature, &one)
        indices = empty_draws(&p, k, True, cnp.NPY_INT64)
        y = empty_draws(&p, k, True, number_of(&p))
        if cnp.PyArray_SIZE(indices) > 0:
            finish_plan(&p, False)
            each = row_temperatures(&p, &self.packing)
            call.dtype = p.dtype
            call.n = p.n
            call.temperature = each if each != NULL else &one
            call.temperature_stride = each != NULL
            call.k = k
            call.indices = <int64_t *>cnp.PyArray_DATA(indices)
            call.logprobs = cnp.PyArray_DATA(y)
            try:
                run_rows(
                    &self.packing, self.kernels.top_logprobs, &call, &p,
                    cost_exp(<double>p.rows * p.n, False), 1,
                )
            finally:
                free(each)
        return TopLogprobs(as_result(&p, given, y), indices)
