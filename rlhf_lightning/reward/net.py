"""What stands between packed tokens and scores: a trunk with pooling and head, or a classifier of transformers.

Shapes: U texts, L tokens of the longest, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from rlhf_lightning.backbone.packing import PackedTokens, padded_inputs
from rlhf_lightning.backbone.text_rows import Reading
from rlhf_lightning.backbone.trunk import reading_of, token_vectors
from rlhf_lightning.reward.parts import Pooling, said
from rlhf_lightning.reward.scored import Scored

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
    def reading(self) -> Reading:
        return reading_of(self.trunk)

    def forward(self, tokens: PackedTokens) -> Tensor | Scored:
        hidden, mask = token_vectors(self.trunk, tokens)
        return said(self.pooling, self.head, hidden, mask, tokens)


class ClassifierScore(nn.Module):
    """The one logit of a transformers AutoModelForSequenceClassification, run padded: decoders find the last token by the pad's id."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier

    @property
    def trunk(self) -> PreTrainedModel:
        """The classifier without its head."""
        trunk: Any = self.classifier.base_model
        return trunk

    @property
    def reading(self) -> Reading:
        """As the trunk's, but for an encoder-decoder: transformers' classifiers give the whole text to both of its sides."""
        own = reading_of(self.trunk)
        return Reading("encoder") if own.kind == "encoder_decoder" else own

    def forward(self, tokens: PackedTokens) -> Tensor:
        logits: Tensor = self.classifier(**padded_inputs(tokens, int(self.classifier.config.pad_token_id))).logits
        return logits[:, 0].float()
