"""Scores that are no numbers, all the same, or of a training that diverged are reported with their cause."""

from __future__ import annotations

import pytest
import torch

from rlhf_lightning.errors import UserError
from rlhf_lightning.reward.evaluation.score_checks import all_equal, check_finite, check_training, mean_and_deviation


def history(losses: list[float], spread: float = 1.0) -> list[dict[str, float]]:
    return [{"reward/loss": loss, "reward/scores_std": spread} for loss in losses]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_no_number_names_model_and_text(wrong: float) -> None:
    with pytest.raises(UserError, match=r"scores of the model aren't finite numbers for 1 of 3 texts \((nan|-?inf) for the response 'b'\)"):
        check_finite(torch.tensor([1.0, wrong, 2.0]), ["", "", ""], ["a", "b", "c"], "the model")
    assert check_finite(torch.ones(2), ["", ""], ["a", "b"], "the model").tolist() == [1, 1]


@pytest.mark.parametrize(
    ("scores", "same"),
    [([0.0, 0.0], True), ([1e4, 1e4 + 1e-3], True), ([0.0, 1e-3], False), ([1e4, 1e4 + 1], False), ([1.0], False), ([], False)],
)
def test_the_same_but_for_rounding(scores: list[float], same: bool) -> None:
    assert all_equal(torch.tensor(scores)) is same


DIFFERENT = torch.tensor([0.0, 1.0, 2.0])


@pytest.mark.parametrize("losses", [[0.7, 3.0, 0.5], [0.1] * 20 + [0.9], [1.2] * 10 + [9.0] * 3, [0.7], [], [3.0, 20.0]])
def test_a_training_that_learns_or_wavers_passes(losses: list[float]) -> None:
    assert check_training(history(losses), DIFFERENT, "reward") == ""


@pytest.mark.parametrize("losses", [[1.2] * 10 + [500.0] * 3, [1.2, 1e17], [0.7, float("nan")], [0.7, float("inf")]])
def test_a_loss_that_rose_has_diverged(losses: list[float]) -> None:
    with pytest.raises(
        UserError, match=r"reward: the training diverged: its loss has risen .* nothing is saved; lower reward.learning_rate"
    ):
        check_training(history(losses), DIFFERENT, "reward")


def test_scores_that_became_the_same_have_diverged_and_others_are_doubtful() -> None:
    with pytest.raises(UserError, match="the training diverged: the reward model gives all 3 training texts the same score"):
        check_training(history([0.7, 0.7]), torch.full((3,), 5.0), "reward")
    assert "tells nothing apart" in check_training(history([0.7, 0.7], spread=0.0), torch.full((3,), 5.0), "reward")


@pytest.mark.parametrize(("raw", "deviation"), [([3.0], 1.0), ([3.0, 3.0], 1.0), ([1.0, 3.0], 2**0.5)])
def test_a_scale_is_always_a_number(raw: list[float], deviation: float) -> None:
    mean, found = mean_and_deviation(torch.tensor(raw))
    assert mean.item() == sum(raw) / len(raw)
    assert found.item() == pytest.approx(deviation)
