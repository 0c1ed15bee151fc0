"""Speculative decoding and a step of beam search, as engines write them over PyTorch.

`verify` is vLLM's ``v1/sample/rejection_sampler.py`` (0.11): the filters by a sort of the whole
batch, probabilities, an id by exponential noise for each place where a draft may be rejected, and
for the last. Its kernels for GPUs, which walk along the drafts of a request, are written out with
tensors. `beam_step` is transformers' ``_beam_search`` and vLLM's: a matrix of log-probabilities,
from which the best of each group are taken.
"""

import torch


def apply_top_p(logits, p):
    """Set what top_p removes to -inf, by a sort; logits may be written."""
    logits_sort, logits_idx = logits.sort(dim=-1, descending=False)
    probs_sort = logits_sort.softmax(dim=-1)
    probs_sum = torch.cumsum(probs_sort, dim=-1, out=probs_sort)
    top_p_mask = probs_sum <= 1 - p
    top_p_mask[..., -1] = False
    logits_sort.masked_fill_(top_p_mask, -float("inf"))
    return logits_sort.scatter(dim=-1, index=logits_idx, src=logits_sort)


def noisy_argmax(probs):
    """Draw an id from each row: the largest ratio of a probability to exponential noise."""
    return probs.div(torch.empty_like(probs).exponential_()).argmax(dim=-1)


def verify(draft_ids, logits, draft_logits, top_p):
    """Return ids and counts of requests, as fastsoftmax's `verify`."""
    batch, length = draft_ids.shape
    target = apply_top_p(logits, top_p).softmax(dim=-1, dtype=torch.float32)
    probs, bonus = target[:, :length], noisy_argmax(target[:, length])
    of_drafts = draft_ids[..., None]
    target_prob = probs.gather(-1, of_drafts)[..., 0]
    uniform = torch.rand((batch, length), dtype=torch.float64)
    if draft_logits is None:
        draft_prob = 1
        left = probs.scatter(-1, of_drafts, 0)
    else:
        draft = apply_top_p(draft_logits, top_p).softmax(dim=-1, dtype=torch.float32)
        draft_prob = draft.gather(-1, of_drafts)[..., 0]
        left = torch.clamp(probs - draft, min=0)
    recovered = noisy_argmax(left)
    accepted = (target_prob / draft_prob >= uniform).cumprod(dim=-1)
    counts = accepted.sum(dim=-1)
    place = torch.arange(length + 1)
    ids = torch.where(place[:-1] < counts[:, None], draft_ids, recovered)
    ids = torch.cat([ids, bonus[:, None]], dim=-1)
    ids.masked_fill_(place > counts[:, None], -1)
    return ids, counts + 1


def beam_step(logits, scores, beams):
    """Return scores, parents and ids of the best continuations of each group."""
    log_probs = torch.nn.functional.log_softmax(logits, dim=-1)
    log_probs = log_probs + scores[..., None]
    kept, flat = torch.topk(log_probs.flatten(-2), k=beams)
    return kept, flat // logits.shape[-1], flat % logits.shape[-1]
