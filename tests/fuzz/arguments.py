"""The text of each argument, as hypothesis strategies: good values, and what none should be."""

import math

from hypothesis import strategies as st

from .world import ml_dtypes, words

# ---- arrays --------------------------------------------------------------------------------------

FLOATS = ["f4", "f4", "f8", "f2"] + ["bfloat16"] * (ml_dtypes is not None)
INTEGERS = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?", "longlong", "ulonglong"]
REFUSED = ["g", "c8", "c16", "G", "O", "S3", "U2", "M8[s]", "m8[s]", "i4,f4", "V5"] + [
    "float8_e4m3fn",
    "int4",
] * (ml_dtypes is not None)
FILLS = words(
    "normal normal normal ties constant ascending peaked wide tiny probabilities nan inf -inf huge "
    "zeros specials signaling"
)
LAYOUTS = words(
    "C C C C F spaced reversed transposed misaligned swapped subclass read-only repeated"
)
LAYOUTS += ["repeated rows"]

_short = st.integers(0, 40)
_lengths = st.one_of(
    st.integers(1, 9), _short, st.integers(40, 300), st.sampled_from([512, 1025, 4096])
)
shapes = st.one_of(
    st.tuples(_lengths),
    st.tuples(st.integers(0, 9), _lengths),
    st.tuples(st.integers(1, 9), _lengths),
    st.tuples(_lengths, st.integers(1, 9)),
    st.tuples(st.integers(0, 4), st.integers(1, 4), _short),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.sampled_from([(), (0,), (0, 0), (3, 0), (0, 3), (1, 1, 1, 1, 1, 1, 1, 2), (2,) * 7]),
).filter(lambda shape: math.prod(shape) <= 20_000)
HUGE = (1 << 50, 3)


@st.composite
def arrays(draw, shape, dtypes=None, fills=None, refused=False):
    """Return the text of an array."""
    if refused:
        dtype = draw(st.sampled_from(REFUSED))
    else:
        dtype = draw(st.sampled_from(dtypes or FLOATS * 4 + INTEGERS))
    fill = draw(st.sampled_from(fills or FILLS))
    layout = draw(st.sampled_from(LAYOUTS))
    seed = draw(st.integers(0, 255))
    text = f"array({shape}, {dtype!r}, {fill!r}, {seed}, {layout!r})"
    if math.prod(shape) <= 64 and draw(st.integers(0, 24)) == 7:
        text += ".tolist()"
    return text


# ---- what no argument should be ------------------------------------------------------------------

EVIL = words("""
None True False np.True_ 'x' b'1' '' 1j nan -nan -1 -1.0 -inf inf 0 1 2 3 0.5 -0.0 1e308 5e-324
10**400 -10**400 10**5000 2**31 2**53 2**63 2**64 -2**63 -2**63-1 np.float32(nan) np.float64(-inf)
np.uint64(2**64-1) np.int8(-1) np.int64(-2**63) np.longdouble('1e4000') np.longdouble(1)
np.complex64(1) np.str_('a') np.datetime64('2020') np.timedelta64(3) np.array(3) np.array(0.5)
np.array(nan) np.array('x') np.array(None) np.array([]) np.array([1.0,2.0]) np.array([[1]])
np.array(True) np.ma.array(1.0) np.ma.array([1.0,2.0],mask=[0,1]) np.matrix([[1.0]])
np.float16(0.5) np.void(b'abc') [] () {} set() [1.0,True] [True,False] [True] [0,True]
[[1.0],[2.0,3.0]] [None] ['a'] [nan] [10**400] [2**63,-1] [2**64,0.5] [[]] [[[[1]]]] [np.True_,1]
(1,2) (0,0) (0,1) range(3) Ellipsis slice(2) float len NotImplemented Fraction(1,3)
Fraction(10**400) Decimal('0.5') Decimal('nan') 'a'*10000 [1]*10000 bytearray(8)
memoryview(b'abcdefgh') object() iter([1]) lambda:0 np.random.default_rng(0)
np.random.RandomState(0) np.dtype('f4') np.nan np.newaxis broken('__array__') broken('__index__')
broken('__float__') broken('__bool__') broken('__len__')
broken('__len__','__iter__','__getitem__') broken('__int__') broken('__repr__') broken('__iter__')
broken('__array__','__index__','__float__','__bool__') broken('__getattribute__') broken('__eq__')
broken('__array_interface__') broken('__hash__') broken('__array_struct__') lies('__index__','a')
lies('__index__',1.5) lies('__index__',-5) lies('__index__',2**70) lies('__float__','a')
lies('__float__',nan) lies('__array__',None) lies('__array__',3) lies('__array__',np.array('a'))
lies('__array__',np.zeros((1,2,3,4))) lies('__bool__',2) lies('__len__',-1) lies('__len__',2**70)
lies('__array_interface__',{}) lies('__repr__',None) spoils(1,'values',*GIVEN)
spoils(1.5,'values',*GIVEN) spoils(1,'shape',*GIVEN) spoils(0.5,'shape',*GIVEN)
spoils(1,'dtype',*GIVEN) spoils(0.5,'dtype',*GIVEN) spoils(1,'read-only',*GIVEN)
spoils(0.5,'read-only',*GIVEN) spoils(1,'size',*GIVEN) spoils(0.5,'size',*GIVEN)
spoils([1.0],'shape',*GIVEN) spoils([0],'dtype',*GIVEN)
""")
evil = st.sampled_from(EVIL)


# ---- arguments -----------------------------------------------------------------------------------


def texts(*values):
    """Return a strategy for some texts."""
    return st.sampled_from([str(v) for v in values])


@st.composite
def per_row(draw, one, rows):
    """Return the text of one number, or of an array of one for each row."""
    if draw(st.integers(0, 3)) < 3 or not rows:
        return draw(one)
    shape = draw(st.sampled_from([rows, rows[-1:], (1,) * len(rows), (*rows[:-1], 1)]))
    count = math.prod(shape)
    if count > 400:
        return draw(one)
    values = [draw(one) for _ in range(min(count, 3))]
    values = [v for v in values if v != "None" and "array" not in v] or ["1"]
    cycle = ", ".join(values[i % len(values)] for i in range(count))
    return f"np.array([{cycle}]).reshape({shape})"


def axes(ndim):
    """Return a strategy for an axis, or several."""
    one = st.integers(-max(1, ndim), max(1, ndim) - 1)
    several = st.lists(st.integers(0, max(0, ndim - 1)), unique=True, max_size=3).map(tuple)
    names = [one.map(str)] * 3 + [several.map(str), texts("None"), one.map("np.int64({})".format)]
    return st.one_of(texts("-1"), texts("-1"), *names)


temperatures = st.one_of(
    texts("1.0"),
    texts(0, 1, 2, 0.5, 0.7, 1.3, 10, "np.float32(0.7)", "np.array(0.5)", "inf"),
    texts(1e-3, 1e-30, 5e-324, 1e30, 1e308, "10**300", "np.float16(2)", "Fraction(1, 3)"),
)
counts = texts("None", 0, 1, 1, 2, 3, 5, 17, 40, 100, 1000, 2**62, 10**30, "np.int32(2)")
shares = texts("None", 0, 0.0, 1, 1.0, 0.5, 0.9, 0.1, 0.999, 1e-9, "np.array(0.3)")
seeds = st.one_of(
    st.integers(-(2**63), 2**64 - 1).map(str), texts(0, -1, "np.uint64(2**64-1)", "np.int8(-3)")
)


def sizes_of(shape, axis_text):
    """Return the reduced length and the other lengths, for an axis that is one integer."""
    try:
        axis = int(axis_text)
        shape = shape or (1,)
        kept = list(shape)
        n = kept.pop(axis)
    except (ValueError, IndexError):
        return (shape or (1,))[-1], tuple((shape or (1,))[:-1])
    return n, tuple(kept)


@st.composite
def targets(draw, shape, axis_text):
    """Return the text of targets: classes, or probabilities."""
    n, rows = sizes_of(shape, axis_text)
    if draw(st.integers(0, 3)) == 0:
        return draw(arrays(shape, fills=["probabilities", "probabilities", "normal", "zeros"]))
    return draw(ids(n, rows))


@st.composite
def ids(draw, n, rows, many=False):
    """Return the text of ids from 0 to n - 1; a few are out of range."""
    shape = (*rows, draw(st.integers(0, 5))) if many and draw(st.booleans()) else rows
    seed = draw(st.integers(0, 99))
    dtype = draw(st.sampled_from(["i8", "i8", "i4", "u1", "u8", ">i8", "i2"]))
    high = min(max(1, n), 100)
    text = f"np.random.default_rng({seed}).integers({high}, size={shape}).astype({dtype!r})"
    if math.prod(shape) == 0 or high == 0:
        return text
    change = draw(st.integers(0, 15))
    if change == 0 and math.prod(shape) <= 50:
        return f"{text}.tolist()"
    if change == 1 and dtype[-2] == "i":
        return f"np.where({text} == 0, -100, {text})"
    if change == 2:
        return f"{text} + {draw(st.sampled_from([n, 2**31, -1, -high]))}"
    if change == 3 and len(shape) == 1 and math.prod(shape) <= 50:
        value = draw(texts("True", "2**70", "np.True_", "0.5", "None", "nan", "-1", "'0'"))
        return f"[{value}, *{text}.tolist()[1:]]"
    return text


@st.composite
def outputs(draw, shape, name):
    """Return the text of `out`: apart, in place, overlapping, of another type or shape."""
    kind = draw(st.integers(0, 9))
    if kind < 3:
        return "None"
    if kind < 5:
        return draw(arrays(shape, dtypes=FLOATS, fills=["normal"]))
    dtype = draw(st.sampled_from(["None", "None", "'f4'", "'f8'", "'f2'"]))
    if kind < 7:
        return f"over({name}, 0, {dtype})"
    shift = draw(st.sampled_from([0, 4, 8, -4, -8, 1, -1, 16, 64, -64, 2]))
    layout = draw(st.sampled_from(["C", "F", "spaced", "reversed", "transposed", "repeated rows"]))
    other = draw(st.sampled_from([shape, shape, shape, shape[::-1], shape[1:]]))
    return f"over({name}, {shift}, {dtype}, {other}, {layout!r})"


@st.composite
def masks(draw, shape, name):
    """Return the text of `where`; `name` is the array that it is for."""
    kind = draw(st.integers(0, 7))
    if kind < 4:
        return "None"
    if kind == 4:
        return f"over({name}, 0, '?')"
    if kind == 5:
        return draw(st.sampled_from(["True", "False", "[True]", "np.False_"]))
    part = shape[draw(st.integers(0, len(shape))) :] if shape else shape
    seed, p = draw(st.integers(0, 99)), draw(st.sampled_from([0.0, 0.1, 0.5, 0.9, 1.0]))
    return f"np.random.default_rng({seed}).random({part}) < {p}"


def of_blocks(name, shape):
    """Return a strategy for what is particular to `verify` and `beam_step`, of logits of `shape`.

    None if it is nothing.
    """
    shape = (1,) * (2 - len(shape)) + shape
    *batch, length, n = shape
    drafts = (*batch, max(0, length - 1))
    if name == "draft_ids":
        return st.one_of(ids(n, drafts), ids(n, drafts).map("{} - 1".format))
    if name == "draft_logits":
        return st.one_of(texts("None"), arrays((*drafts, n)))
    if name == "scores":
        return arrays(shape[:-1], fills=["normal", "normal", "ties", "zeros", "-inf", "nan"])
    if name == "beams":
        return st.integers(0, max(0, min(length * n, 50))).map(str)
    if name == "length":
        return per_row(texts(1, 2, 7, 1.5, "np.int32(3)"), shape[:-1])
    return texts("0.0", 0, 1, 0.6, -1) if name == "length_penalty" else None


def argument(function, name, shape, given):
    """Return a strategy for the text of a good argument, after the texts `given` before it."""
    n, rows = sizes_of(shape, given.get("axis", "-1"))
    if function in ("verify", "beam_step"):
        if (found := of_blocks(name, shape)) is not None:
            return found
        rows = rows[:-1]
    if name in ("x", "logits", "grad_output", "probs", "log_probs", "b", "other"):
        fills = ["probabilities", "normal"] if name == "probs" else None
        return arrays(shape, fills=fills)
    if name == "out":
        return outputs(shape, next(iter(given)))
    if name in ("where", "mask"):
        return masks(shape, next(iter(given)))
    if name == "axis":
        one = function in ("top_k", "row_stats", "cross_entropy", "cross_entropy_with_grad")
        return axes(len(shape)) if not one else texts(-1, -1, 0, *range(len(shape)))
    if name == "targets":
        return targets(shape, given.get("axis", "-1"))
    if name == "ids":
        return ids(n, rows, many=True)
    if name == "weight":
        fills = ["probabilities", "constant", "zeros"]
        return st.one_of(texts("None"), arrays((n,), dtypes=["f8", "f4", "i8"], fills=fills))
    if name == "temperature":
        if function.startswith("cross_entropy"):
            return temperatures
        if "axis" in given:
            try:
                kept = [s for a, s in enumerate(shape) if a != int(given["axis"]) % len(shape)]
                return per_row(temperatures, tuple(kept))
            except (ValueError, ZeroDivisionError):
                return temperatures
        return per_row(temperatures, rows)
    if name in ("k", "n", "top"):
        return st.integers(0, max(0, n)).map(str)
    if name == "top_k":
        return per_row(counts, rows)
    if name in ("top_p", "min_p"):
        return per_row(shares, rows)
    return OTHERS.get(name, temperatures)


OTHERS = {
    "min_keep": texts(1, 1, 1, 2, 5, 10**30, "np.int64(3)"),
    "size": texts("None", "None", 0, 1, 3, 10, 2**51, 2**62),
    "replace": texts("True", "False"),
    "on_invalid": texts("'raise'", "'flag'"),
    "ties": texts("'index'", "'all'"),
    "method": texts("'chain'", "'block'", "'inverse'", "'race'"),
    "mode": texts("'largest'", "'smallest'"),
    "sorted": texts("True", "False"),
    "return_lse": texts("True", "False"),
    "return_sign": texts("True", "False"),
    "want": texts("'max'", "('margin', 'argmax')", "()", "['entropy', 'logsumexp']"),
    "keepdims": texts("True", "False", "np.True_"),
    "workers": texts("None", "None", 1, 2, -1, 10**5),
    "reduction": texts("'mean'", "'none'", "'sum'"),
    "ignore_index": texts(-100, -100, 0, -1, 2, 2**63 - 1, -(2**63), "np.int8(1)"),
    "label_smoothing": texts(0, 0.0, 0.1, 1, "np.float32(0.5)"),
    "rng": texts(0, 1, 2**64, "np.random.default_rng(3)", "np.int64(5)"),
}
