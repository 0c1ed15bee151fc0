"""Arguments of the presets of Sampler: names of other systems, configurations, what is wrong."""

import inspect
import re

import numpy as np
import pytest

from fastsoftmax import Sampler
from fastsoftmax.steps import BadWords, LogitBias, MinLength, RepetitionPenalty, Temperature, TopK

# ---- names ---------------------------------------------------------------------------------------

LLAMA_CPP = {
    "temperature": "temp", "typical": "typ_p", "typical_p": "typ_p", "top_nsigma": "top_n_sigma",
    "repeat_last_n": "penalty_last_n", "last_n_tokens_size": "penalty_last_n",
    "repeat_penalty": "penalty_repeat", "frequency_penalty": "penalty_freq",
    "presence_penalty": "penalty_present", "dynatemp_exp": "dynatemp_exponent",
    "mirostat_mode": "mirostat", "mirostat_ent": "mirostat_tau", "mirostat_lr": "mirostat_eta",
    "dry_sequence_breaker": "dry_sequence_breakers",
}  # fmt: skip


@pytest.mark.parametrize("name", LLAMA_CPP)
def test_other_names_of_llama_cpp(name):
    ours = LLAMA_CPP[name]
    value = {"mirostat": 2, "penalty_last_n": 7, "dry_sequence_breakers": [[3]]}.get(ours, 0.5)
    with_it = {"penalty_repeat": 1.3, "dry_multiplier": 1.0, "dynatemp_range": 0.2}
    if ours.startswith("mirostat_"):
        with_it["mirostat"] = 2
    with_it.pop(ours, None)
    sampler = Sampler.llama_cpp(**with_it, **{name: value})
    assert sampler == Sampler.llama_cpp(**with_it, **{ours: value})
    assert sampler != Sampler.llama_cpp(**with_it)
    message = rf"^{name} is {re.escape(repr(value))}, and by another name .*; allowed is one"
    with pytest.raises(TypeError, match=message):
        Sampler.llama_cpp(**{ours: value, name: value})


def test_an_unknown_name_is_an_error_that_lists_the_others():
    for preset in (Sampler.llama_cpp, Sampler.vllm, Sampler.mlx_lm):
        unknown = rf"^tfs_z is 0.5; {preset.__name__} has no such parameter, allowed are .*top_k"
        with pytest.raises(TypeError, match=unknown):
            preset(tfs_z=0.5)
        with pytest.raises(TypeError, match=r"^seed is 5; allowed is seed=, with position=, in ca"):
            preset(seed=5)
    with pytest.raises(
        TypeError, match=r"^topk is 5; hf has no such parameter, allowed are .*top_k"
    ):
        Sampler.hf(topk=5)
    with pytest.raises(TypeError, match="mlx_lm"):
        Sampler.mlx_lm(temperature=0.5)


@pytest.mark.parametrize("preset", [Sampler.vllm, Sampler.llama_cpp, Sampler.mlx_lm])
def test_ids_of_biases_may_be_text(preset):
    want = LogitBias({50256: -100.0, 3: 2.0})
    assert preset(logit_bias={"50256": -100, "3": 2.0}).steps[0] == want
    assert preset(logit_bias={"50256": -100, 3: 2.0}).steps[0] == want
    assert preset(logit_bias=None) == preset()
    for key in ("a", "-1", "1.0", " 1", "\u0663", ""):
        with pytest.raises(TypeError, match=f"^logit_bias has {re.escape(repr(key))}; allowed are"):
            preset(logit_bias={key: 1.0})
    with pytest.raises(ValueError, match=r"^logit_bias has 3 twice, as an integer and as text"):
        preset(logit_bias={3: 1.0, "3": 1.0})


# ---- a GenerationConfig --------------------------------------------------------------------------


class Config:
    """What is like a GenerationConfig of transformers."""

    def __init__(self, **given):
        self.given = given

    def to_dict(self):
        return {"transformers_version": "5", "max_length": 20, "use_cache": True} | self.given


def test_a_config_is_read_and_keywords_win():
    config = Config(do_sample=True, temperature=0.5, top_k=0, eos_token_id=2, min_new_tokens=3)
    want = Sampler(MinLength(3, [2]), Temperature(0.5))
    assert Sampler.hf(config) == Sampler.hf(**config.to_dict()) == want
    assert Sampler.hf(config, temperature=1.0) == Sampler(MinLength(3, [2]))
    assert Sampler.hf(Config()) == Sampler(TopK(50, "all"))  # says nothing of do_sample
    assert Sampler.hf(Config(do_sample=False, repetition_penalty=1.1)) == Sampler(
        RepetitionPenalty(1.1), Temperature(0)
    )
    with pytest.raises(TypeError, match=r"^config is \{\}; allowed is a GenerationConfig"):
        Sampler.hf({})


@pytest.mark.parametrize(
    ("name", "neutral", "value"),
    [("num_beams", 1, 4), ("guidance_scale", 1.0, 1.5), ("top_h", None, 0.4),
     ("encoder_repetition_penalty", 1.0, 1.2), ("remove_invalid_values", False, True),
     ("forced_eos_token_id", None, 3), ("watermarking_config", None, object()),
     ("exponential_decay_length_penalty", None, (15, 1.6)), ("penalty_alpha", 0.0, 0.6)],
)  # fmt: skip
def test_what_is_not_supported_is_named(name, neutral, value):
    assert Sampler.hf(**{name: neutral}) == Sampler.hf(**{name: None}) == Sampler.hf()
    message = rf"^{name} is .+, which hf does not support; allowed is None"
    with pytest.raises(ValueError, match=message):
        Sampler.hf(**{name: value})


def test_what_says_nothing_of_sampling_is_passed_over():
    assert Sampler.hf(max_new_tokens=5, stop_strings=["a"], output_scores=True) == Sampler.hf()


def test_a_bad_word_that_is_an_end_token_is_passed_over():
    """As NoBadWordsLogitsProcessor does."""
    sampler = Sampler.hf(bad_words_ids=[[2], [5, 2], [7]], eos_token_id=2, top_k=0)
    assert sampler == Sampler(BadWords([[5, 2], [7]]))


# ---- what is wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Sampler.hf(top_p=1.5), "top_p is 1.5; allowed are 0 to 1, or None"),
        (lambda: Sampler.hf(temperature=-1.0), "temperature is -1.0; allowed are finite numbers"),
        (lambda: Sampler.hf(top_k=-1), "top_k is -1; allowed is 0 and above"),
        (lambda: Sampler.vllm(top_k=-2), "top_k is -2; allowed is -1 and above"),
        (lambda: Sampler.vllm(temperature=-0.5), "temperature is -0.5; allowed"),
        (lambda: Sampler.llama_cpp(min_p=2.0), "min_p is 2.0; allowed are finite numbers up to 1"),
        (lambda: Sampler.llama_cpp(penalty_repeat=-1.0), "penalty_repeat is -1.0; .* above 0"),
        (lambda: Sampler.llama_cpp(penalty_last_n=-2), "penalty_last_n is -2; allowed is -1"),
        (lambda: Sampler.llama_cpp(logit_bias={1: np.nan}), "logit_bias has nan for 1; allowed"),
        (lambda: Sampler.hf(suppress_tokens=[3, -1]), "suppress_tokens has -1; allowed"),
        (lambda: Sampler.llama_cpp(mirostat=1), "mirostat is 1; allowed are 0 and 2"),
        (lambda: Sampler.llama_cpp(mirostat=3), "mirostat is 3; allowed are 0 and 2"),
        (lambda: Sampler.llama_cpp(dry_sequence_breakers=[[]]), r"dry_sequence_breakers has \[\]"),
        (lambda: Sampler.llama_cpp(adaptive_decay=1.0), "adaptive_decay is 1.0; allowed are 0 to"),
        (lambda: Sampler.vllm(min_tokens=5), "min_tokens is 5; allowed without stop_token_ids is"),
        (lambda: Sampler.hf(min_new_tokens=5), "min_new_tokens is 5; allowed without eos_token_id"),
        (lambda: Sampler.hf(min_length=5), "min_length is 5; allowed without eos_token_id is 0"),
        (lambda: Sampler.mlx_lm(xtc_threshold=0.6), "xtc_threshold is 0.6; allowed are 0 to 0.5"),
    ],
)
def test_wrong_parameter_of_a_preset(make, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        make()


PRESETS = [Sampler.hf, Sampler.vllm, Sampler.llama_cpp, Sampler.mlx_lm]
NO_NUMBERS = ("do_sample", "logit_bias", "sequence_bias", "dry_sequence_breakers", "bad_words",
              "bad_words_ids", "eos_token_id", "stop_token_ids", "allowed_token_ids",
              "suppress_tokens", "begin_suppress_tokens", "xtc_special_tokens")  # fmt: skip
INTEGERS = ("top_k", "min_keep", "min_tokens_to_keep", "penalty_last_n", "dry_penalty_last_n",
            "dry_allowed_length", "mirostat", "min_tokens", "no_repeat_ngram_size", "min_length",
            "min_new_tokens", "repetition_context_size", "presence_context_size",
            "frequency_context_size")  # fmt: skip
NUMBERS = [
    (preset, name, parameter.default)
    for preset in PRESETS
    for name, parameter in inspect.signature(preset).parameters.items()
    if parameter.kind is parameter.KEYWORD_ONLY and name not in NO_NUMBERS
]


@pytest.mark.parametrize(
    ("preset", "name", "default"), NUMBERS, ids=lambda p: getattr(p, "__name__", str(p))
)
def test_no_number_of_a_preset_is_dropped_in_silence(preset, name, default):
    for value in (np.nan, np.inf, -np.inf, "0.5", b"1", True, [0.5], 1j):
        error = ValueError if isinstance(value, float) and name not in INTEGERS else TypeError
        with pytest.raises(error, match=rf"^{name} is {re.escape(repr(value))}; allowed (are|is) "):
            preset(**{name: value})
    if preset == Sampler.hf or default is None:
        preset(**{name: None})
    else:
        with pytest.raises(TypeError, match=f"^{name} is None; allowed are "):
            preset(**{name: None})


@pytest.mark.parametrize(
    ("preset", "name"),
    [(Sampler.hf, "suppress_tokens"), (Sampler.vllm, "allowed_token_ids"),
     (Sampler.vllm, "logit_bias"), (Sampler.llama_cpp, "logit_bias")],
    ids=lambda p: getattr(p, "__name__", p),
)  # fmt: skip
def test_ids_of_a_preset_are_no_bools(preset, name):
    ids = [False, True]
    with pytest.raises(TypeError, match=f"^{name} has False; allowed are token ids"):
        preset(**{name: dict.fromkeys(ids, 1.0) if name == "logit_bias" else ids})
    with pytest.raises(TypeError, match=f"^{name} is 5; allowed"):
        preset(**{name: 5})


def test_do_sample_is_a_bool():
    with pytest.raises(TypeError, match=r"^do_sample is 'no'; allowed are True and False"):
        Sampler.hf(do_sample="no")
