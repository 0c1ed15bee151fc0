/* The C interface of fastsoftmax: softmax, top-k, sampling and losses of rows, without Python.

   `fastsoftmax.capi._C_API` is a capsule of that name with a `fastsoftmax_api`. Its functions need
   no GIL, touch no Python object and raise nothing; any thread may call them, several at once. They
   use the instruction set that the package chose when it was imported, and give the bits that the
   Python functions give, whatever the caller's rounding mode is.

   An array is `rows` rows of `n` elements, one behind the other, aligned as its type is. What is
   written does not overlap what is read, but for `y == x` (softmax, log_softmax) and
   `grad == logits`. A thread needs 96 KiB of stack. Ctrl-C does not end a call.

   Each function returns FASTSOFTMAX_OK, FASTSOFTMAX_NO_MEMORY (what is written then is not to be
   used) or FASTSOFTMAX_ARGUMENT: a NULL that is not allowed, a negative length, a number that is NaN
   or outside the range given below; then nothing has been written. Values are those that the Python
   functions document: a row with NaN or +inf gives NaN, and so on. */

#ifndef FASTSOFTMAX_H
#define FASTSOFTMAX_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FASTSOFTMAX_OK 0
#define FASTSOFTMAX_NO_MEMORY (-1)
#define FASTSOFTMAX_ARGUMENT (-2)

/* It grows by one whenever functions are added, at the end of the struct. Nothing that is there
   changes: a program built with a header runs with any package whose version is not lower. */
#define FASTSOFTMAX_API_VERSION 1
#define FASTSOFTMAX_CAPSULE "fastsoftmax.capi._C_API"

typedef struct {
    int64_t version;             /* of the package that runs */
    const char *implementation;  /* "baseline", "avx2", "avx512" */

    /* softmax and log_softmax of x / temperature, which is from 0 to infinity. */
    int (*softmax_float32)(const float *x, float *y, intptr_t rows, intptr_t n,
                           double temperature);
    int (*softmax_float64)(const double *x, double *y, intptr_t rows, intptr_t n,
                           double temperature);
    int (*log_softmax_float32)(const float *x, float *y, intptr_t rows, intptr_t n,
                               double temperature);
    int (*log_softmax_float64)(const double *x, double *y, intptr_t rows, intptr_t n,
                               double temperature);

    /* One result a row. */
    int (*logsumexp_float32)(const float *x, float *y, intptr_t rows, intptr_t n);
    int (*logsumexp_float64)(const double *x, double *y, intptr_t rows, intptr_t n);

    /* The k (0 to n) largest elements of each row, or smallest ones, and their indices: the lower
       index first among equal ones, NaN last. In index order unless `sorted`. */
    int (*top_k_float32)(const float *x, float *values, int64_t *indices, intptr_t rows,
                         intptr_t n, intptr_t k, int largest, int sorted);
    int (*top_k_float64)(const double *x, double *values, int64_t *indices, intptr_t rows,
                         intptr_t n, intptr_t k, int largest, int sorted);

    /* One id a row, drawn by its uniform, a number in [0, 1). temperature is from 0 (the largest
       logit) to infinity, then come top_k (0: all), top_p (1: all) and min_p (0: all). A row that
       has no probabilities gets -1. */
    int (*sample_float32)(const float *logits, const double *uniforms, int64_t *ids,
                          intptr_t rows, intptr_t n, double temperature, intptr_t top_k,
                          double top_p, double min_p);
    int (*sample_float64)(const double *logits, const double *uniforms, int64_t *ids,
                          intptr_t rows, intptr_t n, double temperature, intptr_t top_k,
                          double top_p, double min_p);

    /* The uniform that `sample(seed=, position=)` draws by: of these alone. */
    double (*uniform)(uint64_t seed, uint64_t position);

    /* Cross entropy of logits / temperature: `losses`, one a row, and, unless NULL, `grad` (with
       respect to the logits) and `loss`, their sum or, if `mean`, mean; the gradient is of that.
       Targets are classes from 0 to n - 1, or `ignore_index`, whose rows count as 0 and not at all
       in the mean. label_smoothing is from 0 to 1. Losses of float32 are those of the Python
       function before they are rounded to float32. */
    int (*cross_entropy_float32)(const float *logits, const int64_t *targets, double *losses,
                                 float *grad, double *loss, intptr_t rows, intptr_t n,
                                 double temperature, double label_smoothing,
                                 int64_t ignore_index, int mean);
    int (*cross_entropy_float64)(const double *logits, const int64_t *targets, double *losses,
                                 double *grad, double *loss, intptr_t rows, intptr_t n,
                                 double temperature, double label_smoothing,
                                 int64_t ignore_index, int mean);
} fastsoftmax_api;

#ifdef Py_PYTHON_H
/* Return the functions, with the GIL held; NULL, and an ImportError set, if there are none: the
   package runs its reference, or is older than this header. Call it once, when a module is made. */
static inline const fastsoftmax_api *fastsoftmax_import(void)
{
    const fastsoftmax_api *api = (const fastsoftmax_api *)PyCapsule_Import(FASTSOFTMAX_CAPSULE, 0);
    if (api != NULL && api->version < FASTSOFTMAX_API_VERSION) {
        PyErr_Format(PyExc_ImportError,
                     "fastsoftmax has version %d of its C interface; %d is needed",
                     (int)api->version, FASTSOFTMAX_API_VERSION);
        return NULL;
    }
    return api;
}
#endif

#ifdef __cplusplus
}
#endif

#endif
