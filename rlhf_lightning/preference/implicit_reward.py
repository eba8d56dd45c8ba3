"""The reward model that a policy is: scores of responses from its own probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import Judgements
from rlhf_lightning.flow import Prompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.preference.examples import TOO_LONG, TextTable
from rlhf_lightning.preference.module import text_log_probs
from rlhf_lightning.preference.record import Answers, PreferenceLoss
from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons
from rlhf_lightning.statistics.intervals import Interval, clustered_mean_interval


class ImplicitReward:
    """Scores texts of a table by the implicit rewards of a preference loss.

    Args:
        reference: [len(table)] log-probabilities under the reference.
        rows: of the texts that can be scored, which the policy reads at once.
    """

    def __init__(self, language_model: LanguageModel, loss: PreferenceLoss, table: TextTable, reference: Tensor, rows: np.ndarray) -> None:
        self.table = table
        tokens = torch.zeros(len(table), dtype=torch.long)
        tokens[torch.from_numpy(rows)] = torch.tensor([table.response_length(row) for row in rows], dtype=torch.long)
        self.answers = Answers(text_log_probs(language_model, table, rows), tokens, reference)
        self.rewards = loss.rewards(self.answers)

    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        """[U] rewards."""
        return self.rewards[self._rows(list(zip(prompts, responses, strict=True)))]

    def _rows(self, texts: Sequence[tuple[Prompt, str]]) -> Tensor:
        return torch.tensor([self.table.row_of(text) for text in texts], dtype=torch.long)

    def ratios(self, judged: Judgements) -> HeldOutRatios | None:
        """Margins and log-ratios over the comparisons that the feedback states; None without any."""
        orders = judged_comparisons(judged)
        if not orders:
            return None
        clusters = np.unique([hash(order.prompt) for order in orders], return_inverse=True)[1]
        better = self._rows([(order.prompt, order.better) for order in orders])
        worse = self._rows([(order.prompt, order.worse) for order in orders])
        log_ratios = self.answers.log_ratio()

        def mean(values: Tensor) -> Interval:
            return clustered_mean_interval(values.double().numpy(), clusters)

        return HeldOutRatios(mean(self.rewards[better] - self.rewards[worse]), mean(log_ratios[better]), mean(log_ratios[worse]))


@dataclass(frozen=True)
class HeldOutRatios:
    """Means over held-out comparisons, with intervals.

    Attributes:
        margin: of the rewards of the better and the worse response.
        better, worse: log-ratio of policy to reference, in nats a response. Without a likelihood term both often fall.
    """

    margin: Interval
    better: Interval
    worse: Interval


def fitting_judgements(judged: Judgements, table: TextTable) -> tuple[Judgements, np.ndarray]:
    """Select the judgements whose texts fit into the table; returns them and their texts' rows."""
    rows = [[table.row_of((record.feedback.prompt, text)) for text in record.feedback.responses] for record in judged]
    fits = np.array([TOO_LONG not in of_record for of_record in rows], dtype=bool)
    return judged.select(fits), np.unique([row for of_record, fit in zip(rows, fits, strict=True) if fit for row in of_record]).astype(int)
