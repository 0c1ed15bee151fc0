"""Sampler: masks, races and `accept=` are those of `sample`, on what the steps leave."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastsoftmax import History, Sampler, sample
from fastsoftmax._sampler import program
from fastsoftmax.steps import (
    XTC,
    AllowedTokens,
    Eta,
    FrequencyPenalty,
    LogitBias,
    MinP,
    Mirostat,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
)
from tests.calls import bits
from tests.sampler.test_compiled import CHAINS, HISTORIES, LENGTHS, hard_row, outcome, rows

KNOBS = [
    {},
    {"temperature": 0.7},
    {"temperature": 0.8, "top_k": 30, "top_p": 0.9},
    {"temperature": 1.4, "top_p": 0.9, "min_p": 0.01},
]
SAMPLERS = [
    Sampler(TypicalP(0.6)),
    Sampler(TopNSigma(1.0), XTC(0.5, 0.05)),
    Sampler(Eta(0.01), AllowedTokens(range(0, 60, 2))),
    Sampler(RepetitionPenalty(1.5), LogitBias({3: 4.0, 7: -np.inf}), TopP(0.9), TopK(9)),
    Sampler(FrequencyPenalty(-0.5), Temperature(0.6)),
    Sampler(AllowedTokens(range(50)), MinP(0.1)),
    Sampler(Temperature(0.7)),
    Sampler(Temperature(0.0)),
    Sampler(XTC(0.5, 0.02), Temperature(1.5)),
]
SLOW = pytest.mark.slow
IDS = [[3, 3, 9], [], [1, 59], [7]]
SEEDS = {"seed": [7, -1, 3, 2**64 - 1], "position": [0, 40, 80, 2**63]}


@pytest.fixture
def impl(compiled):
    """Each implementation that has kernels: the readable chain is compared with it."""
    return compiled


def sampler_of(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """Return what `sample` does as steps."""
    steps = [Temperature(temperature), TopK(top_k) if top_k else None, TopP(top_p), MinP(min_p)]
    return Sampler(*filter(None, steps))


ALL = [*(sampler_of(**knobs) for knobs in KNOBS), *SAMPLERS]


def hard_rows(n, dtype="float32"):
    return np.array([np.roll(hard_row(n, dtype), i) for i in range(4)])


def packed(mask):
    bits = np.packbits(np.pad(mask, [(0, 0), (0, -mask.shape[-1] % 32)]), -1, bitorder="little")
    return bits.view("<u4").astype(np.uint32)


def readable(call):
    """Return what a function returns where nothing is compiled."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "chains", None)
        return call()


# ---- masks ---------------------------------------------------------------------------------------


def forms(mask):
    """Return the arguments that say what a mask of each row does."""
    return [
        {"mask": mask},
        {"mask": packed(mask).view(np.int32)},
        {"mask": packed(mask)[::-1], "mask_rows": [3, 2, 1, 0]},
    ]


@pytest.mark.parametrize("share", [0.5, 0.002])
@pytest.mark.parametrize(
    ("n", "dtype"),
    [(60, "float32"), (5000, "float32"), pytest.param(5001, "float64", marks=SLOW)],
)
def test_what_is_shut_is_as_if_its_logit_were_lowest(share, n, dtype):
    x, rng = hard_rows(n, dtype), np.random.default_rng(n)
    mask = rng.random(x.shape) < share
    mask[:, [3, 7]], mask[:, 11] = True, False
    shut, x[:, 11] = np.where(mask, x, -np.inf), np.nan  # what is shut is not looked at
    for sampler in ALL:
        keys = {"seed": 5, "position": np.arange(4), "logprobs": 3, "on_invalid": "flag"}
        for method in ("inverse", "race"):
            want = sampler(shut, IDS, method=method, **keys)
            for form in forms(mask):
                got = sampler(x, IDS, method=method, **keys, **form)
                assert bits(got[:4]) == bits(want[:4])
                assert bits(got.top) == bits(want.top)
                assert bits(got.entropy) == bits(want.entropy)
        if (want.ids < 0).any():
            continue
        for form in forms(mask):
            got = sampler.filter(x, IDS, rng=1, **form)
            assert bits(got) == bits(sampler.filter(shut, IDS, rng=1))
        one = sampler.candidates(x[0], IDS[0], rng=1, mask=mask[0])
        assert bits(one) == bits(sampler.candidates(shut[0], IDS[0], rng=1))
        assert len(sampler.trace(x[0], IDS[0], rng=1, mask=mask[0])) == len(sampler.steps) + 1


@given(CHAINS, rows(LENGTHS), HISTORIES, st.sampled_from([0.001, 0.02, 0.5]), st.booleans())
@settings(max_examples=25)
def test_any_chain_of_any_row_under_a_mask(sampler, row, history, share, words):
    x = np.tile(row.astype(np.float32), (3, 1))
    mask = np.random.default_rng(row.size).random(x.shape) < share
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "chains", None)
        want = outcome(sampler, np.where(mask, x, -np.inf).astype(np.float32), [history] * 3)
    got = outcome(sampler, x, [history] * 3, mask=packed(mask) if words else mask)
    strings = [str(a).replace(" that its mask allows", "") for a in (got, want)]
    assert strings[0] == strings[1]


def test_masks_of_a_batch_and_some_of_its_rows():
    x, mask = hard_rows(300), np.arange(300) % 3 == 0
    batch = Sampler.batch([SAMPLERS[3], *SAMPLERS[:3]])
    words = np.repeat(packed(mask[None]), 2, 0)
    got = batch(x, IDS, seed=3, position=9, mask=words, mask_rows=[2, 0])
    for i, sampler in enumerate(batch.samplers):
        own = {"mask": mask} if i in (0, 2) else {}
        assert got[i] == sampler(x[i], IDS[i], seed=3, position=9, **own)


@pytest.mark.parametrize("form", ["float16", "strided", "int32"])
def test_masks_of_rows_that_must_be_packed(form):
    x = np.round(hard_rows(5000) * 8) if form == "int32" else hard_rows(5000)
    x = np.nan_to_num(x, neginf=-99).astype("float32" if form == "strided" else form)
    given_ = np.repeat(x, 2, 1)[:, ::2] if form == "strided" else x
    mask = np.random.default_rng(3).random(x.shape) < 0.3
    shut = np.where(mask, x.astype("float64" if form == "int32" else "float32"), -np.inf)
    for sampler in SAMPLERS:
        keys = {"seed": 3, "position": 9, "on_invalid": "flag"}
        assert (
            sampler(given_, IDS, **keys, mask=mask).tolist() == sampler(shut, IDS, **keys).tolist()
        )


def test_errors_of_masks():
    x = hard_rows(60)
    for arguments, error, message in (
        ({"mask": np.ones(59, bool)}, ValueError, "mask has shape (59,); allowed is a last axis"),
        ({"mask": np.ones(60)}, TypeError, "mask has dtype float64; allowed are bool, and int32"),
        ({"mask_rows": [1]}, ValueError, "mask_rows is [1]; allowed is None where mask is None"),
        ({"mask": np.zeros(60, bool)}, ValueError, "nothing above -inf that its mask allows in"),
        ({"mask": np.zeros((3, 60), bool)}, ValueError, "does not broadcast to the rows' shape"),
    ):
        for call in (SAMPLERS[0], SAMPLERS[0].filter):
            with pytest.raises(error, match=re.escape(message)):
                call(x, **arguments)


# ---- races ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "dtype"),
    [(60, "float32"), *(pytest.param(*p, marks=SLOW) for p in [(5000, "f4"), (300, "float64")])],
)
def test_a_race_is_that_of_sample(n, dtype):
    x = hard_rows(n, dtype)
    for knobs in KNOBS:
        want = sample(x, **knobs, **SEEDS, method="race")
        assert sampler_of(**knobs)(x, **SEEDS, method="race").tolist() == want.tolist()
    for sampler in SAMPLERS:
        got = sampler(x, IDS, **SEEDS, method="race")
        left = sampler.filter(x.astype("f8"), IDS, **SEEDS)
        if dtype == "float64" or not isinstance(sampler.steps[0], (TypicalP, Eta)):
            assert got.tolist() == sample(left, **SEEDS, method="race").tolist()
        again = readable(lambda s=sampler: s(x, IDS, **SEEDS, method="race", logprobs=2))
        assert again.ids.tolist() == got.tolist()
        report = sampler(x, IDS, **SEEDS, method="race", logprobs=2)
        assert report.ids.tolist() == got.tolist()
        np.testing.assert_allclose(report.filtered_logprobs, again.filtered_logprobs, rtol=1e-5)


def test_a_race_takes_no_generator_and_other_rows_do_not_matter():
    x = hard_rows(300)
    sampler = SAMPLERS[1]
    alone = [
        sampler(row, seed=s, position=p, method="race")
        for row, s, p in zip(x, *SEEDS.values(), strict=True)
    ]
    assert sampler(x, **SEEDS, method="race").tolist() == alone
    for arguments, error, message in (
        ({"rng": 3}, ValueError, "rng is 3; allowed is None with method='race'"),
        ({}, TypeError, "seed is None; allowed with method='race' are integers"),
        ({"seed": 3}, TypeError, "position is None; allowed with method='race'"),
        ({"method": "fast"}, ValueError, "method is 'fast'; allowed are 'inverse', 'race'"),
    ):
        for call in (sampler, lambda *a, **k: readable(lambda: sampler(*a, **k))):
            with pytest.raises(error, match=message):
                call(x, **{"method": "race"} | arguments)


# ---- ids that are accepted -----------------------------------------------------------------------


def third(row, id_):
    """Take ids of every third, another third in each row."""
    return id_ % 3 == row % 3


def taken(ids, accept):
    """Return the first of each row's ids that `accept` takes, -1 where there is none."""
    return [
        next((int(i) for i in of_row if i >= 0 and accept(r, int(i))), -1)
        for r, of_row in enumerate(ids)
    ]


@pytest.mark.parametrize("method", ["inverse", "race"])
@pytest.mark.parametrize("sampler", ALL, ids=str)
def test_the_first_that_is_accepted_of_the_draws_without_replacement(sampler, method):
    x = hard_rows(60)
    chances = sum(step.uniforms for step in sampler.steps)
    for seed in range(2):
        where = {"seed": seed, "position": [0, 50, 100, 150], "method": method}
        got = sampler(x, IDS, accept=third, on_invalid="flag", logprobs=1, **where)
        left = sampler.filter(x.astype("f8"), IDS, seed=seed, position=where["position"])
        if method == "race":
            ids = sample(left, size=60, replace=False, on_invalid="flag", **where)
        else:
            u = [
                np.concatenate([
                    np.random.Generator(np.random.Philox(key=seed, counter=p + (b << 64))).random(4)
                    for b in range(17)
                ])[chances : chances + 60]
                for p in where["position"]
            ]  # fmt: skip
            ids = [
                sample(row, size=60, replace=False, on_invalid="flag", rng=Known(of_row))
                for row, of_row in zip(left, u, strict=True)
            ]
        assert got.ids.tolist() == taken(ids, third)
        again = readable(lambda w=where: sampler(x, IDS, accept=third, on_invalid="flag", **w))
        assert again.tolist() == got.ids.tolist()
        for i, id_ in enumerate(got.ids.tolist()):
            assert np.isnan(got.filtered_logprobs[i]) == (id_ < 0)
            if id_ >= 0:
                p = np.exp(left[i] - left[i].max())
                want = np.log(p[id_] / p.sum())
                assert got.filtered_logprobs[i] == pytest.approx(want, abs=1e-5)


@pytest.mark.parametrize("steps", [[], [Temperature(0.7)], [Temperature(1.0)]], ids=str)
def test_accepted_ids_of_a_long_row_that_nothing_is_cut_of(steps):
    """No list of the row is made; the ids are those of one."""
    x, where = hard_rows(9000), {"seed": 3, "position": [0, 50, 100, 150]}
    mask = np.random.default_rng(4).random(x.shape) < 0.5
    for method in ("inverse", "race"):
        for own in ({}, {"mask": mask}):
            keys = {"accept": third, "method": method, **where, **own}
            want = Sampler(*steps, TopP(1.0))(x, IDS, **keys)
            assert Sampler(*steps)(x, IDS, **keys).tolist() == want.tolist()
            rng = Sampler(*steps)(x, IDS, accept=third, rng=np.random.default_rng(3), **own)
            want = Sampler(*steps, TopP(1.0))(
                x, IDS, accept=third, rng=np.random.default_rng(3), **own
            )
            assert rng.tolist() == want.tolist()


class Known(np.random.Generator):
    """A generator the uniforms of which are known."""

    def __init__(self, uniforms):
        super().__init__(np.random.PCG64(0))
        self.uniforms = uniforms

    def random(self, size=None, *args, **kwargs):
        return self.uniforms.reshape(size)


def test_accepted_ids_of_a_generator_are_those_of_sample():
    x = hard_rows(300)
    for knobs in KNOBS:
        for seed in range(3):
            want = sample(x, **knobs, accept=third, rng=seed)
            rng = np.random.default_rng(seed)
            assert sampler_of(**knobs)(x, accept=third, rng=rng).tolist() == want.tolist()
            got = sampler_of(**knobs)(x, accept=third, rng=seed)
            assert got.tolist() == want.tolist()
            assert rng.random() != np.random.default_rng(seed).random()


def test_limits_and_errors_of_accept():
    x, sampler = hard_rows(60), SAMPLERS[5]
    for arguments, error, message in (
        ({"accept": 3}, TypeError, "accept is 3; allowed is a callable of a row and an id"),
        ({"accept": third, "max_tries": 0}, ValueError, "max_tries is 0; allowed"),
        ({"max_tries": 0}, ValueError, "max_tries is 0; allowed"),
        ({"max_tries": None}, TypeError, "max_tries is None; allowed"),
        (
            {"accept": lambda row, i: row != 2, "max_tries": 2},
            ValueError,
            "accept refuses 2 ids of row (2,), and max_tries allows no more (or pass",
        ),
        (
            {"accept": lambda row, i: row != 1},
            ValueError,
            "of row (1,), and that is all that can be drawn (or pass on_invalid='flag')",
        ),
    ):
        with pytest.raises(error, match=re.escape(message)):
            sampler(x, **arguments)
    with pytest.raises(ZeroDivisionError):
        sampler(x, accept=lambda row, i: 1 // 0)


def test_a_state_follows_what_is_accepted():
    x, sampler = hard_rows(60)[:1], Sampler(TopK(9), Mirostat(3.0))
    history, other = History([[1]]), History([[1]])
    first = sampler(x, other, seed=3, position=4)
    second = sampler(x, history, seed=3, position=4, accept=lambda row, i: i != first[0])
    assert first[0] != second[0]
    history.append(second)
    left = sampler.candidates(x[0], History([[1]]))
    p = float(left.probs[left.indices == second[0]][0])
    assert history.state(0) == pytest.approx((6.0 - 0.1 * (-np.log2(p) - 3.0),))
