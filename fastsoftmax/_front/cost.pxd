# cython: language_level=3
"""What work takes, in nanoseconds on a core of 3 GHz with AVX2: how many threads it is for."""

cdef inline double cost_exp(double size, int is_float32) noexcept nogil:
    """Return what it takes to read `size` elements and make an exponential of each."""
    return size * (0.4 if is_float32 else 1.5)


cdef inline double cost_select(double size, double k) noexcept nogil:
    """Return what it takes to select k elements, in all, of rows of together `size`."""
    return 0.08 * size + 22 * k


cdef inline double cost_draw(double size, double k, double draws) noexcept nogil:
    """Return what it takes to draw from rows of together `size`; k of them (0: all) are weighed."""
    return (cost_select(size, k) if k > 0 else 1.3 * size) + 20 * draws


cdef inline double cost_race(double size, double drawn_from) noexcept nogil:
    """Return what races take over rows of together `size`; `drawn_from` counts a row at each draw.
    """
    return cost_select(size, 0) + 0.1 * drawn_from
