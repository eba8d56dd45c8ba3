"""Training of a round's policy: by PPO, by a preference loss, or on the best samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf_lightning.interfaces import Demonstration
from rlhf_lightning.rounds.artefacts import Group
from rlhf_lightning.rounds.settings import Training
from rlhf_lightning.stage._round_feedback import edit_demonstrations
from rlhf_lightning.stage._task import FittingTask
from rlhf_lightning.stage.ppo import train_ppo
from rlhf_lightning.stage.sft import fit_demonstrations

if TYPE_CHECKING:
    from rlhf_lightning.stage._round_steps import LearnedReward, Loop

History = list[dict[str, float]]
PEAK_ALARMS = ("overoptimised", "peak")
"""Alarms that end a round's training under stage.stop_at_peak."""


def learn_by_ppo(loop: Loop, samples: list[Group], reward: LearnedReward) -> History:
    """Policy optimisation against the round's reward model, with any advantage and policy loss."""
    from rlhf_lightning.policy.metrics import HELD_OUT_SCORES

    watched = loop.watched if reward.watching is None else loop.watched | {HELD_OUT_SCORES: reward.watching}
    task = with_demonstrations(loop, reward) if loop.settings.learn_edits else loop.task
    module = train_ppo(
        loop.run, loop.policy, loop.reference, reward.scorer, task, loop.folder / "policy", watched, f"ppo {loop.number}",
        starts_at_reference=len(loop.rounds) == 1, stop_alarms=PEAK_ALARMS if loop.settings.stop_at_peak else (),
    )  # fmt: skip
    return module.history


def learn_by_preference(loop: Loop, samples: list[Group], reward: LearnedReward) -> History:
    """A preference loss on the feedback of all rounds so far, from the policy of the round before."""
    from rlhf_lightning.stage._preference_training import train_preference

    name = f"preference {loop.number}"
    return train_preference(loop.run, reward.intake, loop.policy, loop.folder / "policy", loop.task, name).history


def learn_from_best(loop: Loop, samples: list[Group], reward: LearnedReward) -> History:
    """Supervised fine-tuning on the best of each prompt's samples by the reward model.

    Best-of-n sampling, distilled (RAFT: Dong et al. 2023). With stage.learn_edits the annotators' edits are demonstrations too.
    """
    texts = [(group.prompt, response) for group in samples for response in group.responses]
    scores = iter(reward.trained.model.score_texts([prompt for prompt, _ in texts], [response for _, response in texts]).tolist())
    demonstrations = []
    for group in samples:
        scored = {response: next(scores) for response in group.responses}
        demonstrations.append(Demonstration(group.prompt, max(scored, key=lambda response: scored[response])))
    if loop.settings.learn_edits:
        demonstrations += edit_demonstrations(reward.intake.feedback)
    return fit_demonstrations(loop.run, f"sft {loop.number}", demonstrations, [], loop.policy, loop.folder / "policy").history


LEARNERS: dict[Training, Callable[[Loop, list[Group], LearnedReward], History]] = {
    "ppo": learn_by_ppo, "preference": learn_by_preference, "sft_best": learn_from_best,
}  # fmt: skip


def with_demonstrations(loop: Loop, reward: LearnedReward) -> FittingTask:
    """The task with the annotators' edits among its demonstrations, for ppo.ptx_coef."""
    task, edits = loop.task, edit_demonstrations(reward.intake.feedback)
    return FittingTask(task, task.train_prompts(), task.test_prompts(), [*task.demonstrations(), *edits])
