"""Arrays that live on: calls that write into one another's arrays, in threads, with workers."""

import contextlib
import threading

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

import fastsoftmax

from . import arguments, programs
from .judge import FindingError, UnbuiltError, build, judge, run
from .world import NAMES, root

_SHAPES = [(7,), (3, 5), (4, 33), (2, 200), (60, 4), (3, 4, 5), (0, 3)]
#: A Generator of their own goes on from call to call.
_CHANCE = ("sample", "sample_with_logprobs", "verify", "quantized.sample")
_CHANCE += ("calibration.calibrate_sets", "calibration.prediction_sets")


class Machine(RuleBasedStateMachine):
    """Calls of one implementation on a few arrays; each is judged by the reference on copies."""

    impl = None
    counts = None

    def __init__(self):
        super().__init__()
        self.live = {}
        self.entered = []

    def teardown(self):
        """Leave what was entered."""
        while self.entered:
            self.entered.pop().__exit__(None, None, None)

    def _calls(self):
        """Return a strategy for calls that may be given the arrays.

        Modules' functions get no subclass: that goes to SciPy, which traps would end.
        """
        live = [(name, x.shape) for name, x in self.live.items()]
        plain = [known for known in live if type(self.live[known[0]]) is np.ndarray]
        return st.one_of(*[programs.calls(live=live)] * 5, programs.module_calls(plain))

    def _count(self, what):
        if self.counts is not None:
            self.counts[what] += 1

    @rule(name=st.sampled_from("abcd"), shape=st.sampled_from(_SHAPES), data=st.data())
    def make(self, name, shape, data):
        """Make an array of memory of its own."""
        text = data.draw(arguments.arrays(shape, dtypes=["f4", "f4", "f8", "f2"]))
        made = eval(text, NAMES)
        if isinstance(made, np.ndarray):
            self.live[name] = made

    @precondition(lambda self: self.live)
    @rule(name=st.sampled_from("efgh"), data=st.data())
    def overlap(self, name, data):
        """Make an array in another one's memory."""
        other = data.draw(st.sampled_from(sorted(self.live)))
        shape = data.draw(st.sampled_from([self.live[other].shape, *_SHAPES]))
        text = data.draw(arguments.outputs(shape, other))
        made = eval(text, {**NAMES, **self.live})
        if isinstance(made, np.ndarray) and root(made).dtype == np.uint8:
            self.live[name] = made

    @rule(workers=st.sampled_from([1, 2, 3, -1]))
    def enter_workers(self, workers):
        """Set how many threads calls may use."""
        self.entered.append(fastsoftmax.set_workers(workers))
        self.entered[-1].__enter__()

    @precondition(lambda self: self.entered)
    @rule()
    def leave_workers(self):
        """Go back to the number before."""
        self.entered.pop().__exit__(None, None, None)

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def call(self, data):
        """Call a function, whose `out` may be one of the arrays, or lie in its memory."""
        call = data.draw(self._calls())
        try:
            judge(call, self.impl, self.live)
        except UnbuiltError:
            return
        self._count(call.function)

    def _several(self, data):
        """Return some calls that write nothing but new arrays, and their arguments."""
        made = []
        for _ in range(3):
            call = data.draw(self._calls())
            call.arguments.pop("out", None)
            if not call.spoils():
                with contextlib.suppress(UnbuiltError):
                    made.append((call, build(call, self.live)))
        return made

    @precondition(lambda self: self.live)
    @rule(data=st.data())
    def call_in_threads(self, data):
        """Make some calls at once, many times: each gives the bits that it gives alone."""
        calls = [(c, g) for c, g in self._several(data) if c.function not in _CHANCE]
        alone = [run(self.impl, call.function, given) for call, given in calls]
        together = [[] for _ in calls]

        def work(i):
            for _ in range(5):
                together[i].append(run(self.impl, calls[i][0].function, calls[i][1]))

        _in_threads([lambda i=i: work(i) for i in range(len(calls))])
        for (call, _), want, answers in zip(calls, alone, together, strict=True):
            self._count(call.function)
            for got in answers:
                if _bits(got) != _bits(want):
                    raise FindingError(f"{call} in threads: {got}; alone: {want}")

    @precondition(lambda self: self.live)
    @rule(name=st.sampled_from("abcdefgh"), data=st.data())
    def call_while_overwritten(self, name, data):
        """Make some calls while another thread overwrites an array: wrong answers, no crash."""
        x = self.live.get(name)
        calls = self._several(data)
        if x is None or not x.flags.writeable or not x.size:
            return
        stop = threading.Event()
        noise = np.random.default_rng(0).integers(0, 256, root(x).size, np.uint8)

        def overwrite():
            bits = [noise.view(x.dtype)[0], x.dtype.type(0), x.dtype.type(np.inf)]
            i = 0
            while not stop.is_set():
                x.view(np.ndarray)[...] = bits[i % 3]
                i += 1

        def work():
            try:
                for _ in range(5):
                    for call, given in calls:
                        run(self.impl, call.function, given)
                        self._count(call.function)
            finally:
                stop.set()

        _in_threads([overwrite, work])


def _in_threads(functions):
    threads = [threading.Thread(target=f) for f in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _bits(answer):
    result, error = answer
    if error is not None:
        return type(error), str(error)
    results = result if isinstance(result, tuple) else (result,)
    return [(np.asarray(a).dtype, np.shape(a), np.asarray(a).tobytes()) for a in results]
