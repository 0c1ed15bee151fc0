# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""What a chain is run with: the program of its steps, the tokens so far, random numbers."""

from libc.math cimport INFINITY
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

cimport cython
cimport numpy as cnp
from cpython.long cimport PyLong_AsLongLongAndOverflow

import numpy as np

from .._arguments import values

from fastsoftmax._front.arrays cimport as_int64
from fastsoftmax._front.history cimport History
from fastsoftmax._front.plan cimport Plan, allocate
from fastsoftmax._front.uniforms cimport independent_uniforms
from fastsoftmax._front.values cimport is_behaved_c
from fastsoftmax._kernels cimport chain_abi as abi
from fastsoftmax._kernels.chain_abi cimport ChainStep, NextState, PastTokens
from fastsoftmax._kernels.history cimport HistoryRow, history_pend

cnp.import_array()

cdef dict OPS = {
    "Temperature": abi.TEMPERATURE,
    "RepetitionPenalty": abi.REPETITION_PENALTY,
    "FrequencyPenalty": abi.FREQUENCY_PENALTY,
    "PresencePenalty": abi.PRESENCE_PENALTY,
    "LogitBias": abi.LOGIT_BIAS,
    "SuppressTokens": abi.SUPPRESS_TOKENS,
    "AllowedTokens": abi.ALLOWED_TOKENS,
    "TopK": abi.TOP_K,
    "TopP": abi.TOP_P,
    "MinP": abi.MIN_P,
    "TypicalP": abi.TYPICAL_P,
    "TopNSigma": abi.TOP_N_SIGMA,
    "Epsilon": abi.EPSILON,
    "Eta": abi.ETA,
    "XTC": abi.XTC,
    "SoftCap": abi.SOFT_CAP,
    "DynamicTemperature": abi.DYNAMIC_TEMPERATURE,
    "AdaptiveP": abi.ADAPTIVE_P,
    "MinLength": abi.MIN_LENGTH,
    "BadWords": abi.BAD_WORDS,
    "SequenceBias": abi.SEQUENCE_BIAS,
    "NoRepeatNGram": abi.NO_REPEAT_NGRAM,
    "DRY": abi.DRY,
    "Mirostat": abi.MIROSTAT,
}


#: The fields of a `ChainStep` that may differ from row to row, and what they are by default.
cdef dict NUMBERS = {
    "a": 0.0, "b": 0.0, "c": 0.0, "log_a": -INFINITY, "k": 0, "min_keep": 1, "last": None,
    "prompt": False, "every_tie": False,
}


cdef int set_number(ChainStep *step, str name, object value) except -1:
    """Set a field of a step, one of `NUMBERS`."""
    if name == "a":
        step.a = value
    elif name == "b":
        step.b = value
    elif name == "c":
        step.c = value
    elif name == "log_a":
        step.log_a = value
    elif name == "k":
        step.k = min(value, 1 << 53)
    elif name == "min_keep":
        step.min_keep = min(value, 1 << 53)
    elif name == "last":
        step.last = -1 if value is None else min(value, 1 << 53)
    elif name == "prompt":
        step.prompt = value
    else:
        step.every_tie = value
    return 0


cdef class Program:
    """The steps of a sampler in C, made once.

    Parameters
    ----------
    steps : list of (str, dict)
        The name of each step, and the fields of a `ChainStep` that it sets. A tuple in place of one
        of `NUMBERS` has a value for each row.
    rows : int or None
        How many rows such tuples have values for.
    """

    def __cinit__(self, list steps, rows=None):
        cdef ChainStep *step
        cdef Py_ssize_t i, row
        self.kept = []
        self.highest_id = -1
        self.size = ANY_SIZE
        self.make_room(len(steps) * (rows or 1), -1 if rows is None else rows)
        for name, given in steps:
            step = self.steps + self.n_steps
            step.op = OPS[name]
            for field, value in NUMBERS.items():
                value = given.get(field, value)
                set_number(step, field, value[0] if type(value) is tuple else value)
            size = given.get("size")
            self.limit(ANY_SIZE if size is None else size)
            self.set_ids(step, given)
            self.resolves |= step.op >= abi.MIN_LENGTH
            self.stateful |= step.op == abi.MIROSTAT or step.op == abi.ADAPTIVE_P
            if step.op == abi.XTC:
                self.chances += 1
            if self.fewest == 0 and step.op == abi.TOP_K:
                self.fewest = step.k
            self.n_steps += 1
        for row in range(1, self.rows):
            memcpy(
                self.steps + row * self.n_steps, self.steps, self.n_steps * sizeof(ChainStep)
            )
        for i in range(self.n_steps):
            for field, value in steps[i][1].items():
                if field in NUMBERS and type(value) is tuple:
                    for row in range(self.rows):
                        step = self.steps + row * self.n_steps + i
                        set_number(step, field, value[row])
                        if self.fewest > 0 and step.op == abi.TOP_K:
                            self.fewest = max(self.fewest, step.k)
        for row in range(self.rows + 1):
            self.starts[row] = row * self.n_steps
            self.first_uniforms[row] = row * self.chances

    cdef int set_ids(self, ChainStep *step, dict given) except -1:
        """Set the ids of a step, its sequences of ids, and the values of either."""
        sequences = given.get("sequences", ())
        cdef cnp.ndarray ids = np.array(given.get("ids", ()), np.int64)
        cdef cnp.ndarray numbers = np.array(given.get("values", ()), np.float64)
        cdef cnp.ndarray flat = np.array([i for one in sequences for i in one], np.int64)
        cdef cnp.ndarray starts = np.cumsum([0, *map(len, sequences)], dtype=np.intp)
        step.n_ids = cnp.PyArray_SIZE(ids)
        step.ids = <const int64_t *>cnp.PyArray_DATA(ids)
        step.values = <const double *>cnp.PyArray_DATA(numbers)
        step.n_sequences = len(sequences)
        step.starts = <const Py_ssize_t *>cnp.PyArray_DATA(starts)
        step.sequences = <const int64_t *>cnp.PyArray_DATA(flat)
        self.kept += [ids, numbers, flat, starts]
        self.highest_id = max(self.highest_id, ids.max(initial=-1), flat.max(initial=-1))
        return 0

    cdef int make_room(self, Py_ssize_t n_steps, Py_ssize_t rows) except -1:
        """Make room for so many steps, and for where those of each row begin; -1: all have all."""
        free(self.steps)
        self.rows = rows
        self.steps = <ChainStep *>malloc((n_steps + 1) * sizeof(ChainStep))
        if rows >= 0:
            self.starts = <Py_ssize_t *>malloc(2 * (rows + 1) * sizeof(Py_ssize_t))
            self.first_uniforms = self.starts + rows + 1
        if self.steps == NULL or rows >= 0 and self.starts == NULL:
            raise MemoryError(f"no memory for {n_steps} steps")
        memset(self.steps, 0, (n_steps + 1) * sizeof(ChainStep))
        return 0

    def __dealloc__(self):
        free(self.steps)
        free(self.starts)  # and the first uniforms

    cdef int limit(self, Py_ssize_t size) except -1:
        """Take the size of the vocabulary that a step has a mask of."""
        if self.size == ANY_SIZE:
            self.size = size
        elif size != ANY_SIZE and size != self.size:
            self.size = NO_SIZE
        return 0


cdef Program join_programs(list programs):
    """Return a program in which each row has the steps of one of some programs."""
    cdef Program joined = Program([])
    cdef Program one
    cdef Py_ssize_t r, rows = len(programs), n_steps = 0
    for one in programs:
        n_steps += one.n_steps
    joined.make_room(n_steps, rows)
    joined.kept = programs
    joined.starts[0] = joined.first_uniforms[0] = 0
    for r in range(rows):
        one = programs[r]
        memcpy(
            joined.steps + joined.starts[r], one.steps, one.n_steps * sizeof(ChainStep)
        )
        joined.starts[r + 1] = joined.starts[r] + one.n_steps
        joined.first_uniforms[r + 1] = joined.first_uniforms[r] + one.chances
        joined.limit(one.size)
        joined.chances = max(joined.chances, one.chances)
        joined.highest_id = max(joined.highest_id, one.highest_id)
        joined.resolves |= one.resolves
        joined.stateful |= one.stateful
        joined.fewest = max(joined.fewest, one.fewest)
    joined.n_steps = n_steps
    return joined


cdef bint parse_ids(tuple tokens, int64_t *ids) except -1:
    """Write the ints of a tuple; return False where one is none, or too large."""
    cdef Py_ssize_t i
    cdef int overflow = 0
    for i in range(len(tokens)):
        token = tokens[i]
        if type(token) is not int:
            return False
        ids[i] = PyLong_AsLongLongAndOverflow(token, &overflow)
        if overflow:
            return False
    return True


cdef class Histories:
    """The tokens so far of each row of a call."""

    def __dealloc__(self):
        if self.rows != &self.one:
            free(self.rows)

    cdef int borrow(self) except -1:
        """Let the rows of a History be read until `give_back`."""
        cdef Py_ssize_t r
        cdef const HistoryRow *row
        if self.history is None:
            return 0
        self.history.borrow()
        for r in range(self.n_rows):
            row = &self.history.row[r]
            self.rows[r].ids = row.ids
            self.rows[r].size = row.size
            self.rows[r].prompt = row.prompt
            self.rows[r].kept = row
            self.rows[r].n_state = row.n_state
            memcpy(self.rows[r].state, row.state, sizeof(row.state))
        return 0

    cdef int foresee(self, const NextState *states) except -1:
        """Let the states of the rows of a History be those, if what was drawn is appended."""
        cdef Py_ssize_t r
        with cython.critical_section(self.history):
            for r in range(self.n_rows):
                if states[r].count > 0:
                    history_pend(
                        &self.history.row[r], states[r].id, states[r].numbers, states[r].count
                    )
        return 0

    cdef int give_back(self) except -1:
        """End what `borrow` began."""
        if self.history is not None:
            self.history.give_back()
        return 0

    cdef bint add(self, PastTokens *row, object tokens, Py_ssize_t n) except -1:
        """Take the tokens of a row of n; return whether these are ordinary."""
        cdef cnp.ndarray a
        cdef cnp.npy_intp size
        cdef Py_ssize_t i
        cdef bint good = True
        if type(tokens) is list:
            tokens = tuple(tokens)  # which no other thread changes
        if type(tokens) is tuple:
            size = len(tokens)
            if size == 0:
                return True
            a = cnp.PyArray_EMPTY(1, &size, cnp.NPY_INT64, 0)
            if not parse_ids(tokens, <int64_t *>cnp.PyArray_DATA(a)):
                return False
        else:
            tokens = as_int64(tokens)
            if not (
                is_behaved_c(tokens) and cnp.PyArray_TYPE(tokens) == cnp.NPY_INT64
                and cnp.PyArray_NDIM(tokens) == 1
            ):
                return False
            a = tokens
        row.ids = <const int64_t *>cnp.PyArray_DATA(a)
        row.size = cnp.PyArray_SIZE(a)
        for i in range(row.size):
            good &= 0 <= row.ids[i] < n
        self.kept.append(a)
        return good


cdef bint parse_prompt(PastTokens *row, object prompt) except -1:
    """Take how many tokens of a row are its prompt; return whether that is ordinary."""
    if type(prompt) is not int or not 0 <= prompt <= row.size:
        return False
    row.prompt = prompt
    return True


cdef Histories parse_histories(const Plan *p, object ids, object prompt):
    """Return the tokens so far of the rows; None where they are not ordinary."""
    cdef Histories h = Histories.__new__(Histories)
    cdef Py_ssize_t r
    cdef bint good
    h.kept = []
    h.rows = &h.one
    h.n_rows = p.rows
    if p.ndim > 1:
        h.rows = <PastTokens *>allocate(p.rows, sizeof(PastTokens))
        if h.rows == NULL:
            raise MemoryError(f"no memory for the histories of {p.rows} rows")
    memset(h.rows, 0, (p.rows if p.ndim > 1 else 1) * sizeof(PastTokens))
    if type(ids) is History:
        h.history = ids
        good = h.history.rows == p.rows and type(prompt) is int and prompt == 0
        for r in range(p.rows if good else 0):
            good &= h.history.row[r].size == 0 or h.history.row[r].highest < p.n
        return h if good else None
    if p.ndim == 1:
        return h if h.add(h.rows, ids, p.n) and parse_prompt(h.rows, prompt) else None
    if type(ids) is tuple:
        ids = list(ids)
    if cnp.PyArray_CheckExact(ids) and cnp.PyArray_NDIM(ids) == 2:
        ids = [*ids]
    if type(ids) is not list or len(ids) not in (0, p.rows):
        return None
    if type(prompt) is int:
        prompt = [prompt] * p.rows
    if type(prompt) is not list or len(prompt) != p.rows:
        return None
    for r in range(p.rows):
        if len(ids) > 0 and not h.add(h.rows + r, ids[r], p.n):
            return None
        if not parse_prompt(h.rows + r, prompt[r]):
            return None
    return h


cdef class Uniforms:
    """The random numbers of a call: each row has its own, however many."""

    def __dealloc__(self):
        free(self.own)

    cdef int draw(
        self, const Plan *p, Program program, Py_ssize_t draws, rng, seed, position
    ) except -1:
        """Draw those for the steps of a program, and for so many draws, from where it is said."""
        cdef Py_ssize_t i
        cdef bint ragged = program.rows >= 0 and seed is None and position is None
        self.m = program.chances + draws
        self.data = &self.one
        if self.m == 0:
            return 0
        if not ragged:
            self.kept = independent_uniforms(p, self.m, rng, seed, position, &self.one)
        else:  # as many from the generator as the rows would take, one after the other
            self.own = <Py_ssize_t *>allocate(p.rows, sizeof(Py_ssize_t))
            if self.own == NULL:
                raise MemoryError(f"no memory for the uniforms of {p.rows} rows")
            for i in range(p.rows + 1):
                self.own[i] = program.first_uniforms[i] + i * draws
            self.first = self.own
            self.kept = values.generator(rng).random(self.own[p.rows])
        if self.kept is not None:
            self.data = <const double *>cnp.PyArray_DATA(self.kept)
        return 0

    cdef int take(self, list numbers) except -1:
        """Take those of the steps of a row."""
        self.kept = np.array(numbers, np.float64)
        self.data = <const double *>cnp.PyArray_DATA(self.kept)
        self.m = len(numbers)
        return 0

    def __getitem__(self, Py_ssize_t row):
        """Return those of a row."""
        cdef Py_ssize_t i, start = row * self.m, count = self.m
        if self.first != NULL:
            start = self.first[row]
            count = self.first[row + 1] - start
        return [self.data[i] for i in range(start, start + count)]
