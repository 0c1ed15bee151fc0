"""Sampler: what is wrong is said before anything is drawn, and where."""

import inspect

import numpy as np
import pytest

from fastsoftmax import Sampler
from fastsoftmax.steps import (
    DRY,
    XTC,
    AdaptiveP,
    AllowedTokens,
    BadWords,
    DynamicTemperature,
    Epsilon,
    Eta,
    FrequencyPenalty,
    LogitBias,
    MinLength,
    MinP,
    Mirostat,
    NoRepeatNGram,
    PresencePenalty,
    RepetitionPenalty,
    SequenceBias,
    SoftCap,
    SuppressTokens,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Temperature(-1), ValueError, r"Temperature.temperature is -1; allowed .* from 0"),
        (lambda: Temperature(np.nan), ValueError, r"Temperature.temperature is nan; allowed"),
        (lambda: Temperature(np.inf), ValueError, r"Temperature.temperature is inf; allowed"),
        (lambda: Temperature("1"), TypeError, r"Temperature.temperature is '1'; allowed"),
        (lambda: Temperature(None), TypeError, r"Temperature.temperature is None; allowed"),
        (lambda: TopK(0), ValueError, r"TopK.k is 0; allowed is 1 and above"),
        (lambda: TopK(1.5), TypeError, r"TopK.k is 1.5; allowed are integers"),
        (lambda: TopK(5, ties="no"), ValueError, r"TopK.ties is 'no'; allowed are 'index', 'all'"),
        (lambda: TopK(5, min_keep=0), ValueError, r"TopK.min_keep is 0; allowed is 1"),
        (lambda: TopP(1.1), ValueError, r"TopP.p is 1.1; allowed are 0 to 1"),
        (lambda: MinP(-0.1), ValueError, r"MinP.p is -0.1; allowed are 0 to 1"),
        (lambda: TypicalP(0), ValueError, r"TypicalP.p is 0; allowed are above 0 to 1"),
        (lambda: TypicalP(0.5, ties=1), ValueError, r"TypicalP.ties is 1; allowed"),
        (lambda: TopNSigma(-1), ValueError, r"TopNSigma.n is -1; allowed are finite numbers"),
        (lambda: Epsilon(2), ValueError, r"Epsilon.epsilon is 2; allowed are 0 to 1"),
        (lambda: Eta(np.nan), ValueError, r"Eta.epsilon is nan; allowed are 0 to 1"),
        (lambda: XTC(2, 0.1), ValueError, r"XTC.probability is 2; allowed are 0 to 1"),
        (lambda: XTC(1, -1), ValueError, r"XTC.threshold is -1; allowed are 0 to 1"),
        (lambda: RepetitionPenalty(0), ValueError, r"RepetitionPenalty.penalty is 0; .* above 0"),
        (lambda: FrequencyPenalty(np.inf), ValueError, r"FrequencyPenalty.penalty is inf; allowed"),
        (lambda: PresencePenalty(1, -1), ValueError, r"PresencePenalty.last is -1; allowed is 0"),
        (lambda: PresencePenalty(1, 2, 3), TypeError, r"PresencePenalty.prompt is 3; allowed"),
        (lambda: LogitBias({1: np.inf}), ValueError, r"LogitBias.bias has inf for 1; allowed"),
        (lambda: LogitBias([1, 2]), TypeError, r"LogitBias.bias is \[1, 2\]; allowed is a mapping"),
        (lambda: LogitBias({1: "a"}), TypeError, r"LogitBias.bias has 'a' for 1; allowed are"),
        (lambda: LogitBias({-1: 0}), ValueError, r"LogitBias.bias has -1; allowed are token ids"),
        (lambda: LogitBias({1: np.nan}), ValueError, r"LogitBias.bias has nan for 1; allowed"),
        (lambda: LogitBias({1.5: 0}), TypeError, r"LogitBias.bias has 1.5; allowed are token ids"),
        (lambda: SuppressTokens([-1]), ValueError, r"SuppressTokens.ids has -1; allowed are token"),
        (lambda: AllowedTokens(7), TypeError, r"AllowedTokens.ids is 7; allowed are token ids"),
        (lambda: AllowedTokens([False, True]), TypeError, r"AllowedTokens.ids has False; allowed"),
        (lambda: SuppressTokens({3: 0, True: 0}), TypeError, r"SuppressTokens.ids has True; allow"),
        (
            lambda: SuppressTokens(np.ones((2, 2), bool)),
            ValueError,
            r"SuppressTokens.ids has shape",
        ),
        (lambda: DRY(-1), ValueError, r"DRY.multiplier is -1; allowed are finite numbers from 0"),
        (lambda: DRY(1, 0.5), ValueError, r"DRY.base is 0.5; allowed are finite numbers from 1"),
        (lambda: DRY(1, 2, 0), ValueError, r"DRY.allowed_length is 0; allowed is 1 and above"),
        (lambda: DRY(1, last=-1), ValueError, r"DRY.last is -1; allowed is 0 and above"),
        (lambda: DRY(1, breakers=["\n"]), TypeError, r"DRY.breakers has '.n'; .* no text"),
        (lambda: DRY(1, breakers="a"), TypeError, r"DRY.breakers is 'a'; allowed are sequences"),
        (lambda: DRY(1, exempt=[True]), TypeError, r"DRY.exempt has True; allowed are token ids"),
        (lambda: XTC(1, 0.1, exempt=[-1]), ValueError, r"XTC.exempt has -1; allowed are token"),
        (lambda: FrequencyPenalty(1, exempt=5), TypeError, r"FrequencyPenalty.exempt is 5; allow"),
        (lambda: NoRepeatNGram(0), ValueError, r"NoRepeatNGram.n is 0; allowed is 1 and above"),
        (lambda: BadWords([[]]), ValueError, r"BadWords.words has \[\]; allowed are sequences of"),
        (lambda: BadWords([[1, -1]]), ValueError, r"BadWords.words has -1; allowed are token ids"),
        (lambda: BadWords([[1]], 1), TypeError, r"BadWords.prompt is 1; allowed are True and"),
        (lambda: SequenceBias({5: 1.0}), TypeError, r"SequenceBias.bias is 5; allowed are token"),
        (lambda: SequenceBias({(5,): np.nan}), ValueError, r"SequenceBias.bias has nan for \(5,\)"),
        (lambda: SequenceBias([1]), TypeError, r"SequenceBias.bias is \[1\]; allowed is a mapping"),
        (lambda: MinLength(-1, [1]), ValueError, r"MinLength.length is -1; allowed is 0 and above"),
        (lambda: DynamicTemperature(1, -1), ValueError, r"DynamicTemperature.range is -1; allowed"),
        (lambda: SoftCap(0), ValueError, r"SoftCap.cap is 0; allowed are finite numbers above 0"),
        (lambda: Mirostat(0), ValueError, r"Mirostat.tau is 0; allowed are finite numbers above 0"),
        (lambda: Mirostat(5, -1), ValueError, r"Mirostat.eta is -1; allowed are finite numbers fr"),
        (lambda: AdaptiveP(1.5), ValueError, r"AdaptiveP.target is 1.5; allowed are 0 to 1"),
        (lambda: AdaptiveP(0.5, 1), ValueError, r"AdaptiveP.decay is 1; allowed are 0 to 0.99"),
        (
            lambda: Sampler(Mirostat(), AdaptiveP(0.5)),
            ValueError,
            r"Mirostat\(\) and AdaptiveP\(0.5\)",
        ),
        (lambda: SuppressTokens([5, "a"]), TypeError, r"SuppressTokens.ids has 'a'; allowed are"),
        (lambda: SuppressTokens([2**70]), ValueError, rf"SuppressTokens.ids has {2**70}; allowed"),
        (lambda: LogitBias({True: 5}), TypeError, r"LogitBias.bias has True; allowed are token"),
        (lambda: LogitBias({1: True}), TypeError, r"LogitBias.bias has True for 1; allowed are"),
        (lambda: LogitBias({1: 10**400}), ValueError, r"LogitBias.bias has an integer of"),
        (lambda: LogitBias({1: -(10**400)}), ValueError, r"LogitBias.bias has an integer of"),
        (lambda: LogitBias({2**63: 0.0}), ValueError, rf"LogitBias.bias has {2**63}; allowed are"),
        (lambda: Temperature(10**400), ValueError, r"Temperature.temperature is an integer of 400"),
        (lambda: Temperature(10**5000), ValueError, r"Temperature.temperature is an integer of 50"),
        (lambda: Temperature(True), TypeError, r"Temperature.temperature is True; allowed"),
        (lambda: Temperature(b"1"), TypeError, r"Temperature.temperature is b'1'; allowed"),
        (lambda: Temperature([]), TypeError, r"Temperature.temperature is \[\]; allowed"),
        (lambda: Temperature([1, -1]), ValueError, r"Temperature.temperature is -1; allowed"),
        (lambda: Temperature([[1.0]]), TypeError, r"Temperature.temperature is \[1.0\]; allowed"),
        (lambda: Temperature(np.ones((1, 1))), TypeError, r"Temperature.temperature is array"),
        (lambda: TopK(np.array([1, 0])), ValueError, r"TopK.k is 0; allowed is 1 and above"),
        (lambda: TopK([1, 2], [True, 3]), ValueError, r"TopK.ties is True; allowed are 'index'"),
        (lambda: DRY(1, last=[None, "a"]), TypeError, r"DRY.last is 'a'; allowed are integers"),
        (
            lambda: Sampler(TopK([1, 2]), MinP([0.5] * 3)),
            ValueError,
            r"MinP.p has 3 values; allowed are 2, as TopK.k has, or one",
        ),
        (
            lambda: Sampler(TopK([1, 2], min_keep=[1])),
            ValueError,
            r"TopK.min_keep has 1 values; allowed are 2, as TopK.k has, or one",
        ),
        (lambda: Temperature(np.complex64(1)), TypeError, r"Temperature.temperature is .*1.*; all"),
        (lambda: Sampler(TopK), TypeError, r"steps has .*TopK.*; allowed are steps"),
        (lambda: Sampler([TopK(1)]), TypeError, r"steps has \[TopK\(1\)\]; allowed are steps"),
    ],
)
def test_wrong_parameter_when_a_step_is_made(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize("value", [np.nan, np.inf, None])
@pytest.mark.parametrize("steps", [(), (Temperature(0.5), TopK(2)), (AllowedTokens([0]),)], ids=str)
def test_invalid_row_is_named(steps, value):
    rows = np.tile(np.arange(400, dtype=np.float32), (3, 1))
    if value is None:
        rows[1] = -np.inf
        message = "nothing above -inf"
    else:
        rows[1, 300] = value
        message = "NaN" if np.isnan(value) else r"\+inf"
    for method in ("__call__", "filter"):
        with pytest.raises(ValueError, match=rf"logits has {message} in row \(1,\); allowed"):
            getattr(Sampler(*steps), method)(rows)
    with pytest.raises(ValueError, match=rf"logits has {message} in the row; allowed"):
        Sampler(*steps)(rows[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"logits": np.ones((2, 2, 2))}, ValueError, r"logits has shape \(2, 2, 2\); allowed"),
        ({"logits": np.float32(1)}, ValueError, r"logits has shape \(\); allowed"),
        ({"logits": ["a"]}, TypeError, "logits has dtype"),
        ({"logits": []}, ValueError, r"nothing above -inf in the row"),
        ({"logits": [1.0, 2], "ids": [2]}, ValueError, r"ids has 2 in the row; .* 0 to 1"),
        ({"logits": [1.0, 2], "ids": [0, -1]}, ValueError, r"ids has -1 in the row; .* 0 to 1"),
        ({"logits": [1.0, 2], "ids": [0.5]}, TypeError, r"ids has \[0.5\] for the row; allowed"),
        ({"logits": [1.0, 2], "ids": [True, 0]}, TypeError, r"ids has \[True, 0\] for the row"),
        ({"logits": [1.0], "ids": np.uint64([2**63])}, ValueError, rf"ids has {2**63} in the row"),
        ({"logits": [1.0, 2], "ids": [[1]]}, TypeError, r"ids has \[\[1\]\] for the row; allowed"),
        ({"logits": [[1.0], [2]], "ids": [0]}, ValueError, "ids is for 1 rows; logits has 2"),
        ({"logits": [[1.0], [2]], "ids": [0, 0]}, TypeError, r"ids has 0 for row \(0,\); allowed"),
        ({"logits": [[1.0], [2]], "prompt": [0]}, ValueError, "prompt is for 1 rows; logits has 2"),
        ({"logits": [1.0], "ids": [0], "prompt": 2}, ValueError, "prompt is 2; allowed is 0 to 1"),
        ({"logits": [1.0], "rng": "x"}, TypeError, "rng is 'x'; allowed"),
    ],
    ids=str,
)
def test_wrong_argument_of_a_call(arguments, error, message):
    with pytest.raises(error, match=message):
        Sampler()(**arguments)


@pytest.mark.parametrize("method", ["__call__", "candidates", "trace", "filter"])
@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("generator", r"rng= \(an int or a numpy.random.Generator\)"),
        ("where", "mask="),
        ("top_k", "steps.TopK in the sampler"),
    ],
)
def test_a_keyword_of_another_library_names_ours(method, name, ours):
    call = getattr(Sampler(), method)
    with pytest.raises(TypeError, match=rf"^Sampler\(\) calls take {ours}, not {name}=$"):
        call([1.0, 2.0], **{name: 1})
    _, *others = inspect.signature(call).parameters
    assert others[:4] == ["ids", "rng", "prompt", "mask"]
    assert {"seed", "position"} < {*others}
    names = f"logits, {'=, '.join(others[:-1])}= and {others[-1]}="
    with pytest.raises(TypeError, match=rf"^Sampler\(\) calls take {names}, not anything=$"):
        call([1.0, 2.0], anything=1)


@pytest.mark.parametrize(
    "step",
    [DRY(1, breakers=[[1, 3]]), DRY(1, exempt=[3]), XTC(1, 0.1, exempt=[3]), BadWords([[3, 1]]),
     PresencePenalty(1, exempt=[3]), SequenceBias({(3, 0): 1.0}), MinLength(1, [3])],
    ids=repr,
)  # fmt: skip
def test_ids_of_a_step_must_be_in_the_vocabulary(step):
    Sampler(step)([1.0, 2, 3, 4], [0, 1])
    with pytest.raises(ValueError, match=r"has 3; allowed are ids from 0 to 2"):
        Sampler(step)([1.0, 2, 3])


def test_a_mask_is_of_the_whole_vocabulary():
    mask = np.array([True, False, True])
    assert AllowedTokens(mask) == AllowedTokens([0, 2])
    assert SuppressTokens(mask).ids == (0, 2)
    assert Sampler(AllowedTokens(mask)).candidates([1.0, 5, 2]).indices.tolist() == [2, 0]
    for step in (AllowedTokens(mask), SuppressTokens(mask), MinLength(9, mask)):
        for size in (2, 4):
            message = rf"^{type(step).__name__} has a mask of 3 tokens; logits has {size}$"
            with pytest.raises(ValueError, match=message):
                Sampler(step)(np.zeros(size))


def test_ids_of_steps_must_be_in_the_vocabulary():
    for step in (LogitBias({3: 1.0}), SuppressTokens([1, 3]), AllowedTokens([3])):
        with pytest.raises(ValueError, match=r"has 3; allowed are ids from 0 to 2"):
            Sampler(step)([1.0, 2, 3])


def test_nothing_left_names_the_step():
    with pytest.raises(ValueError, match=r"SuppressTokens\(\(0, 1\)\) leaves nothing of the row"):
        Sampler(SuppressTokens([0, 1]), TopK(1))([1.0, 2.0])
    with pytest.raises(ValueError, match=r"AllowedTokens\(\(0,\)\) leaves nothing of row \(1,\)"):
        Sampler(AllowedTokens([0]))([[1.0, 2], [-np.inf, 2]])


def test_a_long_list_of_ids_is_not_repeated_in_messages():
    row = np.zeros(10_000)
    row[9000:] = -np.inf
    sampler = Sampler(SuppressTokens(range(9000)))
    with pytest.raises(ValueError, match=r"^SuppressTokens\(...\) leaves nothing of the row$"):
        sampler(row)
    assert len(str(Sampler(SuppressTokens(range(8000))).trace(row))) < 300
    with pytest.raises(ValueError, match=r"^SuppressTokens has 8999; .* ids from 0 to 99$"):
        sampler(row[:100])


def test_overflow_is_an_error_not_a_wrong_draw():
    with pytest.raises(ValueError, match=r"overflow in the row"):
        Sampler(Temperature(1e-300), TopK(2))([1e300, 1.0])


def test_one_row_where_one_is_shown():
    for method in (Sampler().candidates, Sampler().trace):
        with pytest.raises(ValueError, match=r"logits has shape \(1, 2\); allowed is one row"):
            method([[1.0, 2.0]])
