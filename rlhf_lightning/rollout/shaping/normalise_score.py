from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.shaping._scores import check_only_scores, reshape_scores
from rlhf_lightning.rollout.shaping.whiten_rewards import check_finite


@register("rollout_shaping", "normalise_score", needs=["scores"])
class NormaliseScore(nn.Module):
    """Normalise scores by the running mean and deviation, then clip to +-clip; put it first.

    Reward normalisation and clipping of PPO-max (Zheng et al., 2023, section 5.3.1): clip((score - mean) / std, -clip, clip). The
    scores of a batch are counted before it is normalised. Unbiased deviation; until two
    responses differ, nothing is divided. With centre=false only the scale changes, as in baselines' VecNormalize: if responses can
    end early, subtracting the mean turns a small reward for length into a penalty.

    The statistics are in the checkpoint in double precision, on no device, like FixedKL's coefficient.

    Details: docs/ppo_details.md#reward-normalisation-and-clipping-by-running-statistics.

    Args:
        clip: largest absolute score after normalisation, in standard deviations; None for no clipping.
        centre: whether to subtract the mean.
    """

    def __init__(self, *, clip: PositiveFloat | None = 5.0, centre: bool = True) -> None:
        super().__init__()
        self.clip, self.centre = clip, centre
        self.count, self.mean, self.squares = 0.0, 0.0, 0.0

    @property
    def std(self) -> float:
        """Deviation of all scores so far; 1 if it is unknown or below rounding."""
        std = float((self.squares / max(self.count - 1, 1.0)) ** 0.5)
        return std if std > 1e-7 * abs(self.mean) else 1.0

    def forward(self, scored: ScoredRollout) -> ScoredRollout:
        """Count the scores [B] and normalise them; the rewards [B, T] are recomputed.

        Raises:
            ConfigError: a shaping other than of scores came before. DataError: scores too large to square, or not numbers.
        """
        check_only_scores(scored, "normalise_score")
        self._count(scored.scores)
        return reshape_scores(scored, self._normalise, "normalise_score")

    def _normalise(self, scores: Tensor) -> Tensor:
        normalised = (scores.cpu().double() - (self.mean if self.centre else 0.0)) / self.std
        return (normalised if self.clip is None else normalised.clamp(-self.clip, self.clip)).to(scores)

    def _count(self, scores: Tensor) -> None:
        """Update the statistics by Chan et al. (1979), exact also for a large mean."""
        scores = scores.detach().cpu().double()
        count = float(len(scores))
        mean = scores.sum().item() / max(count, 1.0)
        squares = ((scores - mean) ** 2).sum()
        check_finite(squares)
        delta, total = mean - self.mean, max(self.count + count, 1.0)
        self.squares += squares.item() + delta**2 * self.count * count / total
        self.mean += delta * count / total
        self.count += count

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.count, self.mean, self.squares], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.count, self.mean, self.squares = state.tolist()
