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
from rlhf_lightning.preference.module import text_log_probs
from rlhf_lightning.preference.record import Answers, PreferenceLoss
from rlhf_lightning.preference.texts import LEFT_OUT, TextTable
from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons
from rlhf_lightning.statistics.intervals import Interval, clustered_mean_interval


class ImplicitReward:
    """Scores texts of a table by the rewards that a preference loss reads from the policy's and the reference's probabilities.

    Args:
        reference: [len(table)] log-probabilities under the reference.
        places: of the texts that can be scored. The policy reads them now, all at once.
    """

    def __init__(
        self, language_model: LanguageModel, loss: PreferenceLoss, table: TextTable, reference: Tensor, places: np.ndarray
    ) -> None:
        self.table = table
        tokens = torch.zeros(len(table), dtype=torch.long)
        tokens[torch.from_numpy(places)] = torch.tensor([table.answer_length(place) for place in places], dtype=torch.long)
        self.answers = Answers(text_log_probs(language_model, table, places), tokens, reference)
        self.rewards = loss.rewards(self.answers)

    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        """[U] rewards."""
        return self.rewards[self._places(list(zip(prompts, responses, strict=True)))]

    def _places(self, texts: Sequence[tuple[Prompt, str]]) -> Tensor:
        return torch.tensor([self.table.place(text) for text in texts], dtype=torch.long)

    def ratios(self, judged: Judgements) -> HeldOutRatios | None:
        """Margins and log-ratios over the comparisons that the feedback states; None where it states none."""
        orders = judged_comparisons(judged)
        if not orders:
            return None
        clusters = np.unique([hash(one.prompt) for one in orders], return_inverse=True)[1]
        better = self._places([(one.prompt, one.better) for one in orders])
        worse = self._places([(one.prompt, one.worse) for one in orders])
        moved = self.answers.log_ratio()

        def mean(values: Tensor) -> Interval:
            return clustered_mean_interval(values.double().numpy(), clusters)

        return HeldOutRatios(mean(self.rewards[better] - self.rewards[worse]), mean(moved[better]), mean(moved[worse]))


@dataclass(frozen=True)
class HeldOutRatios:
    """Over held-out comparisons: the mean margin of rewards; the mean log-ratio of policy to reference of the better and of the worse
    responses, in nats a response. Both falling is what preference losses without a likelihood term often do."""

    margin: Interval
    better: Interval
    worse: Interval


def fitting_judgements(judged: Judgements, table: TextTable) -> tuple[Judgements, np.ndarray]:
    """The judgements all of whose texts fit into the table, and the places of these texts, which are added to it."""
    placed = [[table.place((record.feedback.prompt, text)) for text in record.feedback.responses] for record in judged]
    fits = np.array([LEFT_OUT not in places for places in placed], dtype=bool)
    return judged.select(fits), np.unique([place for places, fit in zip(placed, fits, strict=True) if fit for place in places]).astype(int)
