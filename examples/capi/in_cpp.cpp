// A step of training, in C++: each thread takes some rows to their losses and gradients.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include <fastsoftmax.h>

static const fastsoftmax_api *api;

// Write the gradients of the sum of the losses; return that, and the worst status in `status`.
static double losses(const double *logits, const int64_t *targets, double *grad, intptr_t rows,
                     intptr_t n, intptr_t threads, std::atomic<int> &status)
{
    std::vector<double> each(rows);
    std::vector<std::thread> pool;
    for (intptr_t i = 0; i < threads; i++) {
        const intptr_t first = rows * i / threads, count = rows * (i + 1) / threads - first;
        pool.emplace_back([=, &each, &status] {
            const int done = api->cross_entropy_float64(
                logits + first * n, targets + first, each.data() + first, grad + first * n, nullptr,
                count, n, 1.0, 0.0, -100, 0);
            if (done != FASTSOFTMAX_OK)
                status = done;
        });
    }
    for (auto &thread : pool)
        thread.join();
    double sum = 0;
    for (const double loss : each)
        sum += loss;
    return sum;
}

static PyObject *step(PyObject *, PyObject *args)
{
    Py_buffer logits, targets, grad;
    Py_ssize_t threads;
    double sum = 0;
    std::atomic<int> status{FASTSOFTMAX_ARGUMENT};
    if (!PyArg_ParseTuple(args, "y*y*w*n", &logits, &targets, &grad, &threads))
        return nullptr;
    const intptr_t rows = targets.len / sizeof(int64_t);
    const intptr_t n = rows > 0 ? logits.len / sizeof(double) / rows : 0;
    if (grad.len == logits.len && logits.len == intptr_t(rows * n * sizeof(double))) {
        status = FASTSOFTMAX_OK;
        Py_BEGIN_ALLOW_THREADS
        sum = losses(static_cast<const double *>(logits.buf),
                     static_cast<const int64_t *>(targets.buf), static_cast<double *>(grad.buf),
                     rows, n, std::max<intptr_t>(1, threads), status);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&logits);
    PyBuffer_Release(&targets);
    PyBuffer_Release(&grad);
    if (status == FASTSOFTMAX_NO_MEMORY)
        return PyErr_NoMemory();
    if (status != FASTSOFTMAX_OK) {
        PyErr_SetString(PyExc_ValueError, "sizes or targets are out of range");
        return nullptr;
    }
    return PyFloat_FromDouble(sum);
}

static PyMethodDef methods[] = {
    {"step", step, METH_VARARGS,
     "step(logits, targets, grad, threads)\n--\n\nReturn the sum of the losses of float64 rows."},
    {nullptr, nullptr, 0, nullptr},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "in_cpp", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr,
};

PyMODINIT_FUNC PyInit_in_cpp()
{
    api = fastsoftmax_import();
    return api != nullptr ? PyModule_Create(&definition) : nullptr;
}
