"""Networks from packed tokens to scores: trunk with pooling and head, or transformers' classifier.

Shapes: U texts, L tokens of the longest, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rlhf_lightning.model.packing import PackedTokens, packed_hidden, padded_inputs, supports_packing
from rlhf_lightning.model.prompt_encoding import InputFormat
from rlhf_lightning.model.rope import reset_rope
from rlhf_lightning.model.text_vectors import text_groups, token_vectors
from rlhf_lightning.model.trunk import input_format_of, trunk_kind
from rlhf_lightning.reward.components import Pooling, ScoredBatch, apply_head

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ComposedScore(nn.Module):
    """score(x, y) = head(pooling(trunk(x, y))).

    A pooling takes the vectors of a text's tokens as [U, L, D] with the mask [U, L], whether the trunk runs packed or padded.
    """

    def __init__(self, trunk: PreTrainedModel, pooling: Pooling, head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.pooling, self.head = trunk, pooling, head

    @property
    def input_format(self) -> InputFormat:
        return input_format_of(self.trunk)

    def forward(self, tokens: PackedTokens) -> Tensor | ScoredBatch:
        hidden, mask = token_vectors(self.trunk, tokens)
        if not torch.is_autocast_enabled(hidden.device.type):  # head and pooling are in float32 beside a trunk of another dtype
            hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32))
        return apply_head(self.pooling, self.head, hidden, mask, tokens)


class ClassifierScore(nn.Module):
    """The logit of a transformers AutoModelForSequenceClassification with one label.

    A decoder with one linear layer on the last token that isn't the pad's id (transformers' rule) runs packed if it can; others run padded.
    """

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier

    @property
    def trunk(self) -> PreTrainedModel:
        """The classifier without its head."""
        trunk: Any = self.classifier.base_model
        return trunk

    @property
    def input_format(self) -> InputFormat:
        """The trunk's; of an encoder-decoder an encoder's, as transformers gives both sides the full text."""
        input_format = input_format_of(self.trunk)
        return InputFormat("encoder") if input_format.kind == "encoder_decoder" else input_format

    def forward(self, tokens: PackedTokens) -> Tensor:
        pad = int(self.classifier.config.pad_token_id)
        if is_linear_score(self.classifier) and supports_packing(self.trunk):
            score: Any = self.classifier.score
            logits: Tensor = score(packed_hidden(self.trunk, tokens).index_select(0, _last_positions(tokens, pad)))
        else:
            logits = self._padded_logits(tokens, pad)
        return logits[:, 0].float()

    def _padded_logits(self, tokens: PackedTokens, pad: int) -> Tensor:
        groups = text_groups(self.trunk, tokens)
        if groups is None:
            return cast(Tensor, self.classifier(**padded_inputs(tokens, pad)).logits)
        logits = []
        for rows in groups:
            reset_rope(self.classifier)
            logits.append(self.classifier(**padded_inputs(tokens.select(rows)[0], pad)).logits)
        return torch.cat(logits)[torch.cat(groups).argsort()]


def is_linear_score(classifier: PreTrainedModel) -> bool:
    """True if the head is one linear layer without bias on the last token of a decoder."""
    score = getattr(classifier, "score", None)
    return trunk_kind(classifier.config) == "decoder" and isinstance(score, nn.Linear) and score.bias is None


def _last_positions(tokens: PackedTokens, pad: int) -> Tensor:
    """[U] packed index of each text's last token other than the pad; of the first one if all are pads."""
    starts = tokens.lengths.cumsum(0) - tokens.lengths
    positions = torch.arange(len(tokens.ids), device=starts.device)
    first = starts.repeat_interleave(tokens.lengths)
    texts = torch.arange(len(tokens), device=starts.device).repeat_interleave(tokens.lengths)
    return starts.scatter_reduce(0, texts, torch.where(tokens.ids != pad, positions, first), "amax")
