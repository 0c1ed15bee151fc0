# cython: language_level=3
"""Ctrl-C, and errors of other threads, while a kernel works on one row for long.

The kernel calls `look` from time to time and ends early if that says so; then its caller calls
`raise_if_stopped`.
"""

from cpython.exc cimport PyErr_CheckSignals

from .. import _threads

cdef extern from *:
    """
    static _Thread_local int fs_stopped;
    """
    int stopped "fs_stopped"  # whether this thread has an error to raise


cdef int look() noexcept nogil:
    """Return whether to stop: a signal handler has raised, or who this thread helps; a `look_fn`.

    Once it was so, it is until the error is raised.
    """
    global stopped
    if stopped == 0:
        with gil:
            try:
                PyErr_CheckSignals()
                _threads.raise_if_stopped()
            except BaseException as error:
                _threads.here.error = error
                stopped = 1
    return stopped


cdef int raise_if_stopped() except -1:
    """Raise the error for which a look in this thread said to stop, if there was one."""
    global stopped
    if stopped:
        stopped = 0
        error, _threads.here.error = _threads.here.error, None
        raise error
    return 0
