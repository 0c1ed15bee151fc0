"""Every call of `tests.calls` on arrays between two pages that nobody may touch (run as a child).

Inputs, second inputs and `out` lie each in pages of their own, flush with the first or the last
byte of them, so that a read or write outside ends the process.
"""

import ctypes
import faulthandler
import itertools
import mmap
import types

import numpy as np

from fastsoftmax import _dispatch
from tests import calls

ALL = range(1, 131)
#: The ends of a vector, of a block of them and of a page of four-byte numbers' blocks, and beside.
SOME = (1, 2, 3, 7, 9, 15, 17, 31, 33, 63, 65, 100, 127, 130)
FEW = (1, 33)  # by default
DTYPES = ("float32", "float64", "float16")
STRIDES = (1, 2, -1)
ENDS = ("first", "last")
ROWS = 9  # a batch of the kernels that work on several at once, and one that is not whole strips
PAGES = 5  # of 4 KiB: those rows of 130 float64 that lie two apart


def temperatures(x):
    """Return a temperature for each row of x."""
    return np.linspace(0.5, 2, x.size // x.shape[-1]).reshape(x.shape[:-1])


def ids(x):
    """Return the first, the last and a middle class for each row of x."""
    n = x.shape[-1]
    return np.broadcast_to([0, n - 1, n // 2], (*x.shape[:-1], 3))


def weights(x):
    """Return a weight for each class of x."""
    return np.ones(x.shape[-1], x.dtype)


def drafts(x):
    """Return the first and the last id of each row of x."""
    return np.broadcast_to([0, x.shape[-1] - 1], (*x.shape[:-1], 2))


def other_rows(x):
    """Return rows in place of those of x."""
    return np.cos(np.arange(x.size)).reshape(x.shape).astype(x.dtype)


def scores(x):
    """Return scores of two beams for each row of x."""
    return np.zeros((*x.shape[:-1], 2))


def parts(f, x, any_pivot):
    """Do with a part of rows what `fastsoftmax.dask` does, with a temperature a row and a mask."""
    f, t, where = f.impl.parts, temperatures(x), calls.mask(x)
    f.part_result(x, f.part_sums(x, -1, t, None, any_pivot), -1, t, None, any_pivot)
    f.part_result(x, f.part_sums(x, -1, 1.0, where, any_pivot), -1, 1.0, where, any_pivot)


#: Calls with second inputs of other shapes, beside those of `CALLS`.
MORE = {
    "softmax temperatures": lambda f, x: f.softmax(x, temperature=temperatures(x)),
    "logsumexp parts": lambda f, x: parts(f, x, False),
    "logsumexp parts by a pivot": lambda f, x: parts(f, x, True),
    "sample temperatures": lambda f, x: f.sample(
        x, temperature=temperatures(x), top_p=0.9, rng=0, on_invalid="flag"
    ),
    "rank ids": lambda f, x: f.rank(x, ids(x)),
    "token_logprobs ids": lambda f, x: f.token_logprobs(x, ids(x), temperature=temperatures(x)),
    "verify drafts": lambda f, x: f.verify(
        drafts(x), calls.blocks(x, 3), calls.blocks(other_rows(x), 2), top_k=5, seed=1, position=2,
        on_invalid="flag",
    ),
    "beam_step scores": lambda f, x: f.beam_step(calls.blocks(x, 2), scores(x), 1),
    "cross_entropy weight": lambda f, x: f.cross_entropy(
        x, calls.classes(x), weight=weights(x), reduction="none"
    ),
}
CALLS = calls.CALLS | MORE

#: The functions that give second inputs, by the names that the calls look them up by.
SECONDS = (
    (vars(calls), ("classes", "labels", "mask", "words", "other", "codes", "signed")),
    (vars(calls), ("drafts", "running")),
    (globals(), ("temperatures", "ids", "weights", "drafts", "other_rows", "scores")),
)

#: Functions that take `out`, of the shape and dtype of their first argument.
WITH_OUT = {
    "softmax",
    "log_softmax",
    "filter_logits",
    "cross_entropy_with_grad",
    "softmax_backward",
    "log_softmax_backward",
}


# ---- memory --------------------------------------------------------------------------------------


class Room:
    """Pages between two that nobody may touch."""

    def __init__(self):
        page = mmap.PAGESIZE
        self.size = PAGES * max(4096, page)
        self.memory = mmap.mmap(-1, self.size + 2 * page)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        protect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        for guard in (start, start + page + self.size):
            if protect(guard, page, 0):
                raise OSError(ctypes.get_errno(), "mprotect")
        self.bytes = np.frombuffer(self.memory, np.uint8)[page : page + self.size]

    def place(self, x, stride, end):
        """Return a copy of x in this room, its last axis `stride` apart, flush with an end."""
        step = abs(stride)
        size = ((x.size - 1) * step + 1) * x.itemsize
        offset = 0 if end == "first" else self.size - size
        strides = [step * s for s in np.empty(x.shape, x.dtype).strides]
        view = np.ndarray(x.shape, x.dtype, self.bytes, offset, strides)
        if stride < 0 and x.ndim:
            view = view[..., ::-1]
        view[...] = x
        return view


class Placed:
    """An implementation as calls see it: `out` is what `out` of this object makes of x, if any."""

    def __init__(self, impl):
        self.impl = impl
        self.out = None

    def __getattr__(self, name):
        function = getattr(self.impl, name)
        if self.out is None:
            return function
        return lambda x, *args, **kwargs: function(x, *args, out=self.out(x), **kwargs)


# ---- calls ---------------------------------------------------------------------------------------


def run(impl, names, lengths):
    """Call `names` on rows of `lengths` in every place; return how many calls that were."""
    first, last = Room(), Room()
    placed = Placed(impl)
    where = {}  # the stride and end that hold for the arrays of a call

    def between(function):
        room = Room()  # a call may have two second inputs
        return lambda x: room.place(np.asarray(function(x)), **where)

    for space, givers in SECONDS:
        space.update({name: between(space[name]) for name in givers})
    numbers = np.random.default_rng(0).standard_normal((ROWS, max(lengths)))
    count = 0
    for name, dtype, stride, end in itertools.product(names, DTYPES, STRIDES, ENDS):
        print("in", name.replace(" ", "-"), dtype, stride, end, flush=True)
        where.update(stride=stride, end=end)
        outs = [None]
        if name.split()[0] in WITH_OUT:
            outs += [lambda x: last.place(x, **where), lambda x: x]
        for n in lengths:
            shapes = numbers[0, :n], numbers[:2, :n], numbers[:, :n]
            # Rows that are packed first are packed alike: one of the shapes is enough of each.
            for x in shapes if stride == 1 else [shapes[n % 3]]:
                x = x.astype(dtype)
                for placed.out in outs:
                    CALLS[name](placed, first.place(x, **where))
                    count += 1
    return count


# ---- faults --------------------------------------------------------------------------------------


def read_beyond(x, **_):
    """Read the element after the last."""
    ctypes.string_at(x.ctypes.data + x.nbytes, x.itemsize)


def read_mask_before(x, where, **_):
    """Read the byte before the first of the second input."""
    ctypes.string_at(where.ctypes.data - 1, 1)


def write_beyond(x, out=None, **_):
    """Write the element after the last of `out`."""
    if out is not None:
        ctypes.memset(out.ctypes.data + out.nbytes, 0, out.itemsize)


#: Functions with a fault, each as one of the calls.
FAULTS = {
    "read": ("softmax", read_beyond),
    "read of a second input": ("softmax where", read_mask_before),
    "write": ("softmax", write_beyond),
}


def main(name, names, lengths, fault=None):
    """Run `names`, or all calls, of the implementation `name`, or a planted fault."""
    faulthandler.enable()
    impl = _dispatch.load(name)
    if fault is not None:
        call, function = FAULTS[fault]
        names, impl = [call], types.SimpleNamespace(softmax=function)
    print("survived", run(impl, names or list(CALLS), lengths))
