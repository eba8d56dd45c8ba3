"""The annotators of a command: their checks, and how they are built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.annotator_shares import AnnotatorShares, divide_shares
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, AnnotatorContext
from rlhf_lightning.registry import Component, make
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.stage._people import PeopleCollection

if TYPE_CHECKING:
    from rlhf_lightning.flow import Prompt
    from rlhf_lightning.interfaces import Annotator, Task
    from rlhf_lightning.runtime.run import Run


def check_annotators(choices: ComposedConfig, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS, purpose: str = "") -> None:
    """Check the annotators of a command before any model loads.

    Args:
        kinds: of judgement of which one is needed. purpose: what needs it, for the message.

    Raises:
        ConfigError: none is chosen, none can give such a judgement, or their shares don't add up to 1.
    """
    choices.require("feedback_annotator")
    gives = {component.name: _kinds_of(component, choices) for component in choices.components_of("feedback_annotator")}
    if not any(set(kinds) & set(offered) for offered in gives.values()):
        text = ", ".join(f"feedback_annotator={name} gives {' and '.join(offered) or 'none'}" for name, offered in gives.items())
        raise ConfigError(f"{purpose or 'this command'} needs judgements of the kind {' or '.join(kinds)}, and {text}")
    divide_shares({name: node.share for name, node in choices.config.feedback_annotator.items()})


def kinds_of(annotator: Component) -> tuple[AnnotationKind, ...]:
    """Kinds of judgement that the annotator can give; all if its class doesn't state them."""
    kinds: tuple[AnnotationKind, ...] = getattr(annotator.target, "kinds", ANNOTATION_KINDS)
    return kinds


def _kinds_of(component: Component, choices: ComposedConfig) -> Sequence[AnnotationKind]:
    """The kinds of judgement that an annotator gives in this command."""
    target: Any = component.target
    return target.configured_kinds(choices) if hasattr(target, "configured_kinds") else kinds_of(component)


def build_annotators(run: Run, task: Task) -> Annotator:
    """Build the command's annotators, of whom several divide the prompts by their shares."""
    context = AnnotatorContext(
        task, run.folder, run.log, run.settings, run.process_device, lambda: PeopleCollection(run), functools.partial(_scorer, run)
    )  # fmt: skip
    annotators = run.build_all("feedback_annotator", context)
    if len(annotators) == 1:
        annotator: Annotator = next(iter(annotators.values()))
        return annotator
    return AnnotatorShares(annotators, divide_shares({name: node.share for name, node in run.config.feedback_annotator.items()}), run.seed)


def _scorer(run: Run, path: str) -> Callable[[Sequence[Prompt], Sequence[str]], list[float]]:
    """The scores of texts by the reward model in a folder."""
    from rlhf_lightning.stage._training import on_device

    scorer = make("rollout_scorer", "reward_model", {"path": path})

    def score(prompts: Sequence[Prompt], responses: Sequence[str]) -> list[float]:
        with on_device(run.process_device, scorer.model):
            return [float(value) for value in scorer.model.score_texts(prompts, responses)]

    return score
