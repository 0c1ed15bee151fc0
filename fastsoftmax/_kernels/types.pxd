# cython: language_level=3, cdivision=True
"""What kernels compute in and with: element types, pointers, bits, a fused multiply-add.

Where there is no fused multiply-add (x86-64 without AVX2) ``fma`` is a multiply and an add.
"""

from libc.stdint cimport uint32_t, uint64_t

ctypedef fused real:
    float
    double

# A row that a loop writes and reaches by no other name: without the promise the compiler would
# check for overlap at each step, or give up.
cdef extern from *:
    ctypedef float *out_ptr32 "float *__restrict"
    ctypedef double *out_ptr64 "double *__restrict"

ctypedef fused out_ptr:
    out_ptr32
    out_ptr64

# What a function returns that is not to be built into others, nor to be built twice: the larger a
# function, the more of its loops stay scalar. In a .pxd it has the word `inline` all the same.
cdef extern from *:
    """
    #ifdef __clang__
    #define FS_SEPARATE __attribute__((noinline)) void
    #else
    #define FS_SEPARATE __attribute__((noinline, noclone)) void
    #pragma GCC diagnostic ignored "-Wattributes"
    #endif
    """
    ctypedef void noinline_void "FS_SEPARATE"

# What a loop returns whose body is functions: without all of them built into it, it is no vector
# code. Cython declares a variable of the type that a function returns, and clang refuses a
# function's attribute there: what is not void has none.
cdef extern from *:
    """
    #define FS_LOOP __attribute__((flatten))
    #define FS_LOOP_VOID FS_LOOP void
    #ifdef __clang__
    #define FS_LOOP_INT int
    #define FS_LOOP_DOUBLE double
    #else
    #define FS_LOOP_INT FS_LOOP int
    #define FS_LOOP_DOUBLE FS_LOOP double
    #endif
    """
    ctypedef void loop_void "FS_LOOP_VOID"
    ctypedef int loop_int "FS_LOOP_INT"
    ctypedef double loop_double "FS_LOOP_DOUBLE"

# What a function returns that is built into all that call it, however long it is: a loop over it
# is vector code then, or a literal among its arguments is known.
cdef extern from *:
    """
    #define FS_INLINED_VOID __attribute__((always_inline)) void
    #ifdef __clang__
    #define FS_INLINED_DOUBLE double
    #else
    #define FS_INLINED_DOUBLE __attribute__((always_inline)) double
    #endif
    """
    ctypedef void inlined_void "FS_INLINED_VOID"
    ctypedef double inlined_double "FS_INLINED_DOUBLE"

# Before a loop over lanes: gcc would unroll it, and make no vectors of it, or of steps instead.
cdef extern from *:
    """
    #ifdef __clang__
    #define FS_ROLLED
    #else
    #define FS_ROLLED _Pragma("GCC unroll 1")
    #endif
    """

# What a function returns that computes in the widest vectors there are, also in a module that
# prefers vectors of 32 bytes.
cdef extern from *:
    """
    #if defined(__AVX512F__) && !defined(__clang__)
    #define FS_WIDE __attribute__((noinline, flatten, target("prefer-vector-width=512")))
    #define FS_WIDE_VOID FS_WIDE void
    #define FS_WIDE_DOUBLE FS_WIDE double
    #else
    #define FS_WIDE_VOID FS_LOOP_VOID
    #define FS_WIDE_DOUBLE FS_LOOP_DOUBLE
    #endif
    """
    ctypedef void wide_void "FS_WIDE_VOID"
    ctypedef double wide_double "FS_WIDE_DOUBLE"

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #if defined(__FMA__) || defined(__aarch64__)
    #define FS_HAS_FMA 1
    #define fs_fma32(a, b, c) __builtin_fmaf(a, b, c)
    #define fs_fma64(a, b, c) __builtin_fma(a, b, c)
    #else
    #define FS_HAS_FMA 0
    #define fs_fma32(a, b, c) ((a) * (b) + (c))
    #define fs_fma64(a, b, c) ((a) * (b) + (c))
    #endif
    static inline uint32_t fs_bits32(float x) { uint32_t b; memcpy(&b, &x, 4); return b; }
    static inline uint64_t fs_bits64(double x) { uint64_t b; memcpy(&b, &x, 8); return b; }
    static inline float fs_float(uint32_t b) { float x; memcpy(&x, &b, 4); return x; }
    static inline double fs_double(uint64_t b) { double x; memcpy(&x, &b, 8); return x; }
    """
    const bint HAS_FMA "FS_HAS_FMA"
    void prefetch "__builtin_prefetch"(const void *p) noexcept nogil
    int lowest_bit "__builtin_ctz"(uint32_t mask) noexcept nogil
    int leading_zeros "__builtin_clzll"(uint64_t mask) noexcept nogil
    float fma32 "fs_fma32"(float a, float b, float c) noexcept nogil
    double fma64 "fs_fma64"(double a, double b, double c) noexcept nogil
    uint32_t bits32 "fs_bits32"(float x) noexcept nogil
    uint64_t bits64 "fs_bits64"(double x) noexcept nogil
    float from_bits32 "fs_float"(uint32_t b) noexcept nogil
    double from_bits64 "fs_double"(uint64_t b) noexcept nogil


cdef inline real infinity(real like) noexcept nogil:
    """Return +inf of the type of `like`."""
    if real is float:
        return from_bits32(0x7F800000)
    else:
        return from_bits64(0x7FF0000000000000ULL)


cdef inline real largest_finite(real like) noexcept nogil:
    """Return the largest finite number of the type of `like`."""
    if real is float:
        return 3.4028234663852886e+38
    else:
        return 1.7976931348623157e+308


cdef inline real not_a_number(real like) noexcept nogil:
    """Return the NaN of all results, of the type of `like`.

    Which of several NaN an operation gives is the compiler's choice.
    """
    if real is float:
        return from_bits32(0x7FC00000)
    else:
        return from_bits64(0x7FF8000000000000ULL)


cdef inline double one_nan(double x) noexcept nogil:
    """Return x, or if it is a NaN, that of positive sign: which one comes out is the compiler's."""
    return x if x == x else not_a_number(x)


cdef inline real fma(real a, real b, real c) noexcept nogil:
    """Return ``a * b + c``, rounded once where the instruction set can."""
    if real is float:
        return fma32(a, b, c)
    else:
        return fma64(a, b, c)
