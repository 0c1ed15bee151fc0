/* The error for a keyword that a function does not have: our words, at no cost for good calls.

Cython's functions parse their keywords in C, before their first line, in the shared module of
Cython's own code; it reports an unknown one through PyErr_Format. setup.py includes this file at
the top of that module, where the macro below asks fastsoftmax._docs for the text of that error.
Every other error, and this one where there is no such text, is formatted as before. Should Cython
change its words, its own error is back, and a test fails. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdarg.h>
#include <string.h>

static PyObject *fs_keyword_text(const char *function, PyObject *keyword) {
    PyObject *docs = PyImport_ImportModule("fastsoftmax._docs");
    PyObject *text = NULL;
    if (docs) {
        text = PyObject_CallMethod(docs, "keyword_text", "sO", function, keyword);
        Py_DECREF(docs);
    }
    if (text == Py_None) {
        Py_CLEAR(text);
    }
    PyErr_Clear();
    return text;
}

static PyObject *fs_err_format(PyObject *type, const char *format, ...) {
    va_list args;
    PyObject *text = NULL;
    if (strcmp(format, "%s() got an unexpected keyword argument '%U'") == 0) {
        va_start(args, format);
        const char *function = va_arg(args, const char *);
        text = fs_keyword_text(function, va_arg(args, PyObject *));
        va_end(args);
    }
    if (text) {
        PyErr_SetObject(type, text);
        Py_DECREF(text);
    } else {
        va_start(args, format);
        PyErr_FormatV(type, format, args);
        va_end(args);
    }
    return NULL;
}

#define PyErr_Format fs_err_format
