"""The error for a keyword that a function does not have: it names what is meant."""

from collections.abc import Iterable

#: What other libraries call an argument: what it may be called here.
SYNONYMS = {
    "a": ("x", "logits"),
    "input": ("x", "logits"),
    "x": ("logits",),
    "logits": ("x",),
    "dim": ("axis",),
    "keepdim": ("keepdims",),
    "mask": ("where",),
    "where": ("mask",),
    "bitmask": ("mask",),
    "temp": ("temperature",),
    "tau": ("temperature",),
    "n": ("k",),
    "k": ("n", "top_k"),
    "topk": ("top_k",),
    "p": ("top_p",),
    "minp": ("min_p",),
    "min_tokens_to_keep": ("min_keep",),
    "target": ("targets",),
    "labels": ("targets",),
    "input_ids": ("ids",),
    "draft_token_ids": ("draft_ids",),
    "draft_probs": ("draft_logits",),
    "num_beams": ("beams",),
    "beam_scores": ("scores",),
    "num_samples": ("size",),
    "replacement": ("replace",),
    "generator": ("rng",),
    "random_state": ("rng",),
    "key": ("seed",),
    "num_workers": ("workers",),
    "n_jobs": ("workers",),
}

#: What to do instead where no argument has that meaning; and the argument that this needs, if any.
INSTEAD = {
    "dtype": ("", "cast the array with astype, or give out= of that dtype"),
    "largest": ("mode", "pass mode='largest' or 'smallest'"),
    "mask": ("logits", "set what does not count to -inf in the logits"),
    "where": ("logits", "set what does not count to -inf in the logits"),
    "seed": ("rng", "pass rng=seed, or a numpy.random.Generator"),
    "position": ("rng", "pass rng=, a numpy.random.Generator"),
    "size_average": ("reduction", "pass reduction='mean' or 'sum'"),
    "reduce": ("reduction", "pass reduction='none', 'mean' or 'sum'"),
}


def unknown_keyword(function: str, keyword: str, own: Iterable[str]) -> str:
    """Return the text of the TypeError for `keyword`, which `function` does not have.

    `own` are the names of the function's arguments.
    """
    names = [name for name in own if name != "self"]
    text = f"{function}() has no argument {keyword!r}"
    for name in SYNONYMS.get(keyword, ()):
        if name in names:
            return f"{text}; it is called {name} here"
    needed, instead = INSTEAD.get(keyword, ("", ""))
    if instead and (not needed or needed in names):
        return f"{text}; {instead}"
    return f"{text}; allowed are {', '.join(names)}"
