"""The sides that draw tokens in language model servers: transformers' warpers and llama.cpp."""

import ctypes

import numpy as np

from benchmarks import inputs
from benchmarks.numpy_idioms import per_row
from benchmarks.timing import Refilled


def transformers():
    """Return version and operations of Hugging Face's warpers, in the order of `generate`."""
    import torch
    import transformers as hf
    from transformers.generation import logits_process as warpers

    def sample(x, temperature=1.0, top_k=None, top_p=None):
        chain = [warpers.TemperatureLogitsWarper(temperature)]
        chain += [warpers.TopKLogitsWarper(top_k)] if top_k else []
        chain += [warpers.TopPLogitsWarper(top_p)] if top_p else []
        return draw(x, None, chain)

    def sampler(x, preset, tokens, repetition_penalty=None, top_k=50, top_p=None, typical_p=None):
        assert preset == "hf"
        chain = []
        if repetition_penalty:
            chain.append(warpers.RepetitionPenaltyLogitsProcessor(repetition_penalty))
        chain.append(warpers.TopKLogitsWarper(top_k))
        chain += [warpers.TopPLogitsWarper(top_p)] if top_p else []
        chain += [warpers.TypicalLogitsWarper(typical_p)] if typical_p else []
        return draw(x, torch.from_numpy(inputs.tokens(x, tokens)), chain)

    def draw(x, ids, chain):
        logits, generator = torch.from_numpy(x).clone(), torch.Generator().manual_seed(0)

        def call():
            scores = logits
            with torch.inference_mode():
                for warper in chain:
                    scores = warper(ids, scores)
                probs = torch.softmax(scores, -1)
                return torch.multinomial(probs, 1, generator=generator)

        return call

    return hf.__version__, {"sample": sample, "sampler": sampler}


def llama_cpp():
    """Return version and operations of llama.cpp's sampler chain.

    It works in place on an array of candidates: (id, logit, probability) for each token. Filling
    that array is not timed, unless that is asked for; then it is a copy of one made beforehand,
    which is the least that it can cost.
    """
    import llama_cpp as lib

    def steps(temperature=1.0, top_k=None, top_p=None):
        # Top-k comes first: the same tokens survive, and the others are not worth heating.
        yield from [lib.llama_sampler_init_top_k(top_k)] if top_k else []
        yield lib.llama_sampler_init_temp(temperature)
        yield from [lib.llama_sampler_init_top_p(top_p, 1)] if top_p else []
        yield lib.llama_sampler_init_dist(0)

    def in_default_order(
        size, tokens, penalty_repeat=1.0, dry_multiplier=0.0, dry_penalty_last_n=64, top_k=40,
        top_p=0.95, min_p=0.05, temp=0.8,
    ):  # fmt: skip
        looking_back = [lib.llama_sampler_init_penalties(size, 64, penalty_repeat, 0.0, 0.0)]
        if dry_multiplier:
            dry = dry_multiplier, 1.75, 2, dry_penalty_last_n
            looking_back.append(lib.llama_sampler_init_dry(None, *dry, None, 0))
        for step in looking_back:
            for token in tokens.tolist():
                lib.llama_sampler_accept(step, token)
        yield from looking_back
        yield lib.llama_sampler_init_top_k(top_k)
        yield lib.llama_sampler_init_top_p(top_p, 1)
        yield lib.llama_sampler_init_min_p(min_p, 1)
        yield lib.llama_sampler_init_temp(temp)
        yield lib.llama_sampler_init_dist(0)

    def chain(samplers):
        made = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        for sampler in samplers:
            lib.llama_sampler_chain_add(made, sampler)
        return made

    def prepare(x, samplers, filling=False):
        rows = [_Candidates(lib, row) for row in x]
        chains = [chain(steps) for steps in samplers]
        places = [(s, ctypes.byref(c.array), c) for s, c in zip(chains, rows, strict=True)]

        def refill():
            for candidates in rows:
                candidates.refill()

        def call():
            for sampler, place, _ in places:
                lib.llama_sampler_apply(sampler, place)
            return [c.array.data[c.array.selected].id for _, _, c in places]

        made = Refilled(refill, call)
        return made.__call__ if filling else made

    def greedy():
        yield lib.llama_sampler_init_greedy()

    def sample(x, **filters):
        return prepare(x, [steps(**each) for _, each in per_row(x, filters)])

    def sampler(x, preset, tokens, text=False, filling=False, kinds=None, **parameters):
        assert preset == "llama_cpp"
        chains = inputs.chains(x, kinds or [parameters])
        given = zip(chains, inputs.tokens(x, tokens, text), strict=True)
        steps = [in_default_order(x.shape[-1], ids, **each) for each, ids in given]
        return prepare(x, steps, filling)

    ops = {
        "greedy": lambda x: prepare(x, [greedy() for _ in x]), "sample": sample,
        "sample per row": sample, "sampler": sampler,
    }  # fmt: skip
    return lib.__version__, ops


class _Candidates:
    """An array of candidates for one row."""

    def __init__(self, lib, row):
        fields = np.dtype([("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        self.full = np.zeros(row.size, fields)
        self.full["id"], self.full["logit"] = np.arange(row.size), row
        self.work = np.empty_like(self.full)
        data = self.work.ctypes.data_as(ctypes.POINTER(lib.llama_token_data))
        self.array = lib.llama_token_data_array(data, row.size, -1, False)

    def refill(self):
        self.work.view(np.uint8)[...] = self.full.view(np.uint8)  # not a field at a time
        self.array.size, self.array.selected, self.array.sorted = self.full.size, -1, False
