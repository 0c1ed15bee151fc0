"""Calls of the modules beside the functions: 8-bit logits, SciPy's three, calibration."""

from hypothesis import strategies as st

from .arguments import OTHERS, argument, arrays, axes, ids, per_row, shapes, sizes_of, texts
from .world import words

NAMES = words("""
quantized.softmax quantized.log_softmax quantized.top_k quantized.sample
scipy.softmax scipy.log_softmax scipy.logsumexp
calibration.fit_temperature calibration.calibrate_sets calibration.prediction_sets
""")

_scales = texts(0.1, 0.1, 0.003, 1.0, 7, 1e-9, 1e300, 5e-324, "np.float32(0.3)", "np.array(0.5)")
_zeros = texts(0, 0, 128, -5, 300, 2**40, "np.uint8(3)")
_small = texts(1.0, 0.5, 2, "np.float32(0.7)", 1e-3, 1e9)


@st.composite
def quantized(draw, function, shape):
    """Return arguments of a function of ``fastsoftmax.quantized``."""
    axis = draw(texts(-1, -1, 0, *range(len(shape)))) if function != "sample" else "-1"
    n, rows = sizes_of(shape, axis)
    given = {"q": draw(arrays(shape, dtypes=["u1", "i1"]))}
    if function == "top_k":
        given["k"] = draw(st.integers(0, max(0, n)).map(str))
    given |= {"scale": draw(per_row(_scales, rows)), "zero_point": draw(per_row(_zeros, rows))}
    if function == "sample":
        for name in ("top_k", "top_p", "min_p"):
            if draw(st.booleans()):
                given[name] = draw(argument("sample", name, shape, given))
        return given | {"rng": draw(OTHERS["rng"])}
    given["axis"] = axis
    if function != "top_k":
        given["temperature"] = draw(argument(function, "temperature", shape, given))
    return given


@st.composite
def scipy(draw, function, shape):
    """Return arguments that ``fastsoftmax.scipy`` computes itself."""
    first = "a" if function == "logsumexp" else "x"
    given = {first: draw(arrays(shape)), "axis": draw(axes(len(shape)))}
    if function == "logsumexp":
        given |= {name: draw(OTHERS[name]) for name in ("keepdims", "return_sign")}
        if draw(st.booleans()):
            given["b"] = draw(arrays(shape))
    # What NumPy's subclasses go to is SciPy's.
    return {name: text.replace("'subclass'", "'C'") for name, text in given.items()}


@st.composite
def calibration(draw, function, shape):
    """Return arguments of a function of ``fastsoftmax.calibration``."""
    n, rows = sizes_of(shape, "-1")
    given = {"logits": draw(arrays(shape))}
    if function == "prediction_sets":
        lam, t, chance = draw(texts(0.0, 0.013)), draw(_small), draw(texts(True, False))
        given["calibration"] = f"(0.75318, {n}, {draw(texts(0, 2))}, {lam}, float({t}), {chance})"
        return given | {"include_last": draw(texts("False", "True")), "rng": draw(OTHERS["rng"])}
    given["labels"] = draw(ids(n, rows))
    if function == "fit_temperature":
        return given | {"bounds": draw(texts("None", "(0.1, 10)", "(1e-3, 1e3)", "[1.0, 1.0]"))}
    given["alpha"] = draw(texts(0.5, 0.1, 0.37, 0.99))
    if draw(st.booleans()):
        given |= {"method": "'raps'", "k_reg": draw(texts(0, 1, 5)), "lam": draw(texts(0, 0.01, 1))}
    given["temperature"] = draw(_small)
    return given | {"randomized": draw(texts("True", "False")), "rng": draw(OTHERS["rng"])}


def arguments_of(module, function, shape):
    """Return a strategy for the arguments of a module's function."""
    return {"quantized": quantized, "scipy": scipy, "calibration": calibration}[module](
        function, shape
    )


@st.composite
def of_modules(draw, live=()):
    """Return the name of a module's function, and its arguments; `live` as `programs.calls`."""
    name = draw(st.sampled_from(NAMES))
    known = draw(st.sampled_from(live)) if live and not name.startswith("quantized.") else None
    given = draw(arguments_of(*name.split("."), known[1] if known else draw(shapes)))
    if known:
        given[next(iter(given))] = known[0]
    return name, given
