"""Checks of a reward model's scores: finite, not constant, from a training that didn't diverge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Prompt

ROUNDING = 1e-6
"""Relative to the scores' size (at least 1): a smaller deviation is rounding."""
RESOLVED = 1e-3
"""Relative to the scores' size: the smallest deviation of a batch that float32 resolves by sums of squares."""
DIVERGED = 10.0
"""Maximum factor between the losses of the first tenth of the steps (at least 1) and of the last."""


def check_finite(scores: Tensor, prompts: Sequence[Prompt], responses: Sequence[str], name: str) -> Tensor:
    """The scores [B]. Raises UserError where one isn't a finite number, naming the model and a text."""
    wrong = (~scores.isfinite()).nonzero().flatten().tolist()
    if wrong:
        raise UserError(
            f"the scores of {name} aren't finite numbers for {len(wrong)} of {len(scores)} texts ({scores[wrong[0]].item():g} for the "
            f"response {responses[wrong[0]][:60]!r}): its weights, mean or deviation are damaged, its training diverged, or it overflows "
            "in its precision; take a model saved earlier, or train with a lower learning rate"
        )
    return scores


def all_equal(scores: Tensor) -> bool:
    """True for two or more scores that are equal up to rounding."""
    if len(scores) < 2:
        return False
    scores = scores.double()
    return float(scores.std()) <= ROUNDING * max(1.0, float(scores.mean().abs()))


def check_training(history: Sequence[Mapping[str, float]], raw: Tensor, name: str) -> str:
    """Check a reward model after its training.

    Args:
        history: of the steps: reward/loss, and reward/scores_std of the batch's texts.
        raw: [U] scores of training texts, before they are normalised.
        name: of the training.

    Returns:
        A note if the model gives all texts the same score, and did from the start; else "".

    Raises:
        UserError: the training diverged: the loss has risen, or scores that differed have become the same.
    """
    tenth = max(1, len(history) // 10)
    losses = [step["reward/loss"] for step in history]
    advice = "nothing is saved; lower reward.learning_rate, or raise schedule.warmup"
    if len(losses) > 1:
        first, last = sum(losses[:tenth]) / tenth, sum(losses[-tenth:]) / tenth
        if not last <= DIVERGED * max(first, 1.0):
            raise UserError(f"{name}: the training diverged: its loss has risen from {first:.3g} to {last:.3g} nats a judgement; {advice}")
    if not all_equal(raw):
        return ""
    spread = max((step["reward/scores_std"] for step in history), default=0.0)
    fault = f"the reward model gives all {len(raw)} training texts the same score ({raw[0].item():.4g})"
    if spread > RESOLVED * max(1.0, float(raw[0].abs())):
        raise UserError(f"{name}: the training diverged: {fault}, which differed by {spread:.3g} before; {advice}")
    return f"{fault}: it tells nothing apart"


def mean_and_deviation(raw: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation for normalising scores; deviation 1 for equal scores."""
    deviation = torch.ones(()) if len(raw) < 2 or all_equal(raw) else raw.std()
    return raw.mean(), deviation
