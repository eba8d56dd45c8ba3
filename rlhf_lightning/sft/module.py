"""Supervised fine-tuning as a LightningModule: the policy learns to write like the demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from rlhf_lightning.errors import DataError
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import decode_packed
from rlhf_lightning.model.response_log_probs import ResponseLogProbs
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.tokenization.length_limit import length_limit
from rlhf_lightning.training.distributed import all_reduce_sum, shared_loader, world_size
from rlhf_lightning.training.nonfinite import NonFiniteGuard
from rlhf_lightning.training.optimizer import adamw


class SFTModule(NonFiniteGuard):
    """Mean negative log-likelihood of the response tokens and the end-of-text; the prompt is read, not learned."""

    trained = "log_probs_of"
    advice = "lower sft.learning_rate, or raise sft.warmup_fraction"

    def __init__(self, language_model: LanguageModel, settings: SFTSettings, steps: int) -> None:
        super().__init__()
        self.settings, self.steps = settings, steps
        self.log_probs_of = ResponseLogProbs(language_model)

    def training_step(self, batch: PackedTokens, batch_idx: int) -> Tensor:
        log_probs, tokens = self.log_probs_of(batch)
        said, count = -log_probs.sum(), tokens.sum()
        total, count = all_reduce_sum(torch.stack([said, count.to(said)]))
        self.history.append({"sft/loss": (total / count).item()})
        # The processes' gradients are averaged, and each has its part of the tokens.
        loss: Tensor = said * world_size() / count
        return loss

    def texts_of(self, batch: PackedTokens) -> list[Any]:
        return decode_packed(self.log_probs_of.language_model.tokenizer, batch)

    def configure_optimizers(self) -> Any:
        return adamw(self.parameters(), self.settings, self.steps)


def demonstration_loader(
    demonstrations: Sequence[tuple[str, str]],
    language_model: LanguageModel,
    settings: SFTSettings,
    seed: int,
    rank: int,
    world: int,
) -> tuple[DataLoader[Any], int]:
    """Shuffled batches of texts that say where their responses begin, and the number of demonstrations too long to use.

    Raises:
        DataError: none is left.
    """
    limit = length_limit(settings.max_length, language_model.max_length, "sft.max_length")
    rows = []
    for prompt, response in demonstrations:
        ids, start, context = language_model.text_ids(prompt, response)
        if max(len(ids), len(context or ())) <= limit.tokens:
            rows.append((ids, start, context))
    if not rows:
        raise DataError(f"none of {len(demonstrations)} demonstrations fits {limit.tokens} tokens: {limit.remedy}")

    def collate(batch: Sequence[tuple[list[int], int, list[int] | None]]) -> PackedTokens:
        ids, starts, contexts = zip(*batch, strict=True)
        return PackedTokens.of(ids, starts, context=None if contexts[0] is None else PackedTokens.of(contexts))

    def blank(tokens: PackedTokens) -> PackedTokens:
        return dataclasses.replace(tokens, response_start=tokens.lengths)

    loader = shared_loader(rows, settings.batch_size, (seed, rank, world), collate, blank)
    return loader, len(demonstrations) - len(rows)
