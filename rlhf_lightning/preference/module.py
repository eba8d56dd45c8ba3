"""Preference optimisation of a policy on judgements of existing responses, as a LightningModule.

Shapes: J judgements and U distinct texts of a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.prompt_encoding import decode_packed
from rlhf_lightning.model.token_log_probs import ResponseLogProbs, response_log_probs
from rlhf_lightning.optimization.parameters import OptimizationDefaults
from rlhf_lightning.preference.examples import PreferenceBatch, TextTable
from rlhf_lightning.preference.record import Answers, Compared, PreferenceLoss, Thumbed
from rlhf_lightning.preference.settings import PreferenceSettings
from rlhf_lightning.training.distributed import all_reduce_sum
from rlhf_lightning.training.sharding import unsharded_weights
from rlhf_lightning.training.supervised import LossSums, SupervisedModule

REFERENCE_BATCH = 64
"""Texts of similar length that the reference reads at a time."""


class PreferenceModule(SupervisedModule):
    """The weighted mean of a preference loss over the judgements of a batch.

    Each distinct text of a batch is read once for all its judgements. The reference is the policy at the start of the training: its
    log-probabilities are computed before the first step and saved in checkpoints. Dropout is off throughout (eval mode), so that the
    implicit rewards are 0 at the start.

    Args:
        loss: of the group preference_loss.
        reference_rows: rows of the texts whose log-probabilities under the reference are needed.
        evaluated_rows: those of held-out texts, read apart so that the others are read as without them.
    """

    loss_name = "loss"
    trained = "log_probs_of"
    optimization_defaults = OptimizationDefaults(weight_decay=0.0)
    advice = "lower preference.learning_rate, or raise preference_loss.beta"

    def __init__(
        self,
        language_model: LanguageModel,
        loss: PreferenceLoss,
        settings: PreferenceSettings,
        steps: int,
        table: TextTable,
        reference_rows: np.ndarray,
        evaluated_rows: Sequence[int] | np.ndarray = (),
    ) -> None:
        super().__init__(settings, steps)
        self.log_probs_of = ResponseLogProbs(language_model)
        self.loss: Any = loss
        self.table, self.reference_rows = table, reference_rows
        self.evaluated_rows = np.setdiff1d(np.asarray(evaluated_rows, dtype=int), reference_rows)
        self.reference: Tensor | None = None
        self.divergence: Tensor | None = None

    def on_train_start(self) -> None:
        self.log_probs_of.eval()
        if self.reference is None:
            rank, world = self.trainer.global_rank, self.trainer.world_size
            # In the precision of the steps, so that the log-ratios are 0 at the start.
            with self.trainer.precision_plugin.forward_context(), unsharded_weights(self.log_probs_of):
                log_probs = text_log_probs(self.log_probs_of.language_model, self.table, self.reference_rows[rank::world])
                if len(self.evaluated_rows):
                    log_probs += text_log_probs(self.log_probs_of.language_model, self.table, self.evaluated_rows[rank::world])
            self.reference = self.trainer.strategy.reduce(log_probs.to(self.device), reduce_op="sum").cpu()

    def prepare_step(self, micro_batches: list[PreferenceBatch]) -> None:
        self.log_probs_of.eval()
        if micro_batches[0].up is not None:
            self.divergence = self._divergence(micro_batches)

    def loss_sums(self, batch: PreferenceBatch) -> LossSums:
        log_probs, tokens = self.log_probs_of(batch.tokens)
        answers = self._answers(log_probs, tokens, batch.text_rows)
        if batch.up is None:
            judged = Compared(_at(answers, batch.index["chosen"]), _at(answers, batch.index["rejected"]))
            losses = self.loss(judged)
            metrics = comparison_metrics(judged, self.loss)
            weights = dict.fromkeys(metrics, batch.weight)
        else:
            assert self.divergence is not None
            thumbed = Thumbed(_at(answers, batch.index["judged"]), batch.up, self.divergence)
            losses = self.loss(thumbed)
            metrics = thumb_metrics(thumbed, self.loss)
            weights = {name: batch.weight * counted for name, counted in thumb_sides(batch.up).items()}
        sums = {name: ((values * weights[name]).sum(), weights[name].sum()) for name, values in metrics.items()}
        return LossSums((losses * batch.weight).sum(), batch.weight.sum(), sums)

    def step_metrics(self, means: dict[str, Tensor]) -> dict[str, float]:
        metrics = super().step_metrics(means)
        return metrics | {"rewards/margins": metrics["rewards/chosen"] - metrics["rewards/rejected"]}

    def read_texts(self, micro_batch: PreferenceBatch) -> list[Any]:
        return decode_packed(self.log_probs_of.language_model.tokenizer, micro_batch.tokens)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["reference"] = self.reference

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.reference = checkpoint["reference"]

    def _answers(self, log_probs: Tensor, tokens: Tensor, rows: Tensor) -> Answers:
        reference = None if self.reference is None else self.reference[rows.cpu()].to(log_probs.device)
        return Answers(log_probs, tokens, reference)

    @torch.no_grad()
    def _divergence(self, micro_batches: list[PreferenceBatch]) -> Tensor:
        """The mean log-ratio of mismatched pairs over a step's judgements on all processes, at least 0."""
        sums = []
        for batch in micro_batches:
            assert batch.mismatched is not None
            assert batch.mismatched_rows is not None
            log_probs, tokens = self.log_probs_of(batch.mismatched)
            ratios = self._answers(log_probs, tokens, batch.mismatched_rows).log_ratio()
            counts = (batch.weight > 0).float()
            sums.append(torch.stack([(ratios * counts).sum(), counts.sum()]))
        total, count = all_reduce_sum(torch.stack(sums).sum(0))
        mean: Tensor = total / count.clamp(min=1)
        return mean.clamp(min=0)


@torch.no_grad()
def text_log_probs(language_model: LanguageModel, table: TextTable, rows: Sequence[int] | np.ndarray) -> Tensor:
    """[len(table)] summed log-probabilities of these rows' responses, 0 elsewhere; on the CPU."""
    order = sorted((int(row) for row in rows), key=table.length)
    device = language_model.model.device
    parts = [order[start : start + REFERENCE_BATCH] for start in range(0, len(order), REFERENCE_BATCH)]
    log_probs = [response_log_probs(language_model, table.pack(part).to(device))[0].cpu() for part in parts]
    summed = torch.zeros(len(table), dtype=log_probs[0].dtype if log_probs else torch.float32)
    if log_probs:
        summed[torch.tensor(order)] = torch.cat(log_probs)
    return summed


@torch.no_grad()
def comparison_metrics(judged: Compared, loss: PreferenceLoss) -> dict[str, Tensor]:
    """[J] of each pair, under TRL's names; a tie of rewards is no hit."""
    chosen, rejected = loss.rewards(judged.chosen), loss.rewards(judged.rejected)
    return {
        "rewards/chosen": chosen,
        "rewards/rejected": rejected,
        "rewards/accuracies": (chosen > rejected).float(),
        "logps/chosen": judged.chosen.log_probs,
        "logps/rejected": judged.rejected.log_probs,
    }


@torch.no_grad()
def thumb_metrics(judged: Thumbed, loss: PreferenceLoss) -> dict[str, Tensor]:
    """[J] of each thumb, counted as `thumb_sides` says; a response is right on its side of it."""
    rewards, up = loss.rewards(judged.answers), judged.up
    neutral = loss.rewards(Answers(judged.divergence, torch.ones_like(up), torch.zeros_like(judged.divergence)))
    return {
        "rewards/chosen": rewards,
        "rewards/rejected": rewards,
        "rewards/accuracies": ((rewards > neutral) == (up > 0)).float(),
        "logps/chosen": judged.answers.log_probs,
        "logps/rejected": judged.answers.log_probs,
        "kl": judged.divergence.expand_as(up),
    }


def thumb_sides(up: Tensor) -> dict[str, Tensor]:
    """[J] whether a thumb counts in a metric. A batch without a side gives 0 for it."""
    every = torch.ones_like(up)
    sides = {"chosen": up, "rejected": 1 - up}
    return {f"{metric}/{side}": counted for metric in ("rewards", "logps") for side, counted in sides.items()} | {
        "rewards/accuracies": every,
        "kl": every,
    }


def _at(answers: Answers, index: Tensor) -> Answers:
    reference = None if answers.ref_log_probs is None else answers.ref_log_probs[index]
    return Answers(answers.log_probs[index], answers.tokens[index], reference)
