"""What a language model says about whole responses: their summed log-probabilities, all texts packed into one row."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens, unpack
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.tensors import log_probs_of


class ResponseLogProbs(nn.Module):
    """`response_log_probs` as a module: what trains on it has one model to call, to move and to share out."""

    def __init__(self, language_model: LanguageModel) -> None:
        super().__init__()
        self.language_model = language_model
        self.model = language_model.model

    def forward(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        return response_log_probs(self.language_model, tokens)


def response_log_probs(language_model: LanguageModel, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
    """The log-probability of each response given its prompt, and how many tokens it sums over.

    The output layer runs only where a response token is predicted; the trunk without padding where it can. The very first token of a
    text, which nothing predicts, counts for nothing.

    Args:
        tokens: U texts with `response_start`; what stands from there to the text's end is the response with its end-of-text.

    Returns:
        [U] sums in nats, float32 at least, and [U] numbers of tokens.
    """
    assert tokens.response_start is not None, "the texts must say where their responses begin"
    starts = (tokens.lengths.cumsum(0) - tokens.lengths).repeat_interleave(tokens.lengths)
    first = tokens.response_start.clamp(min=1)
    predicted = torch.arange(len(tokens.ids), device=starts.device) - starts >= first.repeat_interleave(tokens.lengths)
    places = predicted.nonzero().flatten()
    hidden = text_vectors(language_model.trunk, tokens)[places - 1]
    log_probs = log_probs_of(language_model.logits(hidden), tokens.ids[places])
    counts = (tokens.lengths - first).clamp(min=0)
    return unpack(log_probs, counts)[0].sum(1), counts
