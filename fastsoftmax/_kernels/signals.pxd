# cython: language_level=3
"""Looks for Ctrl-C on the way, in work on one row that may take longer than a second.

Once one says to stop, so do all until the call is over. What was to be computed no longer matters
then, and a loop may end where it is, if what it leaves can be read on: indices are within the row.
"""

from fastsoftmax._kernels.abi cimport look_fn

cdef extern from *:
    """
    static int fs_no_look(void) { return 0; }
    static int (*fs_look)(void) = fs_no_look;
    """
    look_fn look "fs_look"  # what the front has set, through the table of the kernels

cdef enum:
    LOOK_INTERVAL = 1 << 21  # elements of cheap work between two looks: some milliseconds


cdef inline bint stopped(Py_ssize_t work) noexcept nogil:
    """Look for a signal, if `work` that comes next is no little; return whether to stop."""
    return work >= LOOK_INTERVAL and look() != 0
