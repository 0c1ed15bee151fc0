# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Panels of columns: their sums, and the answers that are made with them.

Softmax at T = 1 goes by a guess first. One K (see ``_exponents.pxd``) serves all columns of most
panels, and the largest entry of the first row is near enough to choose it by. So exponentials are
made of the array itself, while its next rows are fetched, and without maxima; the sums show whether
the guess served. Until then nothing is written. All else, and a panel whose guess was of no use,
goes by the maxima of its columns, with the same bits.
"""

from cpython.exc cimport PyErr_CheckSignals
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from fastsoftmax._columns cimport (
    FEW,
    FITS,
    PANEL,
    add_step_of_columns,
    ahead,
    close_columns,
    column_exponentials,
    drop_largest_of_columns,
    even_part,
    filled_up,
    put_differences,
    put_row,
    put_scaled,
    take_panel,
    widest,
)
from fastsoftmax._exponents cimport (
    HIGH,
    HOW,
    LOW,
    MAGIC,
    Form,
    guess_lift,
    guessable,
    heat,
    inverse_of,
    most,
    set_guess,
)
from fastsoftmax._groups cimport LANES, own_terms, set_hows
from fastsoftmax._kernels cimport LOGSUMEXP, LOG_SOFTMAX, SOFTMAX, Kind
from fastsoftmax._math cimport exp_within, infinity, real, written, written32, written64
from fastsoftmax._results cimport add_logs, factors, log_sums, put_nan
from fastsoftmax._rows cimport BLOCK, STEP, Pair, fetch, top_of

cdef enum:
    CHUNK = 1 << 22  # elements between two looks for Ctrl-C: some milliseconds


cdef inline int look(Py_ssize_t elements, Py_ssize_t *done) except -1 nogil:
    """Look for Ctrl-C if, with `elements` more, enough is done since the last time."""
    done[0] += elements
    if done[0] >= CHUNK:
        done[0] = 0
        with gil:
            PyErr_CheckSignals()
    return 0


cdef inline void clear_sums(
    Pair *s, double *lanes, double *lows, real *zeros, Py_ssize_t width
) noexcept nogil:
    """Set the sums of a panel to 0, and a row of zeros."""
    memset(zeros, 0, width * sizeof(real))
    memset(s, 0, width * sizeof(Pair))
    memset(lanes, 0, LANES * width * sizeof(double))
    if real is double:
        memset(lows, 0, LANES * width * sizeof(double))


# ---- by a guess ----------------------------------------------------------------------------------


cdef inline void copy_row(const real *x, Py_ssize_t columns, written e) noexcept nogil:
    """e = x"""
    cdef Py_ssize_t c
    for c in range(columns):
        e[c] = x[c]


cdef inline void copy_pieces(
    const real *x, Py_ssize_t stride, Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t pieces,
    Py_ssize_t apart, written e, Py_ssize_t width,
) noexcept nogil:
    """e = the columns of each piece, side by side"""
    cdef Py_ssize_t i, p
    for p in range(pieces):
        for i in range(rows):
            copy_row(x + p * apart + i * stride, columns, e + p * columns + i * width)


cdef inline void exp_row(
    const real *x, written e, Py_ssize_t n, real low, real high, real magic
) noexcept nogil:
    """e = the exponentials of x"""
    cdef Py_ssize_t c
    for c in range(n):
        e[c] = exp_within(x[c], low, high, magic)


cdef inline void exp_in_place(
    written e, Py_ssize_t n, real low, real high, real magic
) noexcept nogil:
    """e = its exponentials"""
    cdef Py_ssize_t c
    for c in range(n):
        e[c] = exp_within(e[c], low, high, magic)


cdef inline void exp_step(
    const real *x, Py_ssize_t stride, Py_ssize_t i, Py_ssize_t rows, Py_ssize_t n,
    Py_ssize_t columns, Py_ssize_t pieces, written e, const real *how, const real *then,
) noexcept nogil:
    """e = the exponentials of `rows` rows of n, from row i on; `then` are rows to be met later."""
    cdef Py_ssize_t width = columns * pieces
    cdef Py_ssize_t r
    if pieces > 1:
        copy_pieces(x + i * stride, stride, rows, columns, pieces, n * stride, e, width)
        exp_in_place(e, rows * width, how[LOW], how[HIGH], how[MAGIC])
    elif columns == stride:  # the rows are one
        exp_row(x + i * stride, e, rows * width, how[LOW], how[HIGH], how[MAGIC])
    else:
        for r in range(i, i + rows):
            fetch(ahead(x, r, n, stride, then), columns)
            exp_row(
                x + r * stride, e + (r - i) * width, columns, how[LOW], how[HIGH], how[MAGIC]
            )


cdef inline bint served(
    const Pair *s, Py_ssize_t columns, Py_ssize_t n, real like
) noexcept nogil:
    """Tell whether all sums show that no column's largest entry was too large or too small.

    The largest of n is at least the n-th part of the sum; it must be 2**lift() and more.
    """
    cdef double least = n * (33554432.0 if real is float else 36893488147419103232.0)
    cdef double largest = most(like)
    cdef Py_ssize_t c
    cdef bint all_are = True
    for c in range(columns):
        all_are &= least <= s[c].high
        all_are &= s[c].high <= largest
    return all_are


cdef inline bint sums_of_guess(
    const real *x, written e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t pieces, Py_ssize_t rows, real *how, Pair *s, const real *then, Py_ssize_t *done,
) except -1 nogil:
    """Write the sums of the exponentials of a panel, and those of its last `rows` into e.

    Return False where the guess is of no use. `then` are the rows to be met afterwards.
    """
    cdef real zeros[PANEL]
    cdef double lanes[LANES * PANEL]
    cdef double lows[LANES * PANEL]
    cdef Py_ssize_t width = columns * pieces
    cdef Py_ssize_t i, k
    cdef written d
    cdef real highest = <real>top_of(x, columns).value
    if not guessable(highest, <real>1):
        return False
    set_guess(highest, 1, guess_lift(highest), False, how)
    clear_sums(s, lanes, lows, zeros, width)
    for i from 0 <= i < n by STEP:
        k = min(STEP, n - i)
        d = e + i % rows * width
        exp_step(x, stride, i, k, n, columns, pieces, d, <const real *>how, then)
        add_step_of_columns(<const real *>d, k, width, zeros, lanes, lows)
        if (i + k) % BLOCK == 0 or i + k == n:
            close_columns(s, lanes, lows, width, highest)
        look(k * width, done)
    return served(s, width, n, highest)


cdef inline void put_repeated(
    const real *e, written y, Py_ssize_t n, Py_ssize_t width, real *high, real *low
) noexcept nogil:
    """y = e * (high + low) for n rows without anything between them, many at a time"""
    cdef Py_ssize_t many = PANEL // width * width
    cdef Py_ssize_t c
    for c in range(width, many):
        high[c] = high[c - width]
        low[c] = low[c - width]
    for c from 0 <= c < n * width by many:
        put_row(e + c, min(many, n * width - c), y + c, <const real *>high, <const real *>low)


cdef inline int put_by_guess(
    const real *x, real *y, written e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t pieces, Py_ssize_t rows, const real *how, real *high, real *low, const real *then,
    Py_ssize_t *done,
) except -1 nogil:
    """y = the exponentials of the panel, times high + low, which have room for PANEL columns"""
    cdef Py_ssize_t width = columns * pieces
    cdef Py_ssize_t apart = n * stride
    cdef Py_ssize_t i, k, p, c
    for i from 0 <= i < n by rows:
        k = min(rows, n - i)
        if rows < n:
            exp_step(x, stride, i, k, n, columns, pieces, e, how, <const real *>y)
        if columns == stride and pieces == 1 and columns <= FEW:
            put_repeated(<const real *>e, <written>(y + i * stride), k, width, high, low)
            look(k * width, done)
            continue
        for p in range(pieces):
            c = p * columns
            put_scaled(
                <const real *>e + c, width, <written>(y + p * apart), stride, i, k, n, columns,
                <const real *>high + c, <const real *>low + c, then,
            )
        look(k * width, done)
    return 0


# ---- by maxima -----------------------------------------------------------------------------------


cdef inline int sums_of_panel(
    const real *x, written e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t pieces, Py_ssize_t rows, const real *inverse, Kind kind, real *highest, real *how,
    Pair *s, const real *then, Py_ssize_t *done,
) except -1 nogil:
    """Write maxima and sums of exponentials of a panel; return their form.

    In e the last `rows` exponentials are left, for LOG_SOFTMAX elements. The sums are without the
    largest entries' own terms, but for SOFTMAX. `then` are the rows to be met afterwards.
    """
    cdef real sought[PANEL]
    cdef real zeros[PANEL]
    cdef double lanes[LANES * PANEL]
    cdef double lows[LANES * PANEL]
    cdef real inf = infinity(<real>0)
    cdef Py_ssize_t width = filled_up(columns * pieces)
    cdef Py_ssize_t apart = n * stride
    cdef Py_ssize_t i, j, c, m, k
    cdef Form form
    cdef written d
    for c in range(width):
        highest[c] = -inf
    clear_sums(s, lanes, lows, zeros, width)
    for i from 0 <= i < n by rows:
        m = min(rows, n - i)
        take_panel(
            x, stride, i, m, n, columns, pieces, apart, e, width, <written>highest, then
        )
        look(m * width, done)
    form = set_hows(<const real *>highest, inverse, width, how, PANEL)
    for c in range(width):  # +inf stays in the sum and makes it NaN
        sought[c] = highest[c] if highest[c] < inf else inf - inf
    for i from 0 <= i < n by rows:
        m = min(rows, n - i)
        if rows < n:
            take_panel(
                x, stride, i, m, n, columns, pieces, apart, e, width, <written>highest, then
            )
        for j from 0 <= j < m by STEP:
            k = min(STEP, m - j)
            d = e + j * width
            if kind == LOG_SOFTMAX:
                d = e + rows * width
                memcpy(<real *>d, <real *>e + j * width, k * width * sizeof(real))
            if kind != SOFTMAX:
                drop_largest_of_columns(d, k, width, <written>sought, inf)
            column_exponentials(d, k, width, <const real *>how, form)
            add_step_of_columns(<const real *>d, k, width, zeros, lanes, lows)
            if (i + j + k) % BLOCK == 0 or i + j + k == n:
                close_columns(s, lanes, lows, width, inf)
        look(m * width, done)
    return form


cdef inline int put_panel(
    const real *x, real *y, written e, Py_ssize_t n, Py_ssize_t stride, Py_ssize_t columns,
    Py_ssize_t pieces, Py_ssize_t rows, const real *inverse, Kind kind, real *highest,
    const real *how, Form form, const real *high, const real *low, const real *then,
    Py_ssize_t *done,
) except -1 nogil:
    """y = the exponentials of the panel, times high + low; for LOG_SOFTMAX, logarithms - high"""
    cdef Py_ssize_t width = filled_up(columns * pieces)
    cdef Py_ssize_t apart = n * stride
    cdef Py_ssize_t i, c, m, p
    cdef written z
    for i from 0 <= i < n by rows:
        m = min(rows, n - i)
        if rows < n:
            take_panel(
                x, stride, i, m, n, columns, pieces, apart, e, width, <written>highest,
                <const real *>y,
            )
            if kind == SOFTMAX:
                column_exponentials(e, m, width, how, form)
        for p in range(pieces):
            c = p * columns
            z = <written>(y + p * apart)
            if kind == SOFTMAX:
                put_scaled(
                    <const real *>e + c, width, z, stride, i, m, n, columns, high + c, low + c,
                    then,
                )
            else:
                put_differences(
                    <const real *>e + c, width, z, stride, i, m, n, columns,
                    <const real *>highest + c, inverse + c, high + c, then,
                )
        look(m * width, done)
    return 0


# ---- answers -------------------------------------------------------------------------------------


cdef inline int panel(
    const real *x,
    real *y,
    written e,
    Py_ssize_t n,
    Py_ssize_t stride,
    Py_ssize_t columns,
    Py_ssize_t pieces,
    Py_ssize_t rows,
    const real *inverse,
    Kind kind,
    real *how,
    bint *guess,
    const real *then,
    Py_ssize_t *done,
) except -1 nogil:
    """The answer for `columns` columns of n elements that are `stride` apart; y may be x.

    So many from each of some `pieces`, `n * stride` apart. `e` is scratch for `rows` of them, and
    for STEP more. If they are longer, they are read two or three times, `rows` at a time. `guess`
    tells whether to try one, and whether it served. `then` is where the next panel begins.
    """
    cdef real highest[PANEL]
    cdef real guess_how[HOW]
    cdef real own[PANEL]
    cdef real high[PANEL]
    cdef real low[PANEL]
    cdef double logs[PANEL]
    cdef Pair s[PANEL]
    cdef Py_ssize_t width = filled_up(columns * pieces)
    cdef Py_ssize_t c, p
    cdef Form form
    cdef const real *next = <const real *>y if rows == n and kind != LOGSUMEXP else x
    if guess[0]:
        guess[0] = sums_of_guess(
            x, e, n, stride, columns, pieces, rows, guess_how, s, next, done
        )
    if guess[0]:
        factors(s, columns * pieces, high, low)
        put_by_guess(
            x, y, e, n, stride, columns, pieces, rows, <const real *>guess_how, high, low, then,
            done,
        )
        return 0
    form = <Form>sums_of_panel(
        x, e, n, stride, columns, pieces, rows, inverse, kind, highest, how, s, next, done
    )
    if kind == SOFTMAX:
        factors(s, width, high, low)
    else:
        own_terms(<const real *>highest, <const real *>how, width, PANEL, <written>own)
        log_sums(s, <const real *>own, width, logs)
        for c in range(width):
            high[c] = <real>logs[c]
    if kind == LOGSUMEXP:
        for p in range(pieces):
            c = p * columns
            add_logs(
                x + p * n * stride, y + c, columns, n, 1, stride, highest + c, logs + c
            )
        return 0
    put_panel(
        x, y, e, n, stride, columns, pieces, rows, inverse, kind, highest, <const real *>how,
        form, <const real *>high, <const real *>low, then, done,
    )
    for p in range(pieces):
        c = p * columns
        put_nan(<const real *>high + c, y + p * n * stride, columns, n, 1, stride)
    return 0


cdef inline int answer_columns(
    const real *x,
    real *y,
    Py_ssize_t n,
    Py_ssize_t inner,
    const double *temperature,
    Py_ssize_t each,
    Kind kind,
    Py_ssize_t start,
    Py_ssize_t stop,
) except -1 nogil:
    """Write the answer along the middle axis of (outer, n, inner) for columns `start` to `stop`.

    The columns are counted as in ``x[:, 0, :].ravel()``; `each` is 1 if there is a temperature for
    each, else 0. All are `tame`, and 1 or none is. y is x, or does not overlap it; it has one
    element for each column for LOGSUMEXP.
    """
    cdef Py_ssize_t at_once = min(widest(n, <real>0), filled_up(stop - start))
    cdef Py_ssize_t part = even_part(inner, at_once)
    cdef Py_ssize_t rows = n
    cdef Py_ssize_t done = 0
    cdef Py_ssize_t c, columns, pieces, within, first, place
    cdef real inverse[PANEL]
    cdef real how[HOW * PANEL]
    cdef real *e
    cdef const real *then
    cdef bint guess = kind == SOFTMAX and not each and temperature[0] == 1
    if n * at_once > CHUNK:
        rows = FITS // (at_once * <Py_ssize_t>sizeof(real)) // STEP * STEP
    e = <real *>malloc((rows + STEP) * at_once * sizeof(real))
    if e == NULL:
        with gil:
            raise MemoryError
    try:
        while start < stop:
            within = start % inner
            columns = min(min(part, stop - start), inner - within)
            pieces = 1
            if columns == inner and columns < FEW:
                pieces = min(at_once, stop - start) // inner
            for c in range(columns * pieces):
                inverse[c] = inverse_of(temperature[(start + c) * each], <real>0)
                heat(temperature[(start + c) * each], how + c, PANEL)
            for c in range(columns * pieces, filled_up(columns * pieces)):
                inverse[c] = inverse[0]
                heat(temperature[start * each], how + c, PANEL)
            first = (start - within) * n + within
            place = start if kind == LOGSUMEXP else first
            then = x + first + columns
            if within + columns == inner:  # the panel is the end of an `outer`
                then += inner * (pieces * n - 1)
            if real is float:
                panel(
                    x + first, y + place, <written32>e, n, inner, columns,
                    pieces, rows, inverse, kind, how, &guess, then, &done,
                )
            else:
                panel(
                    x + first, y + place, <written64>e, n, inner, columns,
                    pieces, rows, inverse, kind, how, &guess, then, &done,
                )
            start += columns * pieces
    finally:
        free(e)
    return 0
