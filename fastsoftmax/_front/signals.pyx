# cython: language_level=3
"""Ctrl-C, and errors of other threads, while a kernel works on one row for long.

The kernel calls `look` from time to time and ends early if that says so; then its caller calls
`raise_if_stopped`.
"""

from cpython.exc cimport PyErr_CheckSignals

from .. import _threads

# Not a flag of each thread: where there is no memory for thread-local storage, the process ends.
cdef extern from *:
    """
    static int fs_stopped;
    static inline int fs_any_stopped(void) {
        return __atomic_load_n(&fs_stopped, __ATOMIC_ACQUIRE);
    }
    static inline void fs_count_stopped(int more) {
        __atomic_fetch_add(&fs_stopped, more, __ATOMIC_ACQ_REL);
    }
    """
    int any_stopped "fs_any_stopped"() noexcept nogil  # threads that have an error to raise
    void count_stopped "fs_count_stopped"(int more) noexcept nogil


# Set in threads that have called a kernel by the C interface: they may not know of Python, and who
# holds the GIL may wait for them. This is no `thread_local`, as above: without memory it says so.
cdef extern from *:
    """
    static Py_tss_t fs_unwatched = Py_tss_NEEDS_INIT;
    """
    ctypedef struct Py_tss_t:
        pass
    Py_tss_t unwatched "fs_unwatched"
    int PyThread_tss_create(Py_tss_t *key)
    void *PyThread_tss_get(Py_tss_t *key) noexcept nogil
    int PyThread_tss_set(Py_tss_t *key, void *value) noexcept nogil

if PyThread_tss_create(&unwatched) != 0:
    raise MemoryError("no memory for what each thread has of its own")


cdef int look_for_signals(bint whether) noexcept nogil:
    """Let looks of this thread say whether to stop, or never; return -1 if there is no memory."""
    return 0 if PyThread_tss_set(&unwatched, NULL if whether else <void *>&unwatched) == 0 else -1


cdef int look() noexcept nogil:
    """Return whether to stop: a signal handler has raised, or who this thread helps; a `look_fn`.

    Once it was so, it is until the error is raised.
    """
    if PyThread_tss_get(&unwatched) != NULL:
        return False
    with gil:
        if any_stopped() and getattr(_threads.here, "error", None) is not None:
            return True
        try:
            PyErr_CheckSignals()
            _threads.raise_if_stopped()
        except BaseException as error:
            _threads.here.error = error
            count_stopped(1)
            return True
    return False


cdef int raise_if_stopped() except -1:
    """Raise the error for which a look in this thread said to stop, if there was one."""
    if any_stopped():
        error = getattr(_threads.here, "error", None)
        if error is not None:
            _threads.here.error = None
            count_stopped(-1)
            raise error
    return 0
