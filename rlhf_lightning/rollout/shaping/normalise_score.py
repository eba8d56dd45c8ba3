from __future__ import annotations

import torch
from pydantic import PositiveFloat
from torch import Tensor, nn

from rlhf_lightning.flow import ScoredRollout
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.shaping._scores import refuse_after_others, rescored
from rlhf_lightning.rollout.shaping.whiten_rewards import refuse_overflow


@register("rollout_shaping", "normalise_score", needs=["scores"])
class NormaliseScore(nn.Module):
    """Scores are normalised by the mean and deviation of all scores so far, then held within +-clip; put it first.

    Reward normalisation and clipping of PPO-max (Zheng et al., 2023, section 5.3.1): clip((score - mean) / std, -clip, clip). The
    scores of a batch are counted before it is normalised. Unbiased deviation; until two
    responses differ, nothing is divided. With centre=false only the scale changes, as in baselines' VecNormalize: where responses can
    end early, a mean taken off turns a small reward for living into a penalty.

    The statistics are kept in double precision in the checkpoint and nowhere on a device, as FixedKL's coefficient is.

    Args:
        clip: in standard deviations; None leaves them.
        centre: whether to take off the mean.
    """

    def __init__(self, *, clip: PositiveFloat | None = 5.0, centre: bool = True) -> None:
        super().__init__()
        self.clip, self.centre = clip, centre
        self.count, self.mean, self.squares = 0.0, 0.0, 0.0

    @property
    def std(self) -> float:
        """The deviation of all scores so far; 1 while none is known, or only rounding."""
        std = float((self.squares / max(self.count - 1, 1.0)) ** 0.5)
        return std if std > 1e-7 * abs(self.mean) else 1.0

    def forward(self, scored: ScoredRollout) -> ScoredRollout:
        """Count the scores [B] and normalise them; the rewards [B, T] are laid anew.

        Raises:
            ConfigError: a shaping other than of scores came before. DataError: scores too large to square, or not numbers.
        """
        refuse_after_others(scored, "normalise_score")
        self._count(scored.scores)
        return rescored(scored, self._normalised, "normalise_score")

    def _normalised(self, scores: Tensor) -> Tensor:
        normalised = (scores.cpu().double() - (self.mean if self.centre else 0.0)) / self.std
        return (normalised if self.clip is None else normalised.clamp(-self.clip, self.clip)).to(scores)

    def _count(self, scores: Tensor) -> None:
        """Add a batch's scores: Chan et al. (1979), which loses no digits to a large mean."""
        scores = scores.detach().cpu().double()
        count = float(len(scores))
        mean = scores.sum().item() / max(count, 1.0)
        squares = ((scores - mean) ** 2).sum()
        refuse_overflow(squares)
        away, both = mean - self.mean, max(self.count + count, 1.0)
        self.squares += squares.item() + away**2 * self.count * count / both
        self.mean += away * count / both
        self.count += count

    def get_extra_state(self) -> Tensor:
        return torch.tensor([self.count, self.mean, self.squares], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        self.count, self.mean, self.squares = state.tolist()
