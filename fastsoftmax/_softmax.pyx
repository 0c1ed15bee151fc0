# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False
"""softmax, log_softmax and logsumexp of contiguous rows. Built once per instruction set.

Formula
    softmax:      e / sum(e),                    e = exp((x - c) / T) / 2**K
    log_softmax:  (x - max) / T - log1p(S),      S = sum(e) / e_max without the largest entry's term
    logsumexp:    max + log1p(S)
    for any K; c is 0, unless the maximum is far from 0 (``near``): then it is that.

Passes over memory
    softmax: exponentials and their sum, a block that fits L1 at a time (read, write); scale (read,
    write). K comes from the first block, or from rows before; what that makes too large or too
    small shows in the sum, and the row is done again, with the maximum (one more pass), as rows are
    that differ in T. log_softmax: sum, difference; logsumexp: sum. At T = 1 the maximum is found
    meanwhile, by the same guess; else in a pass before, that of a long row while the exponentials
    of the row before are made.

Precision policy
    Elements in the row's own type, sums in more (``_rows.pxd`` says in which order). 1 / sum is a
    pair too: its first part alone would cost one more rounding. x itself has no rounding that
    x - max would have; far from 0 that difference is exact where the result is not 0.

Source
    P. Blanchard, D. J. Higham, N. J. Higham, IMA Journal of Numerical Analysis 41 (2021),
    https://doi.org/10.1093/imanum/draa038
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_New
from libc.string cimport memcpy, memset

from fastsoftmax._exponents cimport (
    FACTOR,
    HEATED,
    HOW,
    PLAIN,
    SCALED,
    Form,
    Heated,
    Open,
    Plain,
    Scaled,
    Shifted,
    guess_lift,
    guessable,
    heat,
    inverse_of,
    lift,
    most,
    own_of,
    set_guess,
    set_how,
)
from fastsoftmax._groups cimport (
    GROUP,
    ROWS,
    SHORTEST,
    all_close,
    choose,
    common_form,
    difference_rows,
    drop_largest,
    exponentials,
    guessed_well,
    maxima,
    maxima_of_steps,
    own_terms,
    scaled_rows,
    sums,
)
from fastsoftmax._kernels cimport LOGSUMEXP, LOG_SOFTMAX, SOFTMAX, Kind, RowFunctions, tame
from fastsoftmax._math cimport (
    HAS_FMA,
    infinity,
    not_a_number,
    real,
    separate,
    written,
    written32,
    written64,
)
from fastsoftmax._panels cimport CHUNK, answer_columns
from fastsoftmax._planes cimport (
    drop_largest_plane,
    fill_strips,
    filled_strips,
    from_planes,
    plane_differences,
    plane_exponentials,
    plane_factors,
    plane_logs,
    plane_maxima,
    plane_sums,
    scale_planes,
    to_planes,
)
from fastsoftmax._results cimport (
    add_logs,
    all_finite,
    enough_left,
    factors,
    log_sums,
    nan_or,
    plus_log,
    put_nan,
)
from fastsoftmax._rows cimport (
    BLOCK,
    STEP,
    Lanes,
    Pair,
    Top,
    add,
    add_to,
    adder,
    begin,
    clear,
    close,
    exp_block,
    exp_padded,
    exponentials_of_row,
    fetch,
    lanes_of_others,
    max_of,
    pad,
    scale,
    scale_row,
    subtract,
    sum_of_guess,
    sum_of_others,
    top_of,
)

cdef enum:
    AHEAD = 4096  # bytes of a long row that are fetched in advance; 2048 to 8192 do the same
    RISE = 40  # how far above its guess a largest entry may be: 58 powers of 2 above `lift`


cdef adder add_double = add_to[double]


# ---- rows ----------------------------------------------------------------------------------------


cdef bint substitute(
    const real *x, real *y, Py_ssize_t n, double temperature, Top *top
) noexcept nogil:
    """Tell if T is not `tame`; if so, write scores into y whose softmax at T = 1 is that of x.

    `top` is that of x, and becomes that of y. Rows that have no probabilities become NaN later, as
    every such row does.
    """
    cdef real inf = infinity(<real>0)
    cdef real highest = <real>top.value
    cdef real inverse
    cdef Py_ssize_t j, first = -1
    cdef bint bad = False
    if tame(temperature):
        return False
    if temperature == 0:
        for j in range(n):
            bad |= x[j] != x[j]
            if first < 0 and x[j] == highest:
                first = j
        bad |= highest == inf or highest == -inf
        for j in range(n):
            y[j] = inf if bad else -inf
        if not bad:
            y[first] = 0
    elif <real>(1 / temperature) == 0:
        for j in range(n):
            y[j] = 0 if -inf < x[j] < inf else x[j]
    else:
        inverse = inverse_of(temperature, <real>0)
        for j in range(n):
            y[j] = (x[j] - highest) * inverse
    top[0] = top_of(<const real *>y, n)
    return True


cdef real guess_of(const real *x, Py_ssize_t n, double temperature) noexcept nogil:
    """Return a guess of a row's largest element, no larger than that; NaN if it cannot serve."""
    cdef real guess = <real>top_of(x, min(n, BLOCK)).value
    cdef bint serves = guessable(guess, inverse_of(temperature, <real>0))
    return guess if serves and (HAS_FMA or temperature == 1) else not_a_number(guess)


cdef void divide_row(const real *x, real *y, Py_ssize_t n, const Pair *s) noexcept nogil:
    """y = y / s, as `exponentials_of_row` made it of x; NaN if s is no number."""
    cdef real high, low
    factors(s, 1, &high, &low)
    scale_row(x, y, n, high, low)
    put_nan(<const real *>&high, y, 1, n, n, 1)


cdef bint softmax_of_guess(
    const real *x, real *y, Py_ssize_t n, double temperature
) noexcept nogil:
    """y = softmax(x / temperature), without its maximum; False where a guess is of no use.

    y does not overlap x.
    """
    cdef Pair s
    cdef Lanes lanes
    cdef real how[HOW]
    cdef real guess = guess_of(x, n, temperature)
    if guess != guess:
        return False
    set_guess(guess, temperature, lift(guess), False, how)
    s.high = s.low = 0
    exponentials_of_row(
        x, y, n, <const real *>how, True, &lanes, &s, add_double, NULL,
        x + AHEAD // sizeof(real),
    )
    if not s.high <= most(<real>0):
        return False
    divide_row(x, y, n, &s)
    return True


cdef void softmax_row(
    const real *x, real *y, Py_ssize_t n, double temperature, Top *top, const real *following
) noexcept nogil:
    """y = softmax(x / temperature); y is x or does not overlap it.

    `top` is the row's, and becomes that of the `following` one, if that is not NULL.
    """
    cdef Pair s
    cdef Lanes lanes
    cdef real how[HOW]
    if temperature != 1 and substitute(x, y, n, temperature, top):
        x = y
        temperature = 1
    set_how(<real>top.value, temperature, how)
    s.high = s.low = 0
    exponentials_of_row(x, y, n, <const real *>how, True, &lanes, &s, add_double, top, following)
    divide_row(x, y, n, &s)


cdef bint short_softmax(
    const real *x, real *y, Py_ssize_t n, double temperature
) noexcept nogil:
    """y = softmax(x / temperature) for one row of less than a step, which stays in scratch.

    Half the time of `softmax_row`. y may be x. False, and nothing done, where T is not `tame`.
    """
    cdef real step[STEP]
    cdef real how[HOW]
    cdef real highest, high, low
    cdef Lanes lanes
    cdef Pair s
    if not tame(temperature):
        return False
    pad(x, step, n)
    highest = max_of(<const real *>step, STEP, -infinity(<real>0))
    if temperature == 1 and -16 < highest < 16:  # a branch that is foreseen, no chain to wait for
        set_guess(<real>0, 1, guess_lift(<real>0), True, how)
    else:
        set_how(highest, temperature, how)
    exp_padded(step, <const real *>how)
    clear(&lanes)
    add(&lanes, <const real *>step, STEP, add_double)
    s.high = s.low = 0
    close(&s, &lanes, <real>0)
    factors(&s, 1, &high, &low)
    scale(step, STEP, high, low)
    memcpy(y, step, n * sizeof(real))
    put_nan(<const real *>&high, y, 1, n, n, 1)
    return True


cdef void subtract_row(
    const real *x, real *y, Py_ssize_t n, real highest, real inverse, real log_sum
) noexcept nogil:
    """y = (x - highest) * inverse - log_sum; y is x or does not overlap it."""
    cdef Py_ssize_t start, m
    cdef real copy[BLOCK]
    cdef const real *source
    for start from 0 <= start < n by BLOCK:
        m = min(BLOCK, n - start)
        source = x + start
        if x == y:
            memcpy(copy, source, m * sizeof(real))
            source = copy
        subtract(source, y + start, m, highest, inverse, log_sum)
    put_nan(<const real *>&log_sum, y, 1, n, n, 1)


cdef void log_softmax_row(
    const real *x, real *y, Py_ssize_t n, double temperature, Top *top, const real *following
) noexcept nogil:
    """y = log_softmax(x / temperature), likewise."""
    cdef Pair s
    cdef real how[HOW]
    cdef real highest, inverse, own
    cdef double log_sum
    if temperature != 1 and substitute(x, y, n, temperature, top):
        x = y
        temperature = 1
    inverse = inverse_of(temperature, <real>0)
    highest = <real>top.value
    set_how(highest, temperature, how)
    own = own_of(highest, <const real *>how)
    s = sum_of_others(x, n, <const real *>how, add_double, top, following)
    log_sums(&s, &own, 1, &log_sum)
    subtract_row(x, y, n, highest, inverse, <real>log_sum)


cdef double log_sum_of_guess(const real *x, Py_ssize_t n, real *highest) noexcept nogil:
    """Return log1p of a row's sum, and write its largest element; NaN if the guess is of no use."""
    cdef Pair s
    cdef real how[HOW]
    cdef real own
    cdef double log_sum
    cdef real guess = guess_of(x, n, 1)
    if guess != guess:
        return not_a_number(<double>0)
    set_guess(guess, 1, lift(guess), False, how)
    s = sum_of_guess(x, n, <const real *>how, highest, add_double, x + AHEAD // sizeof(real))
    if not highest[0] - guess < RISE:
        return not_a_number(<double>0)
    own = own_of(highest[0], <const real *>how)
    log_sums(&s, &own, 1, &log_sum)
    return log_sum if enough_left(&log_sum, 1) else not_a_number(<double>0)


cdef real logsumexp_row(
    const real *x, Py_ssize_t n, Top *top, const real *following
) noexcept nogil:
    """Return logsumexp(x), likewise."""
    cdef real inf = infinity(<real>0)
    cdef Pair s
    cdef double log_sum
    cdef real how[HOW]
    cdef real highest = <real>top.value
    cdef real own
    set_how(highest, 1, how)
    own = own_of(highest, <const real *>how)
    s = sum_of_others(x, n, <const real *>how, add_double, top, following)
    if highest == inf or highest == -inf:
        return nan_or(highest, x, n, 1)
    log_sums(&s, &own, 1, &log_sum)
    return plus_log(highest, log_sum)


# ---- groups of rows ------------------------------------------------------------------------------


# Built into one function with the others, these loops keep vectors in memory.


cdef separate other_exponentials(
    const real *x, written e, Py_ssize_t width, Py_ssize_t rows, Py_ssize_t n, const real *how,
    Form form, const real *out,
) noexcept nogil:
    """exponentials that are not Plain"""
    if form == HEATED:
        exponentials(x, e, width, rows, n, how, <Heated>0, out, <real *>NULL)
    elif form == SCALED:
        exponentials(x, e, width, rows, n, how, <Scaled>0, out, <real *>NULL)
    else:
        exponentials(x, e, width, rows, n, how, <Shifted>0, out, <real *>NULL)


cdef separate other_plane_exponentials(
    const real *planes, written e, Py_ssize_t rows, Py_ssize_t n, const real *how, Form form
) noexcept nogil:
    """plane_exponentials likewise"""
    if form == HEATED:
        plane_exponentials(planes, e, rows, n, how, <Heated>0)
    elif form == SCALED:
        plane_exponentials(planes, e, rows, n, how, <Scaled>0)
    else:
        plane_exponentials(planes, e, rows, n, how, <Shifted>0)


cdef inline bint group_of_rows(
    const real *x,
    real *y,
    written e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *inverse,
    Kind kind,
    real *how,
    real *reference,
) noexcept nogil:
    """The answer for some rows of SHORTEST <= n <= GROUP elements; y may be x.

    Up to 7 elements behind the last row are read. `e` is scratch, 0 before the first group.
    If there is a `reference`, `how` is that of the group before, and maybe of this one: False, and
    no answer, if not. It is NaN if each row has its own K. All rows have T = 1, or none.
    """
    cdef real scratch[40 * ROWS]
    cdef real places[GROUP]
    cdef double lanes[12 * ROWS]
    cdef real highest[ROWS]
    cdef real high[ROWS]
    cdef real low[ROWS]
    cdef double logs[ROWS]
    cdef Pair s[ROWS]
    cdef Py_ssize_t r
    cdef Py_ssize_t width = (n + STEP - 1) // STEP * STEP
    cdef const real *out = x if kind == LOGSUMEXP else y  # to be fetched
    cdef bint guessed = (
        guessable(reference[0], inverse[0]) and (kind == SOFTMAX or n >= STEP)
    )
    cdef Form form = common_form(<const real *>how)
    highest[0] = 0  # rows > 0, which the compiler does not know
    if not guessed:
        maxima(x, rows, n, highest, scratch)
        form = choose(<const real *>highest, inverse, rows, how, reference)
    if guessed and kind != SOFTMAX:
        exponentials(x, e, width, rows, n, <const real *>how, <Open>0, out, scratch)
        maxima_of_steps(<const real *>scratch, rows, STEP, highest, scratch)
        if not all_close(<const real *>highest, rows, reference[0], <real>1):
            reference[0] = infinity(<real>0)
            return False
    elif form == PLAIN:
        exponentials(x, e, width, rows, n, <const real *>how, <Plain>0, out, scratch)
    elif real is float:
        other_exponentials(x, <written32>e, width, rows, n, <const real *>how, form, out)
    else:
        other_exponentials(x, <written64>e, width, rows, n, <const real *>how, form, out)
    if kind != SOFTMAX:
        drop_largest(
            x, <real *>e, width, rows, n, highest, high, <written>places, scratch, low
        )
    memset(s, 0, rows * sizeof(Pair))
    sums(<const real *>e, width, rows, lanes, s, add_double)
    if kind == SOFTMAX:
        factors(s, rows, high, low)
        if guessed and not guessed_well(<const real *>high, rows):
            reference[0] = infinity(<real>0)
            return False
        scaled_rows(<const real *>e, width, <written>y, rows, n, high, low)
        put_nan(<const real *>high, y, rows, n, n, 1)
        return True
    log_sums(s, <const real *>low, rows, logs)
    if guessable(reference[0], inverse[0]) and not enough_left(logs, rows):
        reference[0] = not_a_number(<real>0)
        return False
    if kind == LOGSUMEXP:
        add_logs(x, y, rows, n, n, 1, highest, logs)
        return True
    for r in range(rows):
        high[r] = <real>logs[r]
    if y == x:  # the loop is promised that it does not read what it writes
        for r in range(rows):
            memcpy(<real *>e, x + r * n, n * sizeof(real))
            difference_rows(
                <const real *>e, <written>(y + r * n), 1, n, highest + r, inverse + r, high + r
            )
        memset(<real *>e, 0, width * sizeof(real))
    else:
        difference_rows(x, <written>y, rows, n, highest, inverse, high)
    put_nan(<const real *>high, y, rows, n, n, 1)
    return True


cdef separate take_planes(
    const real *x, Py_ssize_t rows, Py_ssize_t n, real *planes
) noexcept nogil:
    to_planes(x, rows, n, planes)


cdef separate add_up_planes(
    const real *e, Py_ssize_t rows, Py_ssize_t n, double *total, double *rest
) noexcept nogil:
    plane_sums(e, rows, n, <written64>total, <written64>rest)


cdef separate put_planes(
    const real *planes, real *y, Py_ssize_t rows, Py_ssize_t n
) noexcept nogil:
    from_planes(planes, y, rows, n)


cdef inline bint group_of_planes(
    const real *x,
    real *y,
    written e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *inverse,
    Kind kind,
    real *how,
    real *reference,
) noexcept nogil:
    """The answer for some rows of n < SHORTEST elements, likewise; `e` is 0 from plane n on."""
    cdef real planes[SHORTEST * ROWS]
    cdef real whole[SHORTEST * ROWS]
    cdef real highest[ROWS]
    cdef real high[ROWS]
    cdef real low[ROWS]
    cdef double total[ROWS]
    cdef double rest[ROWS]
    cdef double logs[ROWS]
    cdef Py_ssize_t r
    cdef Py_ssize_t filled = filled_strips(rows)
    cdef const real *source = x
    cdef real *target = y
    cdef bint guessed = kind == SOFTMAX and guessable(reference[0], inverse[0])
    cdef Form form = common_form(<const real *>how)
    if filled > rows:
        fill_strips(x, whole, rows, n)
        source = whole
        target = whole
    take_planes(source, filled, n, planes)
    fetch(x + rows * n, rows * n)  # the next group
    highest[0] = 0
    if not guessed:
        plane_maxima(planes, filled, n, <written>highest)
        form = choose(<const real *>highest, inverse, filled, how, reference)
    if form == PLAIN:
        plane_exponentials(planes, e, filled, n, <const real *>how, <Plain>0)
    elif real is float:
        other_plane_exponentials(planes, <written32>e, filled, n, <const real *>how, form)
    else:
        other_plane_exponentials(planes, <written64>e, filled, n, <const real *>how, form)
    if kind != SOFTMAX:
        drop_largest_plane(planes, e, filled, n, highest)
    add_up_planes(<const real *>e, filled, n, total, rest)
    if kind == SOFTMAX:
        plane_factors(total, rest, filled, high, low)
        if guessed and not guessed_well(<const real *>high, filled):
            reference[0] = infinity(<real>0)
            return False
        scale_planes(e, filled, n, high, low)
        put_planes(<const real *>e, target, filled, n)
    else:
        own_terms(<const real *>highest, <const real *>how, filled, ROWS, <written>low)
        plane_logs(total, rest, <const real *>low, filled, <written64>logs)
        if kind == LOGSUMEXP:
            if all_finite(<const real *>highest, filled):
                for r in range(rows):
                    y[r] = <real>(highest[r] + logs[r])
                put_nan(<const real *>y, y, rows, 1, 1, 1)
            else:
                add_logs(x, y, rows, n, n, 1, highest, logs)
            return True
        for r in range(filled):
            high[r] = <real>logs[r]
        plane_differences(<written>planes, filled, n, highest, inverse, high)
        put_planes(<const real *>planes, target, filled, n)
    if filled > rows:
        memcpy(y, whole, rows * n * sizeof(real))
    put_nan(<const real *>high, y, rows, n, n, 1)
    return True


cdef separate group(
    const real *x,
    real *y,
    real *e,
    Py_ssize_t rows,
    Py_ssize_t n,
    const real *inverse,
    Kind kind,
    real *how,
    real *reference,
) noexcept nogil:
    """The answer for some rows, in the form that suits their length."""
    cdef bint done = False
    while not done:  # again if a guess was of no use
        if n < SHORTEST:
            if real is float:
                done = group_of_planes(
                    x, y, <written32>e, rows, n, inverse, kind, how, reference
                )
            else:
                done = group_of_planes(
                    x, y, <written64>e, rows, n, inverse, kind, how, reference
                )
        elif real is float:
            done = group_of_rows(
                x, y, <written32>e, rows, n, inverse, kind, how, reference
            )
        else:
            done = group_of_rows(
                x, y, <written64>e, rows, n, inverse, kind, how, reference
            )


cdef bint row_of_guess(
    const real *x, real *y, Py_ssize_t n, double temperature, Kind kind
) noexcept nogil:
    """The answer for a long row without a pass for its maximum; False if a guess is of no use."""
    cdef real highest
    cdef double log_sum
    if kind == SOFTMAX:
        return tame(temperature) and x != y and softmax_of_guess(x, y, n, temperature)
    if temperature != 1:
        return False
    log_sum = log_sum_of_guess(x, n, &highest)
    if log_sum != log_sum:
        return False
    if kind == LOGSUMEXP:
        y[0] = plus_log(highest, log_sum)
    else:
        subtract_row(x, y, n, highest, <real>1, <real>log_sum)
    return True


cdef inline void one_row(
    const real *x, real *y, Py_ssize_t n, double temperature, Kind kind, Top *top,
    const real *following,
) noexcept nogil:
    """The answer for a row; `top` is the row's, and becomes that of the `following` one."""
    if kind == SOFTMAX:
        softmax_row(x, y, n, temperature, top, following)
    elif kind == LOG_SOFTMAX:
        log_softmax_row(x, y, n, temperature, top, following)
    else:
        y[0] = logsumexp_row(x, n, top, following)


cdef void one_by_one(
    const real *x, real *y, Py_ssize_t rows, Py_ssize_t n, const double *temperature,
    Py_ssize_t each, Kind kind,
) noexcept nogil:
    """The answer for rows that are long, or differ: T that is not `tame`, or 1 for some alone."""
    cdef const real *known = NULL  # the row that `top` is of
    cdef const real *row
    cdef Py_ssize_t i
    cdef Top top
    begin(&top)
    for i in range(rows):
        row = x
        x += n
        if not (n > BLOCK and row_of_guess(row, y, n, temperature[i * each], kind)):
            if known != row:
                top = top_of(row, n)
            known = x if i + 1 < rows else NULL
            one_row(row, y, n, temperature[i * each], kind, &top, known)
        y += 1 if kind == LOGSUMEXP else n


cdef void answer_rows(
    const real *x,
    real *y,
    Py_ssize_t rows,
    Py_ssize_t n,
    const double *temperature,
    Py_ssize_t each,
    Kind kind,
) noexcept nogil:
    """Write the answer for each row of n > 0 elements; y is x or does not overlap it.

    `each` is 1 if there is a temperature for each row, else 0. LOGSUMEXP knows T = 1 alone.
    """
    cdef real e[GROUP]
    cdef real inverse[ROWS]
    cdef real how[HOW * ROWS]
    cdef real reference = infinity(<real>0)
    cdef bint common, ordinary = True
    cdef double t
    cdef Py_ssize_t i, r
    cdef Py_ssize_t start = 0
    cdef Py_ssize_t width = 1 if kind == LOGSUMEXP else n
    cdef Py_ssize_t size = ROWS
    cdef Py_ssize_t last = 0
    if rows == 1:  # the shortest way
        if kind == SOFTMAX and n < STEP and short_softmax(x, y, n, temperature[0]):
            return
        one_by_one(x, y, rows, n, temperature, each, kind)
        return
    if n >= SHORTEST:
        size = GROUP // (STEP * ((n + STEP - 1) // STEP))
        # The last row goes alone: behind it there may be nothing that can be read.
        last = 1
    if size < 2:
        one_by_one(x, y, rows, n, temperature, each, kind)
        return
    if n >= SHORTEST:
        memset(e, 0, sizeof(e))
    else:
        memset(e + n * ROWS, 0, (SHORTEST - n) * ROWS * sizeof(real))
    for i in range(ROWS):
        inverse[i] = 1
    while start < rows:
        r = min(size, rows - last - start)
        if each or start == 0:
            ordinary = True
            for i in range(r if each else 1):
                t = temperature[start + i]
                inverse[i] = inverse_of(t, <real>0)
                heat(t, how + i, ROWS)
                ordinary &= tame(t) and (t == 1) == (temperature[start] == 1)
            for i in range(0 if each else ROWS):
                inverse[i] = inverse[0]
                how[FACTOR * ROWS + i] = how[FACTOR * ROWS]
            # One K serves rows of one temperature; it does not pay for logarithms but at T = 1.
            common = temperature[start] == 1 or not each and HAS_FMA and kind == SOFTMAX
            if not common or kind != SOFTMAX and n < STEP:
                reference = not_a_number(<real>0)
            elif reference != reference:
                reference = infinity(<real>0)
        if ordinary and r > 1:
            group(x + start * n, y + start * width, e, r, n, inverse, kind, how, &reference)
        else:
            r = max(r, 1)
            one_by_one(
                x + start * n, y + start * width, r, n, temperature + start * each, each, kind
            )
        start += r


# ---- what Python and _front see ------------------------------------------------------------------


def map_rows(
    const real[:, ::1] x, real[:, ::1] y, const double[::1] temperature, bint log
):
    """Write softmax, or log_softmax if `log`, of each row of `x` into `y`, which may be `x`.

    `temperature` has one element, or one for each row.
    """
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t each = temperature.shape[0] > 1
    cdef Py_ssize_t stop, start = 0
    if n == 0:
        return
    while start < rows:
        stop = min(rows, start + max(1, CHUNK // n))
        with nogil:
            answer_rows(
                &x[start, 0], &y[start, 0], stop - start, n, &temperature[start * each], each,
                LOG_SOFTMAX if log else SOFTMAX,
            )
        PyErr_CheckSignals()
        start = stop


def reduce_rows(const real[:, ::1] x, real[::1] y):
    """Write logsumexp of each row of `x` into `y`."""
    cdef Py_ssize_t n = x.shape[1]
    cdef Py_ssize_t rows = x.shape[0]
    cdef Py_ssize_t stop, start = 0
    cdef double one = 1
    if n == 0:
        y[:] = -infinity(<real>0)
        return
    while start < rows:
        stop = min(rows, start + max(1, CHUNK // n))
        with nogil:
            answer_rows(&x[start, 0], &y[start], stop - start, n, &one, 0, LOGSUMEXP)
        PyErr_CheckSignals()
        start = stop


# ---- parts of a long row, for several threads: each begins at a block ----------------------------

row_block = BLOCK
largest_sum = {"float": most(<float>0), "double": most(<double>0)}


def highest_part(const real[::1] x):
    """Return the largest element of a part (NaN is passed over), and where its block starts."""
    cdef Top top
    with nogil:
        top = top_of(&x[0], x.shape[0])
    return top.value, top.block


def guess_of_row(const real[::1] x, double temperature):
    """Return a guess of the largest element, for `add_part`; NaN if it cannot serve."""
    with nogil:
        guess = guess_of(&x[0], x.shape[0], temperature)
    return guess


def add_part(
    const real[::1] x, real[::1] y, double highest, bint sure, double temperature, Py_ssize_t own,
    double[:, ::1] lanes,
):
    """Write the lanes of the sum of exponentials over each block.

    The exponentials go into `y`, which may be `x`; or, if it is None, nowhere, and the sum of the
    block that starts at `own` is without the largest entry's term. If not `sure`, `highest` is a
    guess, that served if the sum is at most `largest_sum`.
    """
    cdef Py_ssize_t start, n = x.shape[0]
    cdef Lanes *each = <Lanes *>&lanes[0, 0]
    cdef real how[HOW]
    if sure:
        set_how(<real>highest, temperature, how)
    else:
        set_guess(<real>highest, temperature, lift(<real>highest), False, how)
    if y is not None:
        with nogil:
            exponentials_of_row(
                &x[0], &y[0], n, <const real *>how, True, each, NULL, add_double, NULL,
                &x[0] + AHEAD // sizeof(real),
            )
        return
    with nogil:
        for start from 0 <= start < n by BLOCK:
            lanes_of_others(
                &x[start], min(BLOCK, n - start), <real>highest, <const real *>how, start == own,
                each, add_double, <const real *>NULL,
            )
            each += 1


cdef double log_of(Pair s, real highest, double temperature) noexcept nogil:
    """Return log1p of a row's sum."""
    cdef real how[HOW]
    cdef real own
    cdef double log_sum
    set_how(highest, temperature, how)
    own = own_of(highest, <const real *>how)
    log_sums(&s, &own, 1, &log_sum)
    return log_sum


def add_blocks(const real[::1] like, double[:, ::1] lanes, double highest, double temperature):
    """Return the sum of all blocks' lanes, a pair, and `highest` plus log1p of it."""
    cdef Py_ssize_t i
    cdef Pair s
    s.high = s.low = 0
    with nogil:
        for i in range(lanes.shape[0]):
            close(&s, <Lanes *>&lanes[i, 0], <real>0)
    return s.high, s.low, plus_log(<real>highest, log_of(s, <real>highest, temperature))


def end_part(
    const real[::1] x, real[::1] y, double highest, double temperature, double sum_high,
    double sum_low, bint log,
):
    """Make `y` softmax of `x`, from its exponentials, or if `log` log_softmax, from `x`."""
    cdef Pair s
    cdef Py_ssize_t n = x.shape[0]
    cdef real inverse = inverse_of(temperature, <real>0)
    s.high = sum_high
    s.low = sum_low
    with nogil:
        if log:
            subtract_row(
                &x[0], &y[0], n, <real>highest, inverse,
                <real>log_of(s, <real>highest, temperature),
            )
        else:
            divide_row(&x[0], &y[0], n, &s)


def exp_rows(
    const real[::1] x, real[::1] y, double reference, bint sure, double temperature=1
):
    """Write exp of `x` / T divided by about exp(`reference` / T): the bare kernel, for the tests.

    By a power of two, exactly. If `sure`, no x is larger; else those much larger give no number.
    """
    cdef Py_ssize_t n = x.shape[0]
    cdef real how[HOW]
    set_guess(<real>reference, temperature, <real>0, sure, how)
    with nogil:
        if n:
            exp_block(&x[0], &y[0], n, <const real *>how)


cdef RowFunctions functions
functions.rows32 = answer_rows[float]
functions.rows64 = answer_rows[double]
functions.columns32 = answer_columns[float]
functions.columns64 = answer_columns[double]

#: The same functions for `_front`, by pointer.
row_functions = PyCapsule_New(&functions, "fastsoftmax.RowFunctions", NULL)
