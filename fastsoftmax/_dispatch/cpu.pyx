# cython: language_level=3
"""What this CPU and operating system can run.

Compiled with baseline flags, so that it can be imported anywhere. On x86-64 it asks ``cpuid``
(leaves 1 and 7) which instructions exist, and ``xgetbv`` whether the operating system saves the
registers they use: a CPU with AVX-512 under a kernel that does not save zmm kills the process.
Elsewhere there is nothing to ask: NEON is part of every aarch64.

Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, sections 14.3 and
15.2 to 15.4.
"""

cdef extern from *:
    """
    #if defined(__x86_64__)
    #include <cpuid.h>
    static void fs_cpuid(unsigned leaf, unsigned *r) {
        r[0] = r[1] = r[2] = r[3] = 0;
        __get_cpuid_count(leaf, 0, r, r + 1, r + 2, r + 3);
    }
    static unsigned fs_xcr0(void) {
        unsigned low, high;
        __asm__ volatile ("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
        return low;
    }
    #else
    static void fs_cpuid(unsigned leaf, unsigned *r) { (void)leaf; r[0] = r[1] = r[2] = r[3] = 0; }
    static unsigned fs_xcr0(void) { return 0; }
    #endif
    """
    void fs_cpuid(unsigned leaf, unsigned *r) nogil
    unsigned fs_xcr0() nogil

SAVED_AVX = 0x6  # XCR0: xmm and ymm are saved
SAVED_AVX512 = 0xe6  # and the mask registers and both halves of zmm


def features() -> frozenset:
    """Return the names of the instruction-set extensions that may be used, as gcc spells them.

    Examples
    --------
    >>> from fastsoftmax._dispatch import cpu
    >>> cpu.features() <= {"avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512dq", "avx512vl"}
    True
    """
    cdef unsigned one[4]
    cdef unsigned seven[4]
    cdef unsigned saved
    fs_cpuid(1, one)
    fs_cpuid(7, seven)
    # Bit 27 of ecx says that xgetbv itself may be executed.
    saved = fs_xcr0() if one[2] & (1u << 27) else 0
    found = set()
    if saved & SAVED_AVX == SAVED_AVX:
        found.update(name for name, bit in (("fma", 12), ("f16c", 29)) if one[2] >> bit & 1)
        found.update(name for name, bit in (("avx2", 5),) if seven[1] >> bit & 1)
    if saved & SAVED_AVX512 == SAVED_AVX512:
        names = (("avx512f", 16), ("avx512dq", 17), ("avx512bw", 30), ("avx512vl", 31))
        found.update(name for name, bit in names if seven[1] >> bit & 1)
    return frozenset(found)
