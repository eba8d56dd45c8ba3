"""Summed log-probabilities of responses under a language model, with all texts packed into one row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens, unpack
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.tensors import log_probs_of


class ResponseLogProbs(nn.Module):
    """`response_log_probs` as a module, for training: one module to call, move and shard."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.language_model = language_model
        self.model = language_model.model

    def forward(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        return response_log_probs(self.language_model, tokens)


def response_log_probs(language_model: LanguageModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """The log-probability of each response given its prompt, and its number of tokens.

    The output layer runs only on positions that predict a response token. A text's first token has no prediction and doesn't count.

    Args:
        tokens: U texts with `response_start`, from which the response with its end-of-text extends to the text's end, or all responses
            that `response_mask` marks.

    Returns:
        [U] sums in nats, float32 at least, and [U] numbers of tokens.
    """
    logits, targets, counts = _predictions(language_model, tokens)
    return unpack(log_probs_of(logits, targets), counts)[0].sum(1), counts


def response_predictions(language_model: LanguageModel, tokens: PackedTokens) -> tuple[Tensor, Tensor, Tensor]:
    """`response_log_probs`, and the number of each response's tokens that are the likeliest ones, [U]."""
    logits, targets, counts = _predictions(language_model, tokens)
    hits = unpack((logits.argmax(-1) == targets).float(), counts)[0].sum(1)
    return unpack(log_probs_of(logits, targets), counts)[0].sum(1), counts, hits


def _predictions(language_model: LanguageModel, tokens: PackedTokens) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [n, V] and ids [n] of the response tokens, and their number in each text [U]."""
    assert tokens.response_start is not None, "the texts need a response_start"
    starts = (tokens.lengths.cumsum(0) - tokens.lengths).repeat_interleave(tokens.lengths)
    first = tokens.response_start.clamp(min=1)
    predicted = torch.arange(len(tokens.ids), device=starts.device) - starts >= first.repeat_interleave(tokens.lengths)
    counts = (tokens.lengths - first).clamp(min=0)
    if tokens.response_mask is not None:
        predicted = predicted & tokens.response_mask
        counts = unpack(predicted, tokens.lengths)[0].sum(1)
    indices = predicted.nonzero().flatten()
    hidden = text_vectors(language_model.trunk, tokens)[indices - 1]
    return language_model.logits(hidden), tokens.ids[indices], counts
