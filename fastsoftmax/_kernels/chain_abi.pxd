# cython: language_level=3
"""What the front and the kernels agree on for chains: the steps of a `Sampler` as a small program.

A chain is run row by row: its steps in their order, then a draw from what they have left.
"""

from libc.stdint cimport int64_t

from fastsoftmax._kernels.abi cimport PackedRows, Race
from fastsoftmax._kernels.history cimport STATE, HistoryRow

cdef enum ChainOp:  # what each needs of a ChainStep beside `min_keep`
    TEMPERATURE  # a
    REPETITION_PENALTY  # a, last, prompt, ids: those exempt
    FREQUENCY_PENALTY  # a, last, prompt, ids: those exempt
    PRESENCE_PENALTY  # a, last, prompt, ids: those exempt
    LOGIT_BIAS  # ids, values
    SUPPRESS_TOKENS  # ids
    ALLOWED_TOKENS  # ids
    TOP_K  # k, every_tie
    TOP_P  # a
    MIN_P  # a, log_a
    TYPICAL_P  # a, every_tie
    TOP_N_SIGMA  # a
    EPSILON  # a
    ETA  # a
    XTC  # a: the threshold, b: the probability, ids: those exempt
    SOFT_CAP  # a
    DYNAMIC_TEMPERATURE  # a, b: the range, c: the exponent
    ADAPTIVE_P  # a: the target, b: the decay; has a state
    # Those that become plain steps for each row:
    MIN_LENGTH  # k, prompt, ids
    BAD_WORDS  # prompt, sequences and a value for each, by their last ids
    SEQUENCE_BIAS  # as BAD_WORDS
    NO_REPEAT_NGRAM  # k
    DRY  # a, b: the base, k, last, sequences: the breakers, ids: those exempt
    MIROSTAT  # a: tau, b: eta; has a state

cdef struct ChainStep:
    int op  # ChainOp
    double a
    double b
    double c
    double log_a  # -inf for 0
    Py_ssize_t k
    Py_ssize_t min_keep
    Py_ssize_t last  # tokens to look back on, -1 for all
    bint prompt  # whether the prompt's tokens count
    bint every_tie
    Py_ssize_t n_ids
    const int64_t *ids  # ascending
    const double *values
    Py_ssize_t n_sequences  # of ids, one behind the other
    const Py_ssize_t *starts  # of each, and where the last one ends
    const int64_t *sequences

cdef struct PastTokens:
    const int64_t *ids  # the oldest first; may change meanwhile: those outside the row are none
    Py_ssize_t size
    Py_ssize_t prompt  # how many of them, from the first, are the prompt
    const HistoryRow *kept  # the same with their counts and places, NULL if nothing keeps those
    double state[STATE]  # what a step with a state knows after them, the first n_state numbers
    int n_state

cdef struct NextState:  # of a step after the id that is drawn
    int64_t id
    double numbers[STATE]
    int count  # 0: the row has no such step, or no id

cdef struct Left:  # what is left of a row, in the order of the ids
    Py_ssize_t count
    int64_t *ids  # to be freed, and the scores with them; NULL if there is nothing
    double *scores

cdef struct ChainReport:  # of the ids drawn; those that are void of the logits' type
    void *logprobs
    void *filtered
    int64_t *rank
    void *entropy
    Py_ssize_t n_top
    void *top_logprobs  # n_top a row
    int64_t *top_ids

cdef struct ChainCall:
    int dtype  # DType
    Py_ssize_t n
    const PackedRows *packed  # NULL: rows come as they are
    const ChainStep *steps
    Py_ssize_t n_steps
    const Py_ssize_t *starts  # one a row, and one: which steps are each row's; NULL: all of them
    const PastTokens *history  # one a row
    const double *uniforms  # of a row: one for each XTC in order, and one for the draw if no race
    const Py_ssize_t *first_uniforms  # one a row: where its uniforms begin; NULL: m a row
    Py_ssize_t m
    const Race *race  # what is drawn by, NULL: by the uniforms
    bint filters  # write the scores that are left into the result's rows, in place of drawing;
    Left *left  # or what is left of the only row, unless this is NULL
    bint reports
    ChainReport report
    bint resolves  # whether there are steps that become others for each row
    NextState *states  # one a row, to be written; NULL if no step has one
    int64_t *ids  # -1 for a row that the readable chain is to run: it is invalid, as a rule
