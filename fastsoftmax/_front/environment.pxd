# cython: language_level=3
"""The floating-point environment that kernels run in: to nearest, subnormal numbers, no traps.

Another library may have set flush-to-zero, denormals-are-zero, a rounding mode or traps in the
calling thread (a shared object linked with -ffast-math does). Bits must not depend on that, so the
front enters this environment before a kernel and leaves it afterwards, with all of the caller's
control and status bits as they were. Where nothing was set, that costs two loads.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, section 10.2.3
(MXCSR); Arm Architecture Reference Manual for A-profile, section C5.2 (FPCR, FPSR).
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #if defined(__SSE2__)
    #include <xmmintrin.h>
    static inline uint64_t fs_enter(void) {
        unsigned caller = _mm_getcsr();
        if ((caller & 0xFFC0u) != 0x1F80u) _mm_setcsr(0x1F80u);
        return caller;
    }
    static inline void fs_leave(uint64_t caller) {
        if (_mm_getcsr() != (unsigned)caller) _mm_setcsr((unsigned)caller);
    }
    #elif defined(__aarch64__)
    static inline uint64_t fs_enter(void) {
        uint64_t control, status;
        __asm__ volatile("mrs %0, fpcr" : "=r"(control));
        __asm__ volatile("mrs %0, fpsr" : "=r"(status));
        if (control) __asm__ volatile("msr fpcr, %0" : : "r"((uint64_t)0) : "memory");
        return control << 32 | (status & 0xFFFFFFFFu);
    }
    static inline void fs_leave(uint64_t caller) {
        uint64_t status;
        if (caller >> 32) __asm__ volatile("msr fpcr, %0" : : "r"(caller >> 32) : "memory");
        __asm__ volatile("mrs %0, fpsr" : "=r"(status));
        if ((status & 0xFFFFFFFFu) != (caller & 0xFFFFFFFFu))
            __asm__ volatile("msr fpsr, %0" : : "r"(caller & 0xFFFFFFFFu) : "memory");
    }
    #else
    #error "fastsoftmax knows the floating-point environment of x86-64 and aarch64"
    #endif
    """
    uint64_t enter_environment "fs_enter"() noexcept nogil
    void leave_environment "fs_leave"(uint64_t caller) noexcept nogil
