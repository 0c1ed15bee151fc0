"""Inputs that coverage guides (atheris), where it is installed: it sees the Python part."""

import contextlib
import sys
import warnings


def guided(options):
    """Try inputs until the time is up or one is a finding, which ends the process."""
    import atheris

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

    seconds = int(options.minutes * 60)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}"], one.hypothesis.fuzz_one_input)
    atheris.Fuzz()
