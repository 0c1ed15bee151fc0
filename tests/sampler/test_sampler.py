"""Sampler: what it draws, what can be seen of it, and what kind of object it is."""

import dataclasses
import doctest
import importlib
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import fastsoftmax
from fastsoftmax import Sampler, steps
from fastsoftmax.steps import (
    XTC,
    FrequencyPenalty,
    LogitBias,
    MinP,
    RepetitionPenalty,
    SuppressTokens,
    Temperature,
    TopK,
    TopP,
    TypicalP,
)
from tests.oracles import Uniforms


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-53])
def test_what_has_no_weight_is_never_drawn(u):
    row = np.array([-2000.0, 0.0, -2000.0])  # exp(-2000) is 0
    assert Sampler()(row, rng=Uniforms([u])) == 1
    assert Sampler(Temperature(0.5))(row, rng=Uniforms([u])) == 1


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_draws_what_sample_draws(impl, dtype):
    rng = np.random.default_rng(3)
    for parameters in (
        {},
        {"temperature": 0.0},
        {"temperature": 0.7, "top_k": 20},
        {"temperature": 1.3, "top_k": 50, "top_p": 0.9, "min_p": 0.02},
        {"top_p": 0.8},
        {"min_p": 0.05, "min_keep": 4},
    ):
        rows = rng.normal(0, 3, (40, 700)).astype(dtype)
        least = parameters.get("min_keep", 1)
        steps = [Temperature(parameters.get("temperature", 1))]
        steps += [TopK(parameters["top_k"], min_keep=least)] if "top_k" in parameters else []
        steps += [TopP(parameters["top_p"], least)] if "top_p" in parameters else []
        steps += [MinP(parameters["min_p"], least)] if "min_p" in parameters else []
        got = Sampler(*steps)(rows, rng=1)
        np.testing.assert_array_equal(got, impl.sample(rows, rng=1, **parameters))
        assert got.dtype == np.int64


@pytest.mark.slow_reference
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("temperature", [1.0, 1e-45, 1e-308, 1e-310, 5e-324])
def test_draws_what_sample_draws_from_denormal_logits(impl, dtype, temperature):
    x = np.random.default_rng(4).uniform(-1, 1, (40, 30)) * float(np.finfo(dtype).tiny)
    x = x.astype(dtype)
    for parameters in ({}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}):
        steps_of = {"top_k": TopK, "top_p": TopP, "min_p": MinP}
        filters = [steps_of[name](value) for name, value in parameters.items()]
        got = Sampler(Temperature(temperature), *filters)(x, rng=1)
        want = impl.sample(x, temperature=temperature, rng=1, **parameters)
        np.testing.assert_array_equal(got, want)


def test_rows_are_as_one_row_after_another():
    rng = np.random.default_rng(4)
    rows = rng.normal(0, 3, (6, 500)).astype(np.float32)
    ids = [rng.integers(0, 500, m) for m in range(6)]
    sampler = Sampler(FrequencyPenalty(1.0, prompt=False), TopK(30), XTC(0.5, 0.05))
    one, all_ = np.random.default_rng(9), np.random.default_rng(9)
    prompts = [0, 1, 1, 2, 2, 0]
    want = [sampler(r, i, one, prompt=m) for r, i, m in zip(rows, ids, prompts, strict=True)]
    np.testing.assert_array_equal(sampler(rows, ids, all_, prompt=prompts), want)
    assert one.random() == all_.random()
    assert isinstance(want[0], np.int64)
    assert sampler(rows[:0]).shape == (0,)
    assert sampler.filter(rows[:0]).shape == (0, 500)


def test_uniforms_are_for_xtc_first_then_for_the_draw():
    row = np.log(np.float32([0.4, 0.3, 0.2, 0.1]))
    for seed in range(40):
        chance, u = np.random.default_rng(seed).random(2)
        sampler = Sampler(XTC(0.5, 0.15))
        left = [2, 3] if chance < 0.5 else [0, 1, 2, 3]
        assert sampler.candidates(row, rng=seed).indices.tolist() == left
        reached = np.cumsum(np.exp(row[left].astype(float)))
        assert sampler(row, rng=seed) == left[np.searchsorted(reached, u * reached[-1])]


def test_xtc_threshold_is_inclusive():
    row = np.log2([0.25, 0.25, 0.25, 0.25]) * np.log(2)
    assert Sampler(XTC(1, 0.25)).candidates(row, rng=0).indices.tolist() == [3]
    assert Sampler(XTC(1, 0.2501)).candidates(row, rng=0).indices.tolist() == [0, 1, 2, 3]
    assert Sampler(XTC(0, 0.25)).candidates(row, rng=0).indices.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    "layout",
    [
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1, ::-1].copy()[::-1, ::-1],
        lambda x: x.astype(">f4"),
        lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),  # read-only
        lambda x: x.tolist(),
        lambda x: x.astype(np.float16),
        lambda x: x.astype(pytest.importorskip("ml_dtypes").bfloat16),
        lambda x: x.astype(np.int16),
    ],
    ids=["strides", "negative", "swapped", "read-only", "list", "float16", "bfloat16", "int16"],
)
def test_any_layout_and_dtype(layout):
    x = np.random.default_rng(6).integers(-9, 9, (3, 500)).astype(np.float32)
    sampler = Sampler(RepetitionPenalty(2.0), TopK(20, "all"), MinP(0.1))
    ids = [[1, 2, 2]] * 3
    rows = layout(x)
    before = np.array(rows)
    np.testing.assert_array_equal(sampler(rows, ids, 1), sampler(x, ids, 1))
    got = sampler.filter(rows, ids)
    np.testing.assert_array_equal(got.astype(np.float32), sampler.filter(x, ids))
    assert got.dtype == fastsoftmax.softmax(rows).dtype
    np.testing.assert_array_equal(rows, before)


def test_no_step_takes_no_randomness():
    rng = np.random.default_rng(0)
    Sampler(TopK(3)).candidates(np.arange(9.0), rng=rng)
    Sampler(TopK(3)).filter(np.arange(9.0), rng=rng)
    assert rng.random() == np.random.default_rng(0).random()


# ---- what can be seen ----------------------------------------------------------------------------


def test_trace_tells_what_each_step_did():
    row = np.log(np.float32([0.4, 0.3, 0.2, 0.1]))
    trace = Sampler(TopK(3), TopP(0.7), Temperature(0.5)).trace(row)
    assert [stage.step for stage in trace] == [None, TopK(3), TopP(0.7), Temperature(0.5)]
    assert [stage.left for stage in trace] == [4, 3, 2, 2]
    np.testing.assert_allclose([stage.kept for stage in trace], [1, 0.9, 7 / 9, 1], rtol=1e-6)
    np.testing.assert_allclose(trace[-1].candidates.probs, [16 / 25, 9 / 25], rtol=1e-6)
    text = str(trace)
    assert [line.split()[0] for line in text.splitlines()[1:]] == [
        "as", "TopK(3)", "TopP(0.7)", "Temperature(0.5)",
    ]  # fmt: skip
    assert "77.78%" in text
    assert "0 64.0%, 1 36.0%" in text


def test_filter_is_a_logits_processor():
    row = np.float32([1, 3, 2, 0, -np.inf])
    sampler = Sampler(FrequencyPenalty(0.5), Temperature(2.0), TopK(3))
    want = np.float32([0.5, 1, 1, -np.inf, -np.inf])
    got = sampler.filter(row, [1, 1])
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(row, np.float32([1, 3, 2, 0, -np.inf]))  # as it was
    both = sampler.filter(np.stack([row, row]), [[1, 1], []])
    np.testing.assert_array_equal(both, [want, np.float32([0.5, 1.5, 1, -np.inf, -np.inf])])
    assert sampler.filter(row.astype(np.float16)).dtype == np.float16
    assert sampler.filter([1, 2, 3]).dtype == np.float64


def test_repr_shows_the_steps_in_order_and_can_be_read_back():
    sampler = Sampler(
        LogitBias({5: -1.0}), RepetitionPenalty(1.1, last=64), Temperature(0.8), TopK(40, "all"),
        TypicalP(0.9, min_keep=2), XTC(0.5, 0.1), SuppressTokens([2, 1, 1]),
    )  # fmt: skip
    assert repr(sampler) == (
        "Sampler(LogitBias({5: -1.0}), RepetitionPenalty(1.1, last=64), Temperature(0.8), "
        "TopK(40, ties='all'), TypicalP(0.9, min_keep=2), XTC(0.5, threshold=0.1), "
        "SuppressTokens((1, 2)))"
    )
    again = eval(repr(sampler))
    assert again == sampler
    assert hash(again) == hash(sampler)
    assert pickle.loads(pickle.dumps(sampler)) == sampler
    assert Sampler(TopK(3)) != Sampler(TopK(4))


def test_it_is_imported_when_asked_for():
    """In a process of its own, where nothing has asked for it yet."""
    code = """if True:
        import pickle, sys
        import fastsoftmax
        assert not [name for name in sys.modules if "_sampler" in name or ".steps" in name]
        assert {"Sampler", "steps", "softmax", "__version__"} <= {*dir(fastsoftmax)}
        assert "fastsoftmax._sampler" not in sys.modules
        sampler = pickle.loads(PICKLED)
        assert sampler == fastsoftmax.Sampler(fastsoftmax.steps.TopK(3))
        assert fastsoftmax.Sampler is fastsoftmax.__dict__["Sampler"]
        try:
            fastsoftmax.Samplers
        except AttributeError as error:
            assert str(error) == "module 'fastsoftmax' has no attribute 'Samplers'"
        else:
            raise AssertionError
        from fastsoftmax import *
        assert Sampler is type(sampler)
    """.replace("PICKLED", repr(pickle.dumps(Sampler(TopK(3)))))
    path = os.pathsep.join([str(Path(fastsoftmax.__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=os.environ | {"PYTHONPATH": path},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_immutable():
    sampler = Sampler(TopK(3))
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.steps = ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        sampler.steps[0].k = 4


@pytest.mark.parametrize(
    "module",
    ["_sampler.sampler", "_sampler.hf", "_sampler.vllm", "_sampler.llama_cpp", "_sampler.mlx_lm",
     "steps", "steps.penalties", "steps.sequences"],
)  # fmt: skip
def test_examples_of_the_docstrings(impl, module):
    failed, tried = doctest.testmod(importlib.import_module(f"fastsoftmax.{module}"))
    assert tried > 1
    assert failed == 0


def test_every_public_step_says_its_formula_range_order_and_source():
    for name in set(steps.__all__) - {"Candidates", "Tokens", "Step"}:
        text = getattr(steps, name).__doc__
        assert "Parameters" in text, name
        assert "Order matters" in text, name
        assert "References" in text or name in ("SuppressTokens", "AllowedTokens"), name
