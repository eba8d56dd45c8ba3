"""Supervised fine-tuning as a LightningModule: the policy learns to write like the demonstrations."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from rlhf_lightning.errors import DataError
from rlhf_lightning.interfaces import Demonstration
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import TrainingRow, decode_packed
from rlhf_lightning.model.token_log_probs import ResponseLogProbs, response_predictions
from rlhf_lightning.sft.rows import demonstration_rows, pack
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.tokenization.encoding import length_limit
from rlhf_lightning.training.distributed import shared_loader
from rlhf_lightning.training.supervised import LossSums, SupervisedModule


class SFTModule(SupervisedModule):
    """Mean negative log-likelihood of the response's tokens and its end-of-text."""

    loss_name = "sft/loss"
    trained = "log_probs_of"
    advice = "lower sft.learning_rate, or raise schedule.warmup"

    def __init__(self, language_model: LanguageModel, settings: SFTSettings, steps: int) -> None:
        super().__init__(settings, steps)
        self.log_probs_of = ResponseLogProbs(language_model)

    def loss_sums(self, batch: PackedTokens) -> LossSums:
        log_probs, tokens = self.log_probs_of(batch)
        return LossSums(-log_probs.sum(), tokens.sum(), {})

    def held_out_sums(self, batch: PackedTokens) -> LossSums:
        """The loss, and the fraction of tokens that are the likeliest ones."""
        log_probs, tokens, hits = response_predictions(self.log_probs_of.language_model, batch)
        return LossSums(-log_probs.sum(), tokens.sum(), {"accuracy": (hits.sum(), tokens.sum())})

    def read_texts(self, micro_batch: PackedTokens) -> list[Any]:
        return decode_packed(self.log_probs_of.language_model.tokenizer, micro_batch)


def demonstration_loader(
    demonstrations: Sequence[Demonstration],
    language_model: LanguageModel,
    settings: SFTSettings,
    seed: int,
    rank: int,
    world: int,
    micro_batch_size: int | None = None,
) -> tuple[DataLoader[Any], int]:
    """Shuffled batches of demonstrations, and the number of demonstrations with a row too long to use.

    Args:
        micro_batch_size: of demonstrations, for batches that are lists of micro-batches.

    Raises:
        DataError: all are too long.
    """
    limit = length_limit(settings.max_length, language_model.max_length, "sft.max_length")
    rows: list[TrainingRow] = []
    skipped = 0
    for demonstration in demonstrations:
        encoded = demonstration_rows(language_model, demonstration)
        fitting = [row for row in encoded if max(len(row.ids), len(row.context or ())) <= limit.tokens]
        skipped += len(fitting) < len(encoded)
        rows += fitting
    if not rows:
        raise DataError(f"none of {len(demonstrations)} demonstrations fits {limit.tokens} tokens: {limit.remedy}")

    def blank(tokens: PackedTokens) -> PackedTokens:
        return dataclasses.replace(tokens, response_start=tokens.lengths)

    return shared_loader(rows, settings.batch_size, (seed, rank, world), pack, blank, micro_batch_size), skipped
