# cython: language_level=3
"""Flush-to-zero for exponentials of softmax and of weights: subnormal ones are 0.

An x86-64 CPU takes some 150 cycles for each subnormal number that it makes, and again for each
product with it. K (``exp_scale.pxd``) is such that what is below the smallest normal number is
less than 2**-150 of a sum: no result has it, nor any sum in its bits. Other CPUs make subnormal
numbers as fast as others, and do so. Without fma an exponential is a sum, and its last term is such
a number before it is: not there. Gradients show subnormal ones, and logarithms of sums without the
maximum's own term, but where a pivot serves: those are larger.

Source: Intel 64 and IA-32 Architectures Optimization Reference Manual, section 3.8.3.
"""

cdef extern from *:
    """
    #if defined(__SSE2__) && defined(__FMA__)
    #include <xmmintrin.h>
    static inline unsigned fs_flush_to_zero(Py_ssize_t elements) {
        unsigned control;
        if (elements < 2048) return 0;
        control = _mm_getcsr();
        _mm_setcsr(control | 0x8000u);
        __asm__ volatile("" : : : "memory");
        return control;
    }
    static inline void fs_keep_subnormal(unsigned control) {
        __asm__ volatile("" : : : "memory");
        if (control) _mm_setcsr(control);
    }
    #else
    static inline unsigned fs_flush_to_zero(Py_ssize_t elements) { return (void)elements, 0; }
    static inline void fs_keep_subnormal(unsigned control) { (void)control; }
    #endif
    """
    # Loops over this many elements are to flush, if they are so many that it pays.
    unsigned int flush_to_zero "fs_flush_to_zero"(Py_ssize_t elements) noexcept nogil
    # Undo what returned `control`.
    void keep_subnormal "fs_keep_subnormal"(unsigned int control) noexcept nogil
