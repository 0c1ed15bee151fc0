# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""`History`: the tokens so far of each row of a batch, from one call of a `Sampler` to the next."""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

cimport cython
cimport numpy as cnp

import numpy as np

from .._arguments import history as checks
from .._arguments import values

from fastsoftmax._front.values cimport is_behaved_c
from fastsoftmax._kernels.history cimport (
    MOST_TOKENS, STATE, HistoryRow, history_append, history_free, history_pend, history_set,
)
from fastsoftmax._kernels.history_queries cimport (
    HistoryScratch, history_continuations, history_distinct, history_scratch_free, history_since,
)

cnp.import_array()

READ = "the history is read by a call in another thread; allowed is a change after it"


@cython.final
cdef class History:
    """The tokens so far of each row of a batch, kept from one call of a `Sampler` to the next.

    It is given to a `Sampler` in place of the tokens. Then nothing is counted again: a token is
    taken in constant time, and what penalties, DRY and n-grams ask for is there without a pass over
    the tokens. It also keeps what `steps.Mirostat` and `steps.AdaptiveP` remember of a row.

    Parameters
    ----------
    prompts : iterable of sequences of int
        The token ids of each row's prompt, the oldest first; one for each row, maybe empty.

    Attributes
    ----------
    rows : int
        How many rows there are, as ``len`` says.

    Raises
    ------
    TypeError
        If a prompt is no sequence of integers; bools are none.
    ValueError
        If an id is negative.

    Notes
    -----
    A call of a sampler changes nothing that the next call sees: only `append` does, so that a token
    may be drawn again, or another one taken in its place. The state of a step becomes the one that
    the last call foresaw if it drew the very id that is appended; otherwise it stays.

    Rows stay where they are: a server has one for each request that may run at once, gives a row to
    the next request by `reset`, and calls its sampler with the logits of all rows (those of one
    that is free may be anything, even NaN with ``on_invalid="flag"``). For other rows there is
    another history; one can be copied (`copy.copy`) and pickled.

    While a call reads the rows in another thread, they cannot be changed: a RuntimeError.

    Examples
    --------
    >>> import numpy as np
    >>> from fastsoftmax import History, Sampler
    >>> history = History([[5, 7, 5], []])
    >>> history
    History of 2 rows: 3 tokens (prompt 3), 0 tokens (prompt 0)
    >>> history.append([7, 2])
    >>> history.append([7, -1])
    >>> history.tokens(0), history.prompt(0)
    (array([5, 7, 5, 7, 7]), 3)
    >>> history.counts(0), history.counts(0, last=2), history.counts(1, prompt=False)
    ((array([5, 7]), array([2, 3])), (array([7]), array([2])), (array([2]), array([1])))
    >>> history.reset(1, [1, 2, 3])
    >>> history.tokens(1)
    array([1, 2, 3])
    """

    def __cinit__(self, prompts):
        cdef Py_ssize_t i
        prompts = checks.prompts(prompts)
        self.row = <HistoryRow *>calloc(max(len(prompts), 1), sizeof(HistoryRow))
        if self.row == NULL:
            raise MemoryError(f"no memory for the tokens of {len(prompts)} rows")
        self.rows = len(prompts)
        for i in range(self.rows):
            self.begin(i, prompts[i])

    def __dealloc__(self):
        cdef Py_ssize_t i
        history_scratch_free(&self.scratch)
        if self.row != NULL:
            for i in range(self.rows):
                history_free(&self.row[i])
            free(self.row)

    def __len__(self):
        return self.rows

    def __repr__(self):
        shown = [
            f"{self.row[i].size} tokens (prompt {self.row[i].prompt})"
            for i in range(min(self.rows, 4))
        ]
        more = ", ..." if self.rows > 4 else ""
        return f"History of {self.rows} rows: {', '.join(shown)}{more}"

    def __reduce__(self):
        cdef HistoryRow *row
        rows = []
        with cython.critical_section(self):
            for i in range(self.rows):
                row = &self.row[<Py_ssize_t>i]
                state = [row.state[j] for j in range(row.n_state)]
                pending = [row.pending[j] for j in range(row.n_pending)]
                rows.append(
                    (_array(row.ids, row.size), row.prompt, state, row.pending_id, pending)
                )
        return _restored, (rows,)

    cdef int borrow(self) except -1:
        """Let a call read the rows without the GIL, until it calls `give_back`."""
        with cython.critical_section(self):
            self.readers += 1
        return 0

    cdef int give_back(self) except -1:
        """End what `borrow` began."""
        with cython.critical_section(self):
            self.readers -= 1
        return 0

    cdef int take(self, const int64_t *id, Py_ssize_t m) except -1:
        """Append m ids to each row; below 0 is none."""
        cdef Py_ssize_t i
        with cython.critical_section(self):
            if self.readers:
                raise RuntimeError(READ)
            for i in range(self.rows * m):
                if id[i] >= 0:
                    self._append(i // m, id[i])
        return 0

    cdef int begin(self, Py_ssize_t row, object prompt) except -1:
        """Give a row the tokens of a checked prompt."""
        cdef Py_ssize_t n = cnp.PyArray_SIZE(prompt)
        cdef const int64_t *ids = <const int64_t *>cnp.PyArray_DATA(prompt)
        with cython.critical_section(self):
            if self.readers:
                raise RuntimeError(READ)
            if history_set(&self.row[row], ids, n, n):
                raise MemoryError(f"no memory for {n} tokens of row {row}")
        return 0

    def append(self, ids):
        """Take the next token of each row, or the next ones.

        Parameters
        ----------
        ids : (rows,) or (rows, m) array_like of int
            The token ids; -1 takes none, so that what ``on_invalid="flag"`` returns can be given as
            it is. For one row, an id alone will do.

        Raises
        ------
        TypeError, ValueError
            If `ids` are no integers, not for these rows, or below -1; then none is taken.
        """
        cdef cnp.ndarray array
        if not (
            is_behaved_c(ids)
            and cnp.PyArray_TYPE(ids) == cnp.NPY_INT64
            and cnp.PyArray_NDIM(ids) == 1
            and cnp.PyArray_DIM(ids, 0) == self.rows
            and all_above(<const int64_t *>cnp.PyArray_DATA(ids), self.rows, -2)
        ):
            array = checks.appended(ids, self.rows)
            self.take(<const int64_t *>cnp.PyArray_DATA(array), array.shape[1])
        else:  # what a draw returns
            self.take(<const int64_t *>cnp.PyArray_DATA(ids), 1)

    def reset(self, row, prompt=()):
        """Forget a row, and let it begin with another prompt.

        Parameters
        ----------
        row : int
            Which row.
        prompt : sequence of int, default ()
            The token ids of the new prompt.
        """
        row = values.count(row, "row", 0, self.rows - 1)
        self.begin(row, checks.prompt(prompt, "prompt"))

    def tokens(self, row):
        """Return the tokens of a row, prompt and generated, as a new array of int64."""
        cdef HistoryRow *source = &self.row[<Py_ssize_t>values.count(row, "row", 0, self.rows - 1)]
        with cython.critical_section(self):
            return _array(source.ids, source.size)

    def prompt(self, row):
        """Return how many tokens of a row are its prompt."""
        return self.row[<Py_ssize_t>values.count(row, "row", 0, self.rows - 1)].prompt

    def state(self, row):
        """Return what the sampler's step with a state remembers of a row: () at first."""
        cdef HistoryRow *source = &self.row[<Py_ssize_t>values.count(row, "row", 0, self.rows - 1)]
        with cython.critical_section(self):
            return tuple([source.state[i] for i in range(source.n_state)])

    def counts(self, row, last=None, prompt=True):
        """Return the distinct ids of a row, ascending, and how often each occurs.

        Parameters
        ----------
        row : int
            Which row.
        last : int, optional
            Count the latest `last` tokens only.
        prompt : bool, default True
            Whether to count the prompt's tokens, too.

        Returns
        -------
        ids, counts : (m,) ndarray of int64
        """
        cdef HistoryRow *source = &self.row[<Py_ssize_t>values.count(row, "row", 0, self.rows - 1)]
        cdef Py_ssize_t window = _window(None if last is None else values.count(last, "last", 0))
        cdef bint whole = values.switch(prompt, "prompt")
        with cython.critical_section(self):
            found = _found(&self.scratch, history_distinct(source, window, whole, &self.scratch))
        return _ascending(found)

    def _continuations(self, Py_ssize_t row, int least, Py_ssize_t most, last=None):
        """As `steps.Tokens.continuations`, for tests."""
        cdef HistoryScratch *scratch = &self.scratch
        cdef Py_ssize_t window = _window(last)
        with cython.critical_section(self):
            found = _found(
                scratch, history_continuations(&self.row[row], window, least, most, scratch)
            )
        return _ascending(found)

    def _since(self, Py_ssize_t row, breakers, last=None):
        """As `steps.Tokens.since`, for tests."""
        cdef cnp.ndarray ids = np.array([i for b in breakers for i in b], dtype=np.int64)
        cdef cnp.ndarray starts = np.cumsum([0, *map(len, breakers)], dtype=np.intp)
        return history_since(
            &self.row[row], _window(last), <const int64_t *>cnp.PyArray_DATA(ids),
            <const Py_ssize_t *>cnp.PyArray_DATA(starts), len(breakers),
        )

    cdef int _append(self, Py_ssize_t row, int64_t id) except -1:
        """Take one token of a row."""
        if history_append(&self.row[row], id):
            raise MemoryError(f"no memory for more tokens of row {row}")
        return 0

    def _pend(self, Py_ssize_t row, int64_t id, state):
        """Foresee the state of a row after `id`, as a call of a sampler does."""
        cdef double numbers[STATE]
        cdef int n = len(state), i
        for i in range(min(n, STATE)):
            numbers[i] = state[i]
        with cython.critical_section(self):
            history_pend(&self.row[row], id, numbers, min(n, STATE))


def _restored(rows):
    """Return a history with the tokens and states of rows, as `__reduce__` gives them."""
    cdef History history = History([row[0][:row[1]] for row in rows])
    for i, (tokens, prompt, state, pending_id, pending) in enumerate(rows):
        for token in tokens[prompt:].tolist():
            history._pend(i, token, state)  # what holds after the last one
            history._append(i, token)
        history._pend(i, pending_id, pending)
    return history


cdef bint all_above(const int64_t *id, Py_ssize_t n, int64_t low) noexcept:
    """Return whether each of n ids is above `low`."""
    cdef Py_ssize_t i
    for i in range(n):
        if id[i] <= low:
            return False
    return True


cdef Py_ssize_t _window(object last) except? -2:
    """Return a number of latest tokens, -1 for all."""
    return -1 if last is None else min(last, MOST_TOKENS)


cdef object _array(const int64_t *ids, Py_ssize_t n):
    """Return n ids as a new array."""
    cdef cnp.npy_intp size = n
    array = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INT64, 0)
    if n:
        memcpy(cnp.PyArray_DATA(array), ids, n * sizeof(int64_t))
    return array


cdef object _found(const HistoryScratch *scratch, Py_ssize_t n):
    """Return the n ids and numbers in the scratch as arrays."""
    cdef Py_ssize_t i
    if n < 0:
        raise MemoryError("no memory to count tokens")
    numbers = _array(scratch.ids, n)
    for i in range(n):
        (<int64_t *>cnp.PyArray_DATA(numbers))[i] = scratch.counts[i]
    return _array(scratch.ids, n), numbers


def _ascending(found):
    """Return ids in ascending order, and their numbers."""
    ids, numbers = found
    order = ids.argsort()
    return ids[order], numbers[order]
