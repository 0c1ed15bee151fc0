"""The calls that are tried: hypothesis strategies for the text of a call's arguments."""

import inspect
from typing import NamedTuple

from hypothesis import strategies as st

from fastsoftmax import _docs

from .arguments import HUGE, OTHERS, argument, arrays, evil, ids, per_row, seeds, shapes, texts
from .module_calls import of_modules
from .world import words


class Call(NamedTuple):
    """A function's name, and the text of each argument, which may name those before it."""

    function: str
    arguments: dict

    def __str__(self):
        return f"{self.function}({', '.join(f'{k}={v}' for k, v in self.arguments.items())})"

    def is_huge(self):
        """Return whether an argument has more elements than memory."""
        return any(str(HUGE) in text for text in self.arguments.values())

    def spoils(self):
        """Return whether an argument changes the arrays during the call."""
        return any("spoils(" in text for text in self.arguments.values())


def signature(function):
    """Return the names of a function's arguments; `axis` early, what overlaps others late."""
    names = list(inspect.signature(_docs.FUNCTIONS[function]).parameters)
    names = [name for name in names if name != "self"]
    return sorted(names, key=lambda name: (name not in names[:1], name != "axis", name == "out"))


FUNCTIONS = list(_docs.FUNCTIONS)
ARRAYS = words(
    "probs log_probs targets where weight ids out draft_ids draft_logits scores b other"
)
REQUIRED = words("k n ids targets probs log_probs draft_ids logits scores beams other")

# ---- calls ---------------------------------------------------------------------------------------


@st.composite
def calls(draw, functions=tuple(FUNCTIONS), live=()):
    """Return a call of one of the `functions`; `live` are (name, shape) of arrays that live on."""
    function = draw(st.sampled_from(functions))
    names = signature(function)
    first = "logits" if "logits" in names else names[0]
    known = draw(st.sampled_from(live)) if live and draw(st.integers(0, 3)) else None
    shape = known[1] if known else draw(shapes)
    wrong = draw(st.sampled_from([0, 0, 0, 0, 0, 1, 1, 1, 2]))
    wrong = {draw(st.sampled_from(names)) for _ in range(wrong)}
    keys = draw(st.sampled_from([(), ("rng",), ("seed", "position")]))
    given = {}
    for name in names:
        required = name in names[:1] or name in REQUIRED
        if name in ("seed", "position"):
            if name in keys:
                given[name] = draw(per_row(seeds, shape[: -2 if function == "verify" else -1]))
        elif name == "rng":
            if "seed" not in keys:
                given[name] = draw(OTHERS["rng"])
        elif known and name in (first, "out") and draw(st.booleans()):
            given[name] = known[0]
        elif required or draw(st.integers(0, 2)) == 0:
            given[name] = draw(argument(function, name, shape, given))
        if name in wrong:
            given[name] = draw(wrong_argument(name, first))
    if "rng" in names and "rng" not in given and "seed" not in given:
        given["rng"] = "0"
    call = Call(function, given)
    if call.is_huge():
        given.pop("axis", None)  # a row of years
    return call


@st.composite
def wrong_argument(draw, name, first):
    """Return the text of an argument that is wrong, most likely."""
    if name == first or name in ARRAYS:
        kind = draw(st.integers(0, 4))
        if kind == 0:
            return draw(arrays(draw(shapes), refused=True))
        if kind == 1:
            return draw(arrays(draw(shapes)))
        if kind == 2 and name in ("x", "logits"):
            return f"array({HUGE}, {draw(st.sampled_from(['f4', 'f8', '?', 'O']))!r})"
    return draw(evil).replace("GIVEN", "given.values()")


# ---- samplers ------------------------------------------------------------------------------------

_good_steps = st.one_of(
    texts(
        "steps.Temperature(0.7)", "steps.Temperature(0)", "steps.Temperature(1e30)",
        "steps.TopK(3)", "steps.TopK(1)", "steps.TopK(10**30)", "steps.TopK(2, ties='all')",
        "steps.TopP(0.9)", "steps.TopP(0)", "steps.TopP(1)", "steps.MinP(0.1)", "steps.MinP(1)",
        "steps.TypicalP(0.5)", "steps.TopNSigma(1.0)", "steps.Epsilon(0.01)", "steps.Eta(0.01)",
        "steps.XTC(0.5, 0.1)", "steps.RepetitionPenalty(1.3)", "steps.FrequencyPenalty(0.5)",
        "steps.PresencePenalty(-0.5, last=2)", "steps.LogitBias({0: 1.5, 2: -inf})",
        "steps.SuppressTokens([1, 2])", "steps.AllowedTokens([0, 3])",
        "steps.SuppressTokens(np.arange(9) > 5)", "steps.XTC(1, 0.05, exempt=[0])",
        "steps.DRY(0.8, allowed_length=1, breakers=[[0]])", "steps.NoRepeatNGram(2)",
        "steps.BadWords([[1], [0, 2]])", "steps.SequenceBias({(0, 1): 2.0, (3,): -inf})",
        "steps.MinLength(3, [0])", "steps.DynamicTemperature(0.7, 0.5)", "steps.SoftCap(30.0)",
        "steps.Mirostat()", "steps.AdaptiveP(0.4)",
    )
)  # fmt: skip
_bad_steps = texts(
    *(
        f"Bad({how!r})"
        for how in words(
            "raise none array same empty nan inf short text float32 list unsorted twice foreign "
            "negative uniforms written"
        )
    ),
    *(f"Bad({how!r})" for how in ("some nan", "-inf", "float ids", "two axes", "fewer ids")),
    "None",
    "steps.TopK",
    "3",
)
#: What is given wrong arguments.
STEPS = words(
    "Temperature TopK TopP MinP TypicalP TopNSigma Epsilon Eta XTC RepetitionPenalty "
    "FrequencyPenalty PresencePenalty LogitBias SuppressTokens AllowedTokens DRY NoRepeatNGram "
    "BadWords SequenceBias MinLength DynamicTemperature SoftCap Mirostat AdaptiveP"
)


@st.composite
def samplers(draw):
    """Return a call of a Sampler."""
    method = draw(st.sampled_from(["__call__", "__call__", "candidates", "trace", "filter"]))
    n = draw(st.one_of(st.integers(1, 9), st.integers(10, 300), st.just(4100)))
    rows = () if method in ("candidates", "trace") else draw(st.sampled_from([(), (), (1,), (3,)]))
    kinds = draw(st.lists(st.sampled_from("ggggggb"), max_size=4))
    chain = [draw(_good_steps if kind == "g" else _bad_steps) for kind in kinds]
    if draw(st.integers(0, 5)) == 0:
        chain.append(f"steps.{draw(st.sampled_from(STEPS))}({draw(evil)})".replace("*GIVEN", ""))
    given = {"logits": draw(arrays((*rows, n)))}
    if draw(st.booleans()):
        given["ids"] = draw(ids(n, (*rows, draw(st.integers(0, 6)))))
        if draw(st.integers(0, 2)) == 0:
            given["prompt"] = draw(texts(0, 1, 0, "2**70", -1, "True"))
    given["rng"] = draw(OTHERS["rng"])
    if draw(st.integers(0, 5)) == 0:
        name = draw(st.sampled_from(["logits", "ids", "rng", "prompt"]))
        given[name] = draw(wrong_argument(name, "logits"))
    return Call(f"Sampler(*steps).{method}", {"steps": f"[{', '.join(chain)}]", **given})


@st.composite
def histories(draw):
    """Return a History, what is appended, and a question of one row."""
    rows = draw(st.integers(0, 3))
    given = {
        "prompts": draw(ids(9, (rows, draw(st.integers(0, 6))))),
        "ids": draw(ids(9, (rows, *draw(st.sampled_from([(), (1,), (5,)]))))),
        "row": draw(texts(0, 0, 1, rows - 1, rows, -1)),
        "last": draw(texts("None", 0, 1, 3, "2**70", -1)),
        "prompt": draw(texts(True, False)),
    }
    if draw(st.integers(0, 2)) == 0:
        name = draw(st.sampled_from(list(given)))
        given[name] = draw(wrong_argument(name, "prompts"))
    return Call("History", given)


@st.composite
def mergings(draw):
    """Return chunks for an accumulator."""
    shape = draw(shapes)
    given = {"chunk": draw(arrays(shape)), "axis": draw(texts(-1, -1, 0, len(shape), 1.5))}
    if draw(st.booleans()):
        given["where"] = draw(argument("logsumexp", "where", shape, given))
        name = "LogSumExp"
    else:
        given["k"] = draw(texts(0, 1, 3, 10**30, -1, 2.5))
        given["mode"] = draw(OTHERS["mode"])
        given["start"] = draw(texts(0, 3, 2**40, -1, "'a'"))
        name = "RunningTopK"
    if draw(st.integers(0, 4)) == 0:
        name_of = draw(st.sampled_from(list(given)))
        given[name_of] = draw(wrong_argument(name_of, "chunk"))
    return Call(name, given)


@st.composite
def module_calls(draw, live=()):
    """Return a call of a module's function; `live` as for `calls`."""
    name, given = draw(of_modules(live))
    if draw(st.integers(0, 4)) == 0:
        wrong = draw(st.sampled_from(list(given)))
        if not (name.startswith("scipy.") and wrong in ("x", "a", "b")):  # SciPy's
            given[wrong] = draw(wrong_argument(wrong, next(iter(given))))
    return Call(name, given)


@st.composite
def switches(draw):
    """Return a call of one of the functions that compute nothing."""
    name, argument = draw(st.sampled_from([("set_workers", "workers"), ("show_config", "mode")]))
    good = draw(st.sampled_from(["1", "2", "-1", "10**9", "'dicts'"]))
    return Call(name, {argument: draw(evil) if draw(st.booleans()) else good})


anything = st.one_of(calls(), calls(), calls(), calls(), calls(), calls(), samplers(),
                   histories(), mergings(), module_calls(), switches())  # fmt: skip
