from __future__ import annotations

from typing import Any

import pytest
import torch

from rlhf_lightning.advantage.remax import remax
from rlhf_lightning.errors import ConfigError


def test_the_rewards_to_come_less_the_greedy_score(scored_of: Any) -> None:
    mask = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0]])
    scored = scored_of(mask, rewards=torch.tensor([[1.0, 2.0, 4.0], [0.5, 99.0, 3.0], [-1.0, 99.0, 99.0]]))
    scored.baseline_scores = torch.tensor([2.0, 1.0, -3.0])
    made = remax(scored)
    assert torch.equal(made.advantages, torch.tensor([[5.0, 4.0, 2.0], [2.5, 0.0, 2.0], [2.0, 0.0, 0.0]]))
    assert made.returns is None


def test_a_response_as_good_as_the_greedy_one_teaches_nothing(scored_of: Any) -> None:
    scored = scored_of(torch.ones(2, 3), scores=torch.tensor([1.5, -0.25]))
    scored.baseline_scores = torch.tensor([1.5, -0.25])
    assert torch.equal(remax(scored).advantages, torch.zeros(2, 3))


def test_without_greedy_scores_it_is_refused(scored_of: Any) -> None:
    with pytest.raises(ConfigError, match="needs the scores of greedy responses"):
        remax(scored_of(torch.ones(1, 2)))
