"""The linear reward model r = w·phi(x, y)."""

from __future__ import annotations

import math

from torch import Tensor, nn

from rlhf_lightning.registry import register


@register("reward_head", "linear")
class LinearHead(nn.Module):
    """The linear reward r = w·phi(x, y), [B, D] to [B].

    Without a bias: comparisons can't tell one, and transformers' AutoModelForSequenceClassification(num_labels=1) has none, so that a
    trained model exports to it exactly. w starts at N(0, 1/(D+1)) (Stiennon et al. 2020).

    Details: docs/ppo_details.md#reward-head-starts-at-n.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Linear(width, 1, bias=False)
        nn.init.normal_(self.weight.weight, std=1 / math.sqrt(width + 1))

    def forward(self, phi: Tensor) -> Tensor:
        score: Tensor = self.weight(phi)
        return score.squeeze(-1)
