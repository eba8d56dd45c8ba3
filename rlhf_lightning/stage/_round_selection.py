"""Selection of the questions that a round's annotators are asked."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from rlhf_lightning.feedback.acquisition import choose_questions
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.interfaces import SelectionPool
from rlhf_lightning.rounds import artefacts
from rlhf_lightning.rounds.artefacts import Group
from rlhf_lightning.stage._round_feedback import load_feedback_so_far

if TYPE_CHECKING:
    from rlhf_lightning.stage._round_steps import Loop

MAX_COMPARISONS = 20_000
"""Earlier comparisons that inform a selection, the newest."""


def select(loop: Loop, samples: list[Group]) -> list[Group]:
    """Choose the round's questions by feedback_selection; all samples by default."""
    import torch

    settings, run, path = loop.settings, loop.run, loop.folder / artefacts.QUESTIONS
    name = run.component_of("feedback_selection").name
    if name == "random" and settings.questions is None:
        return samples

    def compute() -> dict[str, Any]:
        generator = torch.Generator().manual_seed(run.seed * 1000 + loop.sampling_number)
        choices = choose_questions(
            name, run.build("feedback_selection"), pool(loop, samples), settings.questions or len(samples), generator,
            share_random=float(run.config.feedback_selection.share_random),
        )  # fmt: skip
        questions = []
        for choice in choices:
            group = samples[choice.group]
            texts = tuple(group.responses[i] for i in choice.responses)
            questions.append(Group(prompt=group.prompt, responses=texts, selected_by=choice.selected_by))
        artefacts.write_groups(path, questions)
        return {"questions": len(questions), "selected_by": Counter(choice.selected_by for choice in choices)}

    with run.time_stage("select"):
        loop.ledger.do(loop.number, "selected", compute)
    return artefacts.read_groups(path)


def pool(loop: Loop, samples: list[Group]) -> SelectionPool:
    """The samples, and what the reward model of the round before makes of them."""
    from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons
    from rlhf_lightning.reward.pool_features import selection_pool
    from rlhf_lightning.reward.storage.folder import load_any_reward_model
    from rlhf_lightning.stage._training import on_device

    groups = [(group.prompt, group.responses) for group in samples]
    if len(loop.rounds) == 1:
        return SelectionPool(groups=groups)
    model = load_any_reward_model(str(loop.run.folder / f"round_{loop.rounds[-2]}" / "reward_model"))
    answered = judged_comparisons(standardise(load_feedback_so_far(loop.run, loop.rounds[:-1]).feedback))[-MAX_COMPARISONS:]
    with on_device(loop.run.process_device, model):
        return selection_pool(model, groups, answered)
