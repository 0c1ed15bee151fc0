"""Inputs that coverage guides (atheris), where it is installed: it sees the Python part."""

import contextlib
import sys
import tempfile
import warnings
from pathlib import Path


def guided(options):
    """Try inputs until the time is up or one is a finding, which ends the process."""
    import atheris
    import numpy as np

    with atheris.instrument_imports(include=["fastsoftmax"]):
        import fastsoftmax  # noqa: F401
    from hypothesis import given

    from fastsoftmax import _dispatch

    from .batch import quick
    from .judge import UnbuiltError, judge
    from .programs import anything

    warnings.simplefilter("error")
    impl = _dispatch.load(options.impl or "avx2")

    @quick(1)
    @given(anything)
    def one(call):
        with contextlib.suppress(UnbuiltError):
            judge(call, impl)

    with tempfile.TemporaryDirectory() as corpus:
        rng = np.random.default_rng(options.seed)
        for i in range(200):  # short inputs end in the middle of a call, which is none
            Path(corpus, str(i)).write_bytes(rng.bytes(int(rng.integers(100, 3000))))
        words = [f"-max_total_time={int(options.minutes * 60)}", "-max_len=4000", corpus]
        atheris.Setup([sys.argv[0], *words], one.hypothesis.fuzz_one_input)
        atheris.Fuzz()
