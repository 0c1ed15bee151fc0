"""What is promised of every public function: layouts, warnings, inputs, subclasses, the GIL."""

import re
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from fastsoftmax import _docs
from tests.arrays import LAYOUTS, Subclass, dtype_of
from tests.calls import CALLS, arrays, bits
from tests.modules import ELSEWHERE, public_names

ROOT = Path(__file__).parents[2]
SHAPES = ((3, 7), (70, 9), (4, 1030))

call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


def call_but(*beginnings):
    """Give a test every call whose name does not begin so."""
    some = {name: call for name, call in CALLS.items() if not name.startswith(beginnings)}
    return pytest.mark.parametrize("call", some.values(), ids=some)


#: Arrays of other classes and dtypes go on to SciPy, as they are.
call_but_scipy = call_but("scipy.")
#: A fit takes a row at least.
call_but_fits = call_but("calibration.fit_temperature", "calibration.calibrate_sets")


def numbers(shape, dtype="float32"):
    x = np.random.default_rng(shape[-1]).standard_normal(shape) * 2
    return x.astype(dtype_of(dtype))


def shapes(impl):
    """Return shapes of what an implementation has regimes for."""
    return SHAPES if impl.NAME != "reference" else SHAPES[:1]


# ---- layouts -------------------------------------------------------------------------------------


def test_no_function_is_forgotten():
    parts = {"parts"}  # what `fastsoftmax.dask` calls
    assert {name.split()[0] for name in CALLS} - parts == public_names()
    assert set(_docs.FUNCTIONS) <= public_names()
    for path in ELSEWHERE.values():
        assert (ROOT / path).exists(), path


@pytest.mark.slow_reference
@call
def test_a_layout_changes_no_bit(impl, call, request):
    by_scipy = "scipy." in request.node.name
    for dtype in ("float32", "float16", "float64", "bfloat16", "int16"):
        for shape in shapes(impl):
            x = numbers(shape, dtype)
            plain = bits(call(impl, x))
            for layout, view in LAYOUTS.items():
                if "byte-swapped" in layout and dtype == "bfloat16":
                    continue  # ml_dtypes has the machine's order alone
                if layout == "subclass" and by_scipy:
                    continue
                assert bits(call(impl, view(x))) == plain, (dtype, shape, layout)


@pytest.mark.slow_reference
@call
def test_rows_that_are_one_row_again_and_again(impl, call):
    for n in (7, 300):
        x = np.broadcast_to(numbers((1, n)), (5, n))
        assert bits(call(impl, x)) == bits(call(impl, x.copy()))


@call
def test_the_input_is_not_written(impl, call):
    for dtype in ("float32", "float16", "float64"):
        for shape in shapes(impl):
            x = numbers(shape, dtype)
            before = x.copy()
            for a in arrays(call(impl, x)):
                assert not np.shares_memory(a, x)
            assert x.tobytes() == before.tobytes()


@call_but_scipy
def test_a_subclass_comes_back_as_an_array(impl, call):
    x = numbers((3, 7))
    results = call(impl, x.view(Subclass))
    assert {type(a) for a in arrays(results)} == {np.ndarray}
    assert bits(results) == bits(call(impl, x))


# ---- values --------------------------------------------------------------------------------------


@call
def test_no_warning(impl, call):
    """Warnings are errors in these tests; what is no probability may be refused by name."""
    for dtype in ("float16", "float32", "float64", "bfloat16"):
        for bad in (0.0, -np.inf, np.nan, np.inf):
            check_no_warning(impl, call, dtype, bad)


def check_no_warning(impl, call, dtype, bad):
    kind = np.dtype(dtype_of(dtype))
    info = np.finfo(dtype) if kind.kind == "f" else pytest.importorskip("ml_dtypes").finfo(kind)
    ends = [info.max, -info.max, info.tiny, info.smallest_subnormal, -0.0, 1.0]
    for n in (6, 100) if impl.NAME != "reference" else (6,):
        x = np.resize(np.array(ends, kind), (3, n))
        x[1] = bad
        x[2, 0] = bad
        try:
            call(impl, x)
        except ValueError as error:
            assert bad != 0 or "not within 1e+100" in str(error)  # noqa: PT017
            assert "row" in str(error)  # noqa: PT017


@call
def test_no_dimensions(impl, call):
    x = np.float32(1.5)
    got, want = call(impl, np.array(x)), call(impl, np.array([x]))
    assert [a[2] for a in bits(got)] == [a[2] for a in bits(want)]


@call_but_fits
def test_no_rows(impl, call, request):
    columns = "columns" in request.node.callspec.id
    for a in arrays(call(impl, np.zeros((5, 0) if columns else (0, 5), np.float32))):
        assert np.size(a) == 0
        assert a.ndim >= 1


@call_but_scipy
def test_other_dtypes_are_named(impl, call):
    for dtype in ("complex64", "object", "U3", "S3", "datetime64[s]"):
        with pytest.raises(TypeError, match=re.escape(f"dtype {np.dtype(dtype)}")):
            call(impl, np.zeros((3, 7), dtype))


@call_but_scipy
def test_masked_arrays_and_matrices_are_refused(impl, call):
    with pytest.raises(TypeError, match=r"masked array; pass \w+\.filled\(value\)"):
        call(impl, np.ma.array(numbers((3, 7))))
    with pytest.raises(TypeError, match="matrix"):
        call(impl, numbers((3, 7)).view(np.matrix))


# ---- threads -------------------------------------------------------------------------------------


@pytest.mark.best_alone
@pytest.mark.slow_modules
@call
def test_another_thread_runs_during_the_work(compiled, call):
    """No thread is told to give way: the other one runs only once the call lets go of the GIL."""
    x = numbers((64, 30_000))
    go, ran, done = threading.Event(), [], []

    def other():
        while not done:
            go.wait()
            ran.append(True)
            go.clear()

    thread = threading.Thread(target=other)
    thread.start()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(100)
    try:
        for _ in range(400):  # on a busy machine it may wake up too late
            ran.clear()
            go.set()
            call(compiled, x)
            if during := bool(ran):
                break
    finally:
        sys.setswitchinterval(interval)
        done.append(True)
        go.set()
        thread.join()
    assert during
