/* Tokens drawn from rows of scores, in C, while other threads of Python run. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <fastsoftmax.h>

static const fastsoftmax_api *api;

PyDoc_STRVAR(draw_doc, "draw(logits, uniforms, ids, temperature, top_p)\n--\n\n"
             "Write a token for each row of `logits` (float32), by a number in [0, 1) for each.");

static PyObject *draw(PyObject *module, PyObject *args)
{
    Py_buffer logits, uniforms, ids;
    double temperature, top_p;
    int status = FASTSOFTMAX_ARGUMENT;
    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*w*dd", &logits, &uniforms, &ids, &temperature, &top_p))
        return NULL;
    intptr_t rows = uniforms.len / (intptr_t)sizeof(double);
    intptr_t n = rows > 0 ? logits.len / (intptr_t)sizeof(float) / rows : 0;
    if (ids.len == rows * (intptr_t)sizeof(int64_t)
        && logits.len == rows * n * (intptr_t)sizeof(float)) {
        Py_BEGIN_ALLOW_THREADS
        status = api->sample_float32(logits.buf, uniforms.buf, ids.buf, rows, n, temperature,
                                     0, top_p, 0.0);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&logits);
    PyBuffer_Release(&uniforms);
    PyBuffer_Release(&ids);
    if (status == FASTSOFTMAX_NO_MEMORY)
        return PyErr_NoMemory();
    if (status != FASTSOFTMAX_OK) {
        PyErr_SetString(PyExc_ValueError, "sizes, uniforms, temperature or top_p are out of range");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"draw", draw, METH_VARARGS, draw_doc},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    .m_base = PyModuleDef_HEAD_INIT,
    .m_name = "in_c",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit_in_c(void)
{
    api = fastsoftmax_import();
    return api != NULL ? PyModule_Create(&definition) : NULL;
}
