"""Sampler.hf, .llama_cpp and .mlx_lm beside the real thing, where installed.

pip install transformers torch llama-cpp-python mlx-lm mlx-cpu
"""

import ctypes
import importlib.util

import numpy as np
import pytest

from fastsoftmax import History, Sampler
from fastsoftmax.steps import Temperature
from tests.oracles import Uniforms

pytestmark = pytest.mark.slow


def needs(*names):
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


def random_rows(count=40, n=3000):
    """Yield rows of scores as a model gives them, and some tokens so far."""
    for seed in range(count):
        rng = np.random.default_rng([seed, 77])
        yield rng.normal(0, 3, n).astype(np.float32), rng.integers(0, n, 50)


HF_PARAMETERS = [
    {},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.4, "top_k": 0, "top_p": 0.95},
    {"repetition_penalty": 1.3, "top_k": 20, "min_p": 0.05},
    {"top_k": 0, "typical_p": 0.8},
    {"top_k": 200, "epsilon_cutoff": 0.004},
    {"top_k": 0, "eta_cutoff": 0.001, "repetition_penalty": 0.8, "temperature": 0.6},
    {"temperature": 0.8, "top_k": 100, "top_p": 0.95, "min_p": 0.01, "typical_p": 0.9,
     "epsilon_cutoff": 0.001, "eta_cutoff": 0.001, "suppress_tokens": [3, 5]},
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    """A transformers model of no use but for its ``generate``."""
    import transformers

    config = transformers.GPT2Config(
        n_layer=1, n_head=1, n_embd=8, vocab_size=3000, bos_token_id=0, eos_token_id=None
    )
    return transformers.GPT2LMHeadModel(config).eval()


def processors(model, parameters, prompt=50):
    """Return the logits processors of ``generate``, in its order."""
    import torch
    import transformers

    config = transformers.GenerationConfig(do_sample=True, **{"top_k": 50} | parameters)
    model._prepare_special_tokens(config, True, device=torch.device("cpu"))
    return model._get_logits_processor(
        generation_config=config, input_ids_seq_length=prompt, device=torch.device("cpu"),
        prefix_allowed_tokens_fn=None, logits_processor=transformers.LogitsProcessorList(),
    )  # fmt: skip


@needs("torch", "transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parameters", HF_PARAMETERS, ids=str)
def test_transformers_gives_the_same_scores(tiny, parameters):
    """It works in float32, so a token within its rounding of a cut may go the other way."""
    import torch

    theirs, ours = processors(tiny, parameters), Sampler.hf(**parameters)
    assert len(theirs) == len(ours.steps), (theirs, ours)
    different = 0
    for row, ids in random_rows():
        want = theirs(torch.from_numpy(ids[None]), torch.from_numpy(row[None]))[0].numpy()
        got = ours.filter(row, ids)
        same = (got > -np.inf) == (want > -np.inf)
        np.testing.assert_allclose(got[same], want[same], rtol=1e-6)
        different += np.count_nonzero(~same)
    assert different <= 1


@needs("torch", "transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "parameters",
    [
        {"no_repeat_ngram_size": 1},
        {"no_repeat_ngram_size": 2, "repetition_penalty": 1.2},
        {"no_repeat_ngram_size": 3, "bad_words_ids": [[3], [5, 6], [1, 2, 4], [7]]},
        {"sequence_bias": {(3,): 2.0, (1, 4): -3.0, (2, 4): 5.0, (0, 1, 4): 1.0}},
        {"min_new_tokens": 6, "eos_token_id": [7, 9]},
        {"min_length": 50, "min_new_tokens": 3, "eos_token_id": 7},
        {"begin_suppress_tokens": [4, 5], "bad_words_ids": [[9], [0, 1]], "eos_token_id": 9},
    ],
    ids=str,
)
def test_transformers_looks_back_the_same_way(tiny, parameters):
    import torch

    ours, changed = Sampler.hf(top_k=0, **parameters), 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 9])
        row = np.append(rng.normal(0, 3, 12), np.full(2988, -40)).astype(np.float32)
        ids = rng.integers(0, 5, rng.integers(1, 60))
        prompt = max(len(ids) - int(rng.integers(0, 3)), 1)
        theirs = processors(tiny, {"top_k": 0} | parameters, prompt)
        want = theirs(torch.from_numpy(ids[None]), torch.from_numpy(row[None]))[0].numpy()
        np.testing.assert_allclose(ours.filter(row, ids, prompt=prompt), want, rtol=1e-6)
        changed += np.count_nonzero(want != row)
    assert changed > 10


@needs("transformers")
def test_a_generation_config_of_transformers_is_understood():
    """Whatever is in one: what a new version adds must be put in one of the lists."""
    from transformers import GenerationConfig

    assert Sampler.hf(GenerationConfig()) == Sampler(Temperature(0))
    config = GenerationConfig(do_sample=True, temperature=0.6, top_p=0.9, eos_token_id=[3, 4])
    want = Sampler.hf(temperature=0.6, top_p=0.9)
    assert Sampler.hf(config) == Sampler.hf(**config.to_dict()) == want
    with pytest.raises(ValueError, match=r"^num_beams is 4, which hf does not support"):
        Sampler.hf(GenerationConfig(num_beams=4))


@needs("torch", "transformers")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("parameters", [{"top_k": 20}, {"top_k": 0, "typical_p": 0.8}], ids=str)
def test_transformers_keeps_the_same_ties(tiny, parameters):
    import torch

    theirs, ours, ties = processors(tiny, parameters), Sampler.hf(**parameters), 0
    for row, ids in random_rows():
        row = (row * 4).round() / 4
        want = theirs(torch.from_numpy(ids[None]), torch.from_numpy(row[None]))[0].numpy()
        np.testing.assert_array_equal(ours.filter(row, ids), want)
        ties += np.count_nonzero(want > -np.inf) > 20
    assert ties > 20


PENALTIES = ("logit_bias", "repetition_", "presence_", "frequency_")


@needs("mlx", "mlx_lm")
@pytest.mark.parametrize(
    "parameters",
    [
        {"temp": 0.7, "top_p": 0.9},
        {"temp": 1.0, "min_p": 0.05, "top_k": 20},
        {"temp": 1.3, "min_p": 0.3, "min_tokens_to_keep": 7},
        {"temp": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.03, "top_p": 0.95},
        {"temp": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.01, "xtc_special_tokens": [3, 7]},
        {"temp": 0.5, "repetition_penalty": 1.3, "repetition_context_size": 30, "top_k": 9},
        {"temp": 1.0, "presence_penalty": 1.1, "frequency_penalty": 0.7, "top_p": 0.8,
         "frequency_context_size": 0, "logit_bias": {3: 2.0, 5: -1.0}},
    ],
    ids=str,
)  # fmt: skip
def test_mlx_lm_gives_the_same_scores(parameters, monkeypatch):
    """What it would draw from; of equal tokens it may keep others, but there are none here."""
    import mlx.core as mx
    from mlx_lm import sample_utils

    monkeypatch.setattr(sample_utils, "categorical_sampling", lambda x, temp: x * (1 / temp))
    looking_back = {k: v for k, v in parameters.items() if k.startswith(PENALTIES)}
    filters = sample_utils.make_sampler(
        **{k: parameters[k] for k in parameters.keys() - looking_back}
    )
    processors = sample_utils.make_logits_processors(**looking_back)
    ours, different = Sampler.mlx_lm(**parameters), 0
    for row, ids in random_rows(20, 300):
        scores = mx.array(row[None])
        for process in processors:
            scores = process(mx.array(ids), scores)
        want = np.array(filters(scores - mx.logsumexp(scores, keepdims=True)))[0]
        got = ours.filter(row, ids, 1)
        same = (got > -np.inf) == (want > -np.inf)
        both = same & (got > -np.inf)
        shift = got[both][0] - want[both][0]
        np.testing.assert_allclose(got[both] - shift, want[both], rtol=1e-5, atol=1e-5)
        different += np.count_nonzero(~same)
    assert different <= 1


OFF = {"top_k": 0, "top_p": 1.0, "min_p": 0.0, "temp": 1.0}


def llama_cpp_chain(steps, row, ids):
    """Run llama.cpp's own samplers; return the ids and scores that are left."""
    import llama_cpp

    data = (llama_cpp.llama_token_data * row.size)()
    for i, score in enumerate(row.tolist()):
        data[i] = llama_cpp.llama_token_data(i, score, 0.0)
    array = llama_cpp.llama_token_data_array(data, row.size, -1, False)
    for name, *parameters in steps:
        sampler = getattr(llama_cpp, f"llama_sampler_init_{name}")(*parameters)
        if name in ("penalties", "dry"):
            for i in ids.tolist():
                llama_cpp.llama_sampler_accept(sampler, i)
        llama_cpp.llama_sampler_apply(sampler, ctypes.byref(array))
        llama_cpp.llama_sampler_free(sampler)
    kept = [(array.data[i].id, array.data[i].logit) for i in range(array.size)]
    return {i: score for i, score in kept if score > -np.inf}


LLAMA_CPP = {
    "penalties": lambda p: ("penalties", 3000, 20, *p),
    "top_n_sigma": lambda p: ("top_n_sigma", p),
    "top_k": lambda p: ("top_k", p),
    "typ_p": lambda p: ("typical", p, 1),
    "top_p": lambda p: ("top_p", p, 1),
    "min_p": lambda p: ("min_p", p, 1),
    "xtc_threshold": lambda p: ("xtc", 1.0, p, 1, 7),
    "temp": lambda p: ("temp", p),
    "dynatemp": lambda p: ("temp_ext", *p),
    "dry": lambda p: ("dry", None, *p, None, 0),
}


@needs("llama_cpp")
@pytest.mark.parametrize(
    "parameters",
    [
        {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "temp": 0.8},
        {"penalties": (1.2, 0.3, 0.4), "top_k": 30, "temp": 0.5},
        {"top_n_sigma": 1.5, "temp": 1.5},
        {"typ_p": 0.7},
        {"top_p": 0.9},
        {"min_p": 0.02, "temp": 0.0},
        {"top_k": 60, "xtc_threshold": 0.05, "temp": 0.9},
        {"top_k": 30, "dynatemp": (0.8, 0.5, 1.5)},
        {"dynatemp": (0.3, 0.6, 0.7)},
        # Its top-n-sigma leaves removed tokens in place as -inf; should top-k then meet fewer than
        # k others, its typical-p finds the entropy NaN. Hence a small k here.
        {"penalties": (1.1, 0.1, 0.2), "top_n_sigma": 2.0, "top_k": 12, "typ_p": 0.9,
         "top_p": 0.9, "min_p": 0.03, "xtc_threshold": 0.1, "temp": 0.7},
    ],
    ids=str,
)  # fmt: skip
def test_llama_cpp_gives_the_same_scores(parameters):
    """It works in float32, so a token within its rounding of a cut may go the other way."""
    chain = [LLAMA_CPP[name](value) for name, value in parameters.items()]
    ours = OFF | parameters
    ours.pop("penalties", None)
    if "dynatemp" in ours:
        names = ("temp", "dynatemp_range", "dynatemp_exponent")
        ours |= dict(zip(names, ours.pop("dynatemp"), strict=True))
    if "penalties" in parameters:
        names = ("penalty_repeat", "penalty_freq", "penalty_present")
        ours |= dict(zip(names, parameters["penalties"], strict=True), penalty_last_n=20)
    if "xtc_threshold" in parameters:
        ours["xtc_probability"] = 1.0
    sampler = Sampler.llama_cpp(**ours)
    different = 0
    for row, ids in random_rows():
        want = llama_cpp_chain(chain, row, ids)
        scores = sampler.filter(row, ids)
        got = {i: float(scores[i]) for i in np.flatnonzero(scores > -np.inf).tolist()}
        different += len(want.keys() ^ got.keys())
        for i in want.keys() & got.keys():
            assert got[i] == pytest.approx(want[i], rel=1e-5, abs=1e-5)
    assert different <= 1


@needs("llama_cpp")
@pytest.mark.parametrize(
    ("multiplier", "base", "allowed", "last"),
    [(0.8, 1.75, 2, 64), (1.5, 1.2, 1, 20), (0.3, 3.0, 4, 500), (1.0, 1.0, 2, 30)],
)
def test_llama_cpp_has_the_same_dry(multiplier, base, allowed, last):
    """Without breakers, which it takes as text; those are in its own cases, as ids."""
    names = ("dry_multiplier", "dry_base", "dry_allowed_length", "dry_penalty_last_n")
    given = multiplier, base, allowed, last
    sampler = Sampler.llama_cpp(**OFF, **dict(zip(names, given, strict=True)))
    penalised = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, 3])
        row = rng.normal(0, 3, 9).astype(np.float32)
        ids = rng.integers(0, rng.integers(1, 9), rng.integers(0, 120))
        want = llama_cpp_chain([("dry", None, *given, None, 0)], row, ids)
        scores = sampler.filter(row, ids)
        np.testing.assert_allclose(scores, [want[i] for i in range(9)], rtol=1e-5, atol=1e-5)
        penalised += np.count_nonzero(scores != row)
    assert penalised > 20


@needs("llama_cpp")
@pytest.mark.parametrize(
    ("name", "given", "parameters"),
    [
        ("mirostat_v2", (4.0, 0.3), {"mirostat": 2, "mirostat_tau": 4.0, "mirostat_eta": 0.3}),
        ("adaptive_p", (0.3, 0.8), {"adaptive_target": 0.3, "adaptive_decay": 0.8}),
    ],
)
def test_llama_cpp_remembers_the_same(name, given, parameters):
    """It draws by itself: its token is appended here, as if a call had drawn it."""
    import llama_cpp

    args = (3, *given) if name == "mirostat_v2" else (*given, 3)
    theirs = getattr(llama_cpp, f"llama_sampler_init_{name}")(*args)
    sampler, history = Sampler.llama_cpp(**OFF, **parameters), History([[]])
    different = 0
    for seed in range(50):
        row = np.random.default_rng([seed, 4]).normal(0, 3, 300).astype(np.float32)
        data = (llama_cpp.llama_token_data * row.size)()
        for i, score in enumerate(row.tolist()):
            data[i] = llama_cpp.llama_token_data(i, score, 0.0)
        array = llama_cpp.llama_token_data_array(data, row.size, -1, False)
        llama_cpp.llama_sampler_apply(theirs, ctypes.byref(array))
        token = array.data[array.selected].id
        llama_cpp.llama_sampler_accept(theirs, token)
        want = {array.data[i].id: array.data[i].p for i in range(array.size)}
        got = dict(zip(*map(list, sampler.candidates(row, history)), strict=True))
        different += len(want.keys() ^ got.keys())
        for i in want.keys() & got.keys():
            assert got[i] == pytest.approx(want[i], rel=1e-3, abs=1e-6)
        below = sum(p for i, p in got.items() if i < token)
        assert sampler(row, history, Uniforms([below + got[token] / 2])) == token
        history.append([token])
    llama_cpp.llama_sampler_free(theirs)
    assert different <= 1
