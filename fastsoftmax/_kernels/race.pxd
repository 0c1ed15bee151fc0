# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""Draws by a race: the largest score logit / T + g wins, g a Gumbel number of each id alone.

Formula
    argmax(x / T + g) of independent Gumbel numbers g is a draw from softmax(x / T), and the m
    largest scores, in order, are m draws without replacement. The numbers of a draw are words of
    three streams of Philox, whose key is the seed and whose counter is (1 + word / 4, position,
    draw, stream). ``t = exp(-g)`` is exponential. The least t of a block of 128 ids is an
    exponential number divided by 128, of the block's word of the first stream; its place is
    uniform, of its word of the second; each of the others, as exponentials have no memory, is the
    least one plus an exponential number, of the id's word of the third.

Passes over memory
    One read for the block maxima, in which the words of the first stream are found, too. Block
    maximum / T plus the largest g of the block bounds the block's scores: blocks are opened by
    falling bounds until none reaches the best score, and in a block only what could reach it with
    the largest g gets its own. Of 384 blocks of real rows 3 to 40 are opened, of 1000 of normal
    scores of deviation 3 some 60.

Precision policy
    Scores are float64 for every type, and the same bits for every instruction set (see
    ``gumbel.pxd``). They are absolute up to |max| / T of 256, else of x - max, so that g keeps its
    bits. A block's largest g holds the others down in float64, too: bounds are exact.

Source
    The maximum: E. J. Gumbel, "Statistical theory of extreme values", 1954. Without replacement:
    W. Kool, H. van Hoof, M. Welling, ICML 2019, https://arxiv.org/abs/1903.06059. From the largest
    downwards: C. J. Maddison, D. Tarlow, T. Minka, "A* sampling", NeurIPS 2014,
    https://arxiv.org/abs/1411.0030
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from fastsoftmax._kernels.abi cimport Race, SampleCall
from fastsoftmax._kernels.block_maxima cimport count_equal
from fastsoftmax._kernels.gumbel cimport exponential_below, exponential_of, gumbel_above, gumbel_of
from fastsoftmax._kernels.maxima cimport find_first
from fastsoftmax._kernels.packed_row cimport PackedRow, part_length, row_part
from fastsoftmax._kernels.philox cimport Stream
from fastsoftmax._kernels.race_blocks cimport (
    LEAST,
    OTHERS,
    RACE_BLOCK,
    STEPS,
    Block,
    Blocks,
    begin_stream,
    block_of,
    blocks_of_list,
    blocks_of_row,
    bound_blocks,
    least_logit,
    mark_from,
    place_arrays,
    set_largest,
    stream_words,
)
from fastsoftmax._kernels.score_map cimport ScoreMap, map_scores
from fastsoftmax._kernels.signals cimport LOOK_INTERVAL, stopped
from fastsoftmax._kernels.sums cimport STEP
from fastsoftmax._kernels.types cimport infinity, lowest_bit, real
from fastsoftmax._kernels.weights cimport Prefix
from fastsoftmax._kernels.workspace cimport Workspace

cdef enum:
    ABSOLUTE = 256  # |max| / T up to which scores are those of the logits themselves


# ---- the best ones -------------------------------------------------------------------------------


cdef inline bint is_worse(double a, int64_t i, double b, int64_t j) noexcept nogil:
    """Return whether score `a` of place i loses to `b` of place j."""
    return a < b or a == b and i > j


cdef inline void sift_down(
    double *score, int64_t *place, Py_ssize_t n, Py_ssize_t i
) noexcept nogil:
    """Move element i of a heap of n, whose root is the worst, down to where it belongs."""
    cdef double s = score[i]
    cdef int64_t p = place[i]
    cdef Py_ssize_t child = 2 * i + 1
    while child < n:
        if child + 1 < n and is_worse(
            score[child + 1], place[child + 1], score[child], place[child]
        ):
            child += 1
        if not is_worse(score[child], place[child], s, p):
            break
        score[i], place[i] = score[child], place[child]
        i, child = child, 2 * child + 1
    score[i], place[i] = s, p


cdef inline void enter(
    double s, int64_t p, double *score, int64_t *place, Py_ssize_t m
) noexcept nogil:
    """Put a score into the heap of the best m, if it is one of them."""
    if is_worse(score[0], place[0], s, p):
        score[0], place[0] = s, p
        sift_down(score, place, m, 0)


# ---- draws ---------------------------------------------------------------------------------------


cdef inline void enter_elements(
    const Stream *key, const Blocks *b, Py_ssize_t i, const Block *block, const int64_t *which,
    Py_ssize_t count, double *score, int64_t *place, Py_ssize_t m, real like,
) noexcept nogil:
    """Put the scores of some elements of a block that may win into the heap of the best m."""
    cdef uint64_t word[RACE_BLOCK]
    cdef double t[RACE_BLOCK]
    cdef double scaled[RACE_BLOCK]
    cdef int64_t id[RACE_BLOCK]
    cdef const real *x = <const real *>block.x
    cdef double g, least = b.least[i], largest = b.largest[i]
    cdef Py_ssize_t j, n = 0
    id[0] = 0  # count > 0, which the compiler does not know
    for j in range(count):
        id[j] = which[j] + block.number * RACE_BLOCK
        if b.index != NULL:
            id[j] = b.index[block.start + which[j]]
    stream_words(key, OTHERS, id, count, word)
    for j in range(count):
        scaled[j] = (<double>x[which[j]] - b.pivot) * b.inverse
    if b.map != NULL:
        map_scores(b.map, scaled, count)
    for j in range(count):
        t[j] = scaled[j] + gumbel_above(exponential_below(word[j]) + least)
    for j in range(count):
        if t[j] >= score[0] or which[j] == block.largest_at:
            scaled[n], word[n], id[n] = scaled[j], word[j], which[j]
            n += 1
    for j in range(n):
        t[j] = gumbel_of(exponential_of(word[j]) + least)
    for j in range(n):
        g = largest if id[j] == block.largest_at else min(t[j], largest)
        enter(scaled[j] + g, block.start + id[j], score, place, m)


cdef inline void open_block(
    const Stream *key, const Blocks *b, Py_ssize_t i, double *score, int64_t *place,
    Py_ssize_t m, Workspace *work, real like,
) noexcept nogil:
    """Put the scores of a block that may win into the heap of the best m."""
    cdef Block block = block_of(key, b, b.block[i], work, like)
    cdef const real *x = <const real *>block.x
    cdef Py_ssize_t j = block.largest_at, count = 0
    cdef int64_t which[RACE_BLOCK]
    cdef uint32_t marks[STEPS]
    cdef double scaled
    if j >= 0 and x[j] >= b.low:
        scaled = (<double>x[j] - b.pivot) * b.inverse
        if b.map != NULL:
            map_scores(b.map, &scaled, 1)
        enter(scaled + b.largest[i], block.start + j, score, place, m)
    mark_from(x, block.n, least_logit(b, b.largest[i], score[0], like), marks)
    if j >= 0:
        marks[j // STEP] &= ~(<uint32_t>1 << (j % STEP))
    for j in range(STEPS):
        while marks[j]:
            which[count] = STEP * j + lowest_bit(marks[j])
            count += 1
            marks[j] &= marks[j] - 1
    if count:
        enter_elements(key, b, i, &block, which, count, score, place, m, like)


cdef inline void race(
    const Stream *key, Blocks *b, const uint64_t *words, double *score, int64_t *place,
    Py_ssize_t m, Workspace *work, real like,
) noexcept nogil:
    """Write the m largest scores, in order, and their places: -inf and -1 where there are none.

    `words` are those of the blocks, or NULL.
    """
    cdef const real *maximum = <const real *>b.maximum
    cdef Block block
    cdef int64_t which
    cdef uint64_t word
    cdef Py_ssize_t i, rest, count, done = 0
    cdef double top, step = 1
    for i in range(m):
        score[i] = -infinity(<double>0)
        place[i] = -1
    if m == 1:  # the score of the largest element is mostly high, so that few blocks reach it
        b.block[0] = min(b.count - 1, find_first(maximum, b.count, <real>b.highest))
        block = block_of(key, b, b.block[0], work, like)
        stream_words(key, LEAST, &block.number, 1, &word)
        which = <int64_t>word
        set_largest(b, &which, 1)
        which = min(
            block.n - 1, find_first(<const real *>block.x, block.n, <real>b.highest)
        )
        enter_elements(key, b, 0, &block, &which, 1, score, place, 1, like)
    count = bound_blocks(key, b, words, score[0], like)
    while count > 0:  # those with nearly the highest bounds; then, wider each time, of the rest
        top = b.bound[0]
        for i in range(count):
            top = b.bound[i] if b.bound[i] > top else top
        if not top >= score[0]:
            break
        rest = 0
        for i in range(count):
            if b.bound[i] >= top - step and b.bound[i] >= score[0]:
                open_block(key, b, b.order[i], score, place, m, work, like)
                done += 16 * RACE_BLOCK
                if done >= LOOK_INTERVAL:
                    if stopped(done):
                        return
                    done = 0
            else:
                b.bound[rest], b.order[rest] = b.bound[i], b.order[i]
                rest += b.bound[i] >= score[0] and b.bound[i] < top - step
        count = rest
        step *= 2
    for i in range(m - 1, 0, -1):
        score[0], score[i] = score[i], score[0]
        place[0], place[i] = place[i], place[0]
        sift_down(score, place, i, 0)


cdef inline bint all_ties_are_left(
    const real *x, Py_ssize_t n, const Prefix *kept, PackedRow *packed
) noexcept nogil:
    """Return whether something equals the threshold of what is `kept` of a row, and all of it is.
    """
    cdef Py_ssize_t step = part_length(n, packed)
    cdef Py_ssize_t start, size, m = 0
    for start from 0 <= start < n by step:
        size = min(step, n - start)
        m += count_equal(row_part(x, start, size, packed), size, <real>kept.threshold)
    return 0 < m == kept.ties


cdef inline void race_for_draws(
    const SampleCall *call, Py_ssize_t row, const real *x, Py_ssize_t n, const Py_ssize_t *index,
    double highest, double inverse, double low, const uint64_t *words, Workspace *work,
    int64_t *places,
) noexcept nogil:
    """Write the places drawn from a row of n elements; from a list of n of them by `index`.

    Where there is a map, scores are by it instead of `inverse`, which is 1, and up to ABSOLUTE.
    What is below `low` takes no part. -1 where there are none any more. For a row `work` has its
    block maxima, eight for each block, and `words` are what `max_for_race` has found.
    """
    cdef Stream key
    cdef Blocks b
    cdef const Race *by = call.race
    cdef double *score = by.scores + row * call.m
    cdef Py_ssize_t i, done = 0
    b.x = x
    b.n = n
    b.index = index
    b.first = by.first_id // RACE_BLOCK
    b.highest = highest
    b.inverse = inverse
    b.map = <const ScoreMap *>by.map
    b.low = low
    b.pivot = by.highest[row] if by.highest != NULL else highest
    if b.map != NULL or -ABSOLUTE <= b.pivot * inverse <= ABSOLUTE:
        b.pivot = 0
    place_arrays(&b, call.n, work)
    if index == NULL:
        blocks_of_row(&b, work, <real>0)
    else:
        blocks_of_list(&b, <real>0)
    begin_stream(by, row, &key)
    if not call.replace:
        race(&key, &b, words, score, places, call.m, work, <real>0)
        return
    for i in range(call.m):
        key.draw = i
        done += 16 * b.count
        if done >= LOOK_INTERVAL:
            if stopped(done):
                places[i] = -1
                continue
            done = 0
        race(&key, &b, words if i == 0 else NULL, score + i, places + i, 1, work, <real>0)
