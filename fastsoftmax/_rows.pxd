# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What softmax and the losses share: maximum, exponentials and sums of one contiguous row.

Each loop over elements is a function of its own, for the vectoriser, and takes a multiple of STEP
elements; the last, partial step of a row goes through a padded copy: no scalar tails.

Order of sums
    The exponentials of a block are made by one loop and added by another: four neighbouring eighths
    in the element type, then eight lanes in float64 (float32 rows) or in a pair of float64 (float64
    rows); the end of a block closes the lanes. The map has no order and the sum has this fixed one,
    so every vector width gives the same bits.
"""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

from fastsoftmax._exponents cimport (
    CENTRE,
    FACTOR,
    HEATED,
    HIGH,
    LOW,
    MAGIC,
    SCALED,
    SHIFTED,
    Form,
    Heated,
    Plain,
    Scaled,
    Shifted,
    form_of,
    power,
    scaling,
)
from fastsoftmax._math cimport (
    exp_above,
    fma,
    infinity,
    lowest_bit,
    prefetch,
    real,
    written,
    written32,
    written64,
)

cdef enum:
    STEP = 32  # elements that a sum takes at once
    BLOCK = 2048  # elements whose exponentials stay in L1 until they are added
    LINE = 64  # bytes of a cache line
    LONG = 4 * BLOCK  # elements of a row from which on it pays to write vectors that share no line

cdef struct Lanes:
    double high[8]
    double low[8]


cdef struct Pair:
    double high
    double low


cdef struct Top:
    # The largest element of a row (NaN is passed over), and where the block starts that has it.
    double value
    Py_ssize_t block


# ---- loops over a multiple of STEP elements, each a function of its own for the vectoriser -------


cdef inline real largest_lane(real *lane) noexcept nogil:
    """Return the largest of STEP lanes; they are lost."""
    cdef Py_ssize_t l
    for l in range(16):  # in halves: one chain of 32 would take as long as hundreds of elements
        lane[l] = lane[16 + l] if lane[16 + l] > lane[l] else lane[l]
    for l in range(8):
        lane[l] = lane[8 + l] if lane[8 + l] > lane[l] else lane[l]
    for l in range(4):
        lane[l] = lane[4 + l] if lane[4 + l] > lane[l] else lane[l]
    for l in range(2):
        lane[l] = lane[2 + l] if lane[2 + l] > lane[l] else lane[l]
    return lane[1] if lane[1] > lane[0] else lane[0]


cdef inline real max_of(const real *x, Py_ssize_t n, real highest) noexcept nogil:
    """Return the largest of `highest` and x[0:n]; NaN is passed over."""
    cdef real lane[STEP]
    cdef Py_ssize_t j, l
    for l in range(STEP):
        lane[l] = highest
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
    return largest_lane(lane)


cdef inline void exp_of(
    const real *x, real *y, Py_ssize_t n, const real *how, scaling kind
) noexcept nogil:
    """y = the exponentials of x"""
    cdef real centre = how[CENTRE]
    cdef real factor = how[FACTOR]
    cdef real low = how[LOW]
    cdef real high = how[HIGH]
    cdef real magic = how[MAGIC]
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = power(x[j], centre, factor, low, high, magic, kind)


cdef inline void fetch(const real *p, Py_ssize_t n) noexcept nogil:
    """Have the whole lines of n elements, which need not exist, brought to L1."""
    cdef Py_ssize_t line = LINE // sizeof(real)
    cdef Py_ssize_t j
    for j from 0 <= j <= n - line by line:
        prefetch(p + j)


cdef inline void exp_and_fetch(
    const real *x, written y, Py_ssize_t n, const real *how, const real *fetched, scaling kind
) noexcept nogil:
    """exp_of, with as many elements of another row brought to L1"""
    cdef real centre = how[CENTRE]
    cdef real factor = how[FACTOR]
    cdef real low = how[LOW]
    cdef real high = how[HIGH]
    cdef real magic = how[MAGIC]
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        fetch(fetched + j, STEP)
        for l in range(STEP):
            y[j + l] = power(x[j + l], centre, factor, low, high, magic, kind)


cdef inline real exp_and_max(
    const real *x, written e, Py_ssize_t n, real low, real magic, real highest,
    const real *fetched,
) noexcept nogil:
    """e = the exponentials of x, with as many elements of `fetched` brought to L1.

    Return the largest of `highest` and x[0:n], without which one could not tell whether some were
    too large; NaN is passed over.
    """
    cdef real lane[STEP]
    cdef Py_ssize_t j, l
    for l in range(STEP):
        lane[l] = highest
    for j from 0 <= j < n by STEP:
        fetch(fetched + j, STEP)
        for l in range(STEP):
            lane[l] = x[j + l] if x[j + l] > lane[l] else lane[l]
            e[j + l] = exp_above(x[j + l], low, magic)
    return largest_lane(lane)


cdef inline void add_to(Lanes *lanes, const real *e, Py_ssize_t n) noexcept nogil:
    """Add e[0:n] to the lanes."""
    cdef double high[8]
    cdef double low[8]
    cdef double quad[8]
    cdef double total[8]
    cdef double part[8]
    cdef Py_ssize_t j, l
    for l in range(8):
        high[l] = lanes.high[l]
        low[l] = lanes.low[l]
    for j from 0 <= j < n by STEP:
        for l in range(8):
            quad[l] = (e[j + l] + e[j + 8 + l]) + (e[j + 16 + l] + e[j + 24 + l])
        if real is float:
            for l in range(8):
                high[l] += quad[l]
        else:  # Knuth's TwoSum: high + low stays exact (one loop of it would stay scalar)
            for l in range(8):
                total[l] = high[l] + quad[l]
            for l in range(8):
                part[l] = total[l] - high[l]
            for l in range(8):
                low[l] += (high[l] - (total[l] - part[l])) + (quad[l] - part[l])
            for l in range(8):
                high[l] = total[l]
    for l in range(8):
        lanes.high[l] = high[l]
        lanes.low[l] = low[l]


cdef inline void scale(real *y, Py_ssize_t n, real high, real low) noexcept nogil:
    """y = y * (high + low), rounded once (nearly)"""
    cdef Py_ssize_t j, l
    for j from 0 <= j < n by STEP:
        for l in range(STEP):
            y[j + l] = fma(y[j + l], high, y[j + l] * low)


cdef inline void subtract(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse, real log_sum
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum"""
    cdef Py_ssize_t j
    for j in range(n):
        y[j] = (x[j] - highest) * inverse - log_sum


# Inlined, the sums of float64 stay scalar. Through this pointer, a variable of each kernel, gcc
# cannot inline them.
ctypedef void (*adder)(Lanes *lanes, const double *e, Py_ssize_t n) noexcept nogil


cdef inline void add(Lanes *lanes, const real *e, Py_ssize_t n, adder add_double) noexcept nogil:
    """Add e[0:n] to the lanes."""
    if real is float:
        add_to(lanes, e, n)
    else:
        add_double(lanes, e, n)


# ---- blocks --------------------------------------------------------------------------------------


cdef inline Py_ssize_t whole(Py_ssize_t n) noexcept nogil:
    """Return how many of n elements fill whole steps."""
    return n & ~(<Py_ssize_t>STEP - 1)


cdef inline void pad(const real *x, real *tail, Py_ssize_t n) noexcept nogil:
    """Copy n < STEP elements of x and fill up with -inf, whose exponential is 0."""
    cdef Py_ssize_t j
    for j in range(STEP):  # masked loads; a memcpy of so few bytes is slow
        tail[j] = x[j] if j < n else -infinity(<real>0)


cdef inline void two_sum(Pair *s, double x) noexcept nogil:
    """Add x to the pair, exactly (Knuth's TwoSum)."""
    cdef double total = s.high + x
    cdef double part = total - s.high
    s.low += (s.high - (total - part)) + (x - part)
    s.high = total


cdef inline void exp_block(
    const real *x, real *y, Py_ssize_t n, const real *how
) noexcept nogil:
    """y = the exponentials of x, over any whole number of steps"""
    cdef Form form = form_of(how)
    if form == HEATED:
        exp_of(x, y, n, how, <Heated>0)
    elif form == SCALED:
        exp_of(x, y, n, how, <Scaled>0)
    elif form == SHIFTED:
        exp_of(x, y, n, how, <Shifted>0)
    else:
        exp_of(x, y, n, how, <Plain>0)


cdef inline void exp_fetching(
    const real *x, written y, Py_ssize_t n, const real *how, const real *fetched
) noexcept nogil:
    """exp_block over whole steps; as many elements from `fetched` on, if not NULL, come to L1."""
    cdef Form form = form_of(how)
    if fetched == NULL:
        exp_block(x, <real *>y, n, how)
    elif form == HEATED:
        exp_and_fetch(x, y, n, how, fetched, <Heated>0)
    elif form == SCALED:
        exp_and_fetch(x, y, n, how, fetched, <Scaled>0)
    elif form == SHIFTED:
        exp_and_fetch(x, y, n, how, fetched, <Shifted>0)
    else:
        exp_and_fetch(x, y, n, how, fetched, <Plain>0)


cdef inline void exp_padded(real *tail, const real *how) noexcept nogil:
    """exp_block over one step, in place"""
    cdef real x[STEP]
    cdef Py_ssize_t j
    for j in range(STEP):
        x[j] = tail[j]
    exp_block(<const real *>x, tail, STEP, how)


cdef inline Py_ssize_t exponentials_of_block(
    const real *x, real *e, Py_ssize_t n, const real *how, const real *fetched
) noexcept nogil:
    """e = the exponentials of x, filled up with 0 to whole steps; return how many.

    As many elements are fetched from `fetched` on, if that is not NULL.
    """
    cdef Py_ssize_t w = whole(n)
    if real is float:
        exp_fetching(x, <written32>e, w, how, fetched)
    else:
        exp_fetching(x, <written64>e, w, how, fetched)
    if w == n:
        return n
    pad(x + w, e + w, n - w)
    exp_padded(e + w, how)
    return w + STEP


cdef inline void clear(Lanes *lanes) noexcept nogil:
    """Set the lanes to 0."""
    cdef Py_ssize_t j
    for j in range(8):
        lanes.high[j] = lanes.low[j] = 0


cdef inline double value(Pair s) noexcept nogil:
    """Return what the pair stands for; an infinite sum has left NaN in its low part."""
    return s.high + s.low if s.low == s.low else s.high


cdef inline void close(Pair *s, Lanes *lanes, real like) noexcept nogil:
    """Add the lanes of a block to the sum, in one order for every implementation."""
    cdef double *a = lanes.high
    cdef Py_ssize_t l
    if real is float:
        two_sum(s, ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7])))
    else:
        for l in range(8):
            two_sum(s, a[l])
            s.low += lanes.low[l]


cdef inline void begin(Top *top) noexcept nogil:
    """Make it that of no elements."""
    top.value = -infinity(<double>0)
    top.block = 0


cdef inline void rise(Top *top, const real *x, Py_ssize_t start, Py_ssize_t n) noexcept nogil:
    """Take into account the block of a row of n elements that begins at `start`."""
    cdef Py_ssize_t m = min(BLOCK, n - start)
    cdef Py_ssize_t w = whole(m)
    cdef real highest = <real>top.value
    cdef real tail[STEP]
    if w:
        highest = max_of(x + start, w, highest)
    if w < m:
        pad(x + start + w, tail, m - w)
        highest = max_of(<const real *>tail, STEP, highest)
    if highest > top.value:
        top.value = highest
        top.block = start


cdef inline Top top_of(const real *x, Py_ssize_t n) noexcept nogil:
    """Return the largest element of a row."""
    cdef Py_ssize_t start
    cdef Top top
    begin(&top)
    for start from 0 <= start < n by BLOCK:
        rise(&top, x, start, n)
    return top


cdef inline Py_ssize_t place_of(const real *x, Py_ssize_t n, real highest) noexcept nogil:
    """Return the first place of `highest` in a block, n if it is not there."""
    cdef Py_ssize_t j = 0, l
    cdef uint32_t found
    while j + STEP <= n:
        found = 0
        for l in range(STEP):
            found |= <uint32_t>(x[j + l] == highest) << l
        if found:
            return j + lowest_bit(found)
        j += STEP
    while j < n and x[j] != highest:
        j += 1
    return j


cdef inline void lanes_of_others(
    const real *x, Py_ssize_t n, real highest, const real *how, bint own,
    Lanes *lanes, adder add_double, const real *fetched
) noexcept nogil:
    """Write the lanes of a block's exponentials, without the largest entry's if it is `own`."""
    cdef real e[BLOCK + 1]  # the last one takes the 0 of a row of NaN
    cdef Py_ssize_t w = exponentials_of_block(x, e, n, how, fetched)
    if own and highest < infinity(<real>0):
        e[place_of(x, n, highest)] = 0
    clear(lanes)
    add(lanes, e, w, add_double)


# ---- rows, and parts of a row that begin at a block ----------------------------------------------
#
# While a row's exponentials are made, which waits for nothing, the `following` row (NULL if there
# is none) is brought to L1 and its largest element found: alone that would wait for memory.


cdef inline Pair sum_of_others(
    const real *x, Py_ssize_t n, const real *how, adder add_double, Top *top,
    const real *following
) noexcept nogil:
    """Return the sum of a row's exponentials without the largest entry's own term.

    `top` is the row's, and becomes that of the `following` one.
    """
    cdef Py_ssize_t start
    cdef Py_ssize_t block = top.block
    cdef real highest = <real>top.value
    cdef Pair s
    cdef Lanes lanes
    begin(top)
    s.high = s.low = 0
    for start from 0 <= start < n by BLOCK:
        lanes_of_others(
            x + start, min(BLOCK, n - start), highest, how, start == block, &lanes,
            add_double, following + start if following != NULL else NULL,
        )
        close(&s, &lanes, <real>0)
        if following != NULL:
            rise(top, following, start, n)
    return s


cdef inline Pair sum_of_guess(
    const real *x, Py_ssize_t n, const real *how, real *largest, adder add_double,
    const real *following
) noexcept nogil:
    """The same sum without knowing the largest entry, which is written; `how` is by a guess.

    Where a block has an entry larger than all before, its sum is made again without that.
    """
    cdef Py_ssize_t start, m, w
    cdef real e[BLOCK + 1]
    cdef real highest = -infinity(<real>0)
    cdef real before
    cdef Pair all_of, s
    cdef Lanes lanes
    all_of.high = all_of.low = s.high = s.low = 0
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = whole(m)
        before = highest
        if real is float:
            highest = exp_and_max(
                x + start, <written32>e, w, how[LOW], how[MAGIC], highest, following + start
            )
        else:
            highest = exp_and_max(
                x + start, <written64>e, w, how[LOW], how[MAGIC], highest, following + start
            )
        if w < m:
            pad(x + start + w, e + w, m - w)
            highest = max_of(<const real *>e + w, STEP, highest)
            exp_padded(e + w, how)
            w += STEP
        clear(&lanes)
        add(&lanes, <const real *>e, w, add_double)
        if highest > before:
            s = all_of
            close(&all_of, &lanes, <real>0)
            e[place_of(x + start, m, highest)] = 0
            clear(&lanes)
            add(&lanes, <const real *>e, w, add_double)
        else:
            close(&all_of, &lanes, <real>0)
        close(&s, &lanes, <real>0)
    largest[0] = highest
    return s


cdef inline Py_ssize_t before_line(const real *x, const real *y, Py_ssize_t n) noexcept nogil:
    """Return how many elements of a row y, made of x, are not written line by line at first."""
    if n < LONG or x == y:
        return 0
    return (-<size_t>y & (LINE - 1)) // sizeof(real)


cdef inline void exponentials_of_row(
    const real *x, real *y, Py_ssize_t n, const real *how, bint own, Lanes *lanes,
    Pair *s, adder add_double, Top *top, const real *following
) noexcept nogil:
    """y = the exponentials of x, and their sum added to `s`.

    If `s` is NULL, each block has its own of the `lanes`. Unless `top` is NULL it is the row's, the
    largest entry's term is not in the sum, if not `own`, and it becomes that of the `following`
    row; else what follows is fetched alone. y is x or does not overlap it.
    """
    cdef real highest = <real>top.value if top != NULL else <real>0
    cdef Py_ssize_t block = -1 if own else top.block
    cdef Py_ssize_t start, m, w, ahead, w_ahead, place
    cdef const real *fetched
    cdef Py_ssize_t end = whole(n)
    cdef Py_ssize_t skip = before_line(x, <const real *>y, n)
    cdef real tail[STEP]
    cdef real copy[BLOCK]
    cdef real largest = 0
    if top != NULL:
        begin(top)
    if skip:  # what lies between the first and the last step is written line by line
        exp_block(x, y, STEP, how)
        exp_block(x + end - STEP, y + end - STEP, STEP, how)
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        w = whole(m)
        place = place_of(x + start, m, highest) if start == block else m
        if x == y:  # the loop must know that it does not read what it writes
            memcpy(copy, x + start, w * sizeof(real))
            exp_block(<const real *>copy, y + start, w, how)
        else:
            ahead = start + skip
            fetched = following + start if following != NULL else NULL
            w_ahead = whole(min(BLOCK, end - ahead))
            if real is float:
                exp_fetching(x + ahead, <written32>(y + ahead), w_ahead, how, fetched)
            else:
                exp_fetching(x + ahead, <written64>(y + ahead), w_ahead, how, fetched)
        clear(lanes)
        if w < m:
            pad(x + start + w, tail, m - w)
            exp_padded(tail, how)
            memcpy(y + start + w, tail, (m - w) * sizeof(real))
        if place < w:
            largest = y[start + place]
            y[start + place] = 0
        elif place < m:
            tail[place - w] = 0
        add(lanes, <const real *>(y + start), w, add_double)
        add(lanes, <const real *>tail, STEP if w < m else 0, add_double)
        if place < w:
            y[start + place] = largest
        if s == NULL:
            lanes += 1
        else:
            close(s, lanes, <real>0)
        if top != NULL and following != NULL:
            rise(top, following, start, n)


cdef inline void scale_row(
    const real *x, real *y, Py_ssize_t n, real high, real low
) noexcept nogil:
    """y = y * (high + low), in the steps of `exponentials_of_row`."""
    cdef real step[STEP]
    cdef Py_ssize_t end = whole(n)
    cdef Py_ssize_t skip = before_line(x, <const real *>y, n)
    if skip:
        memcpy(step, y, skip * sizeof(real))
        memcpy(step + skip, y + end - (STEP - skip), (STEP - skip) * sizeof(real))
        scale(step, STEP, high, low)
        scale(y + skip, end - STEP, high, low)
        memcpy(y, step, skip * sizeof(real))
        memcpy(y + end - (STEP - skip), step + skip, (STEP - skip) * sizeof(real))
    else:
        scale(y, end, high, low)
    if end < n:
        pad(<const real *>(y + end), step, n - end)
        scale(step, STEP, high, low)
        memcpy(y + end, step, (n - end) * sizeof(real))
