"""The annotators of a command: their checks, and how they are built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.annotator_shares import AnnotatorShares, divide_shares
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, AnnotatorContext
from rlhf_lightning.registry import Component
from rlhf_lightning.runtime.composition import ComposedConfig

if TYPE_CHECKING:
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
    annotators = choices.components_of("feedback_annotator")
    if not any(set(kinds) & set(kinds_of(annotator)) for annotator in annotators):
        gives = ", ".join(f"feedback_annotator={a.name} gives {' and '.join(kinds_of(a))}" for a in annotators)
        raise ConfigError(f"{purpose or 'this command'} needs judgements of the kind {' or '.join(kinds)}, and {gives}")
    divide_shares({name: node.share for name, node in choices.config.feedback_annotator.items()})


def kinds_of(annotator: Component) -> tuple[AnnotationKind, ...]:
    """Kinds of judgement that the annotator can give; all if its class doesn't state them."""
    kinds: tuple[AnnotationKind, ...] = getattr(annotator.target, "kinds", ANNOTATION_KINDS)
    return kinds


def build_annotators(run: Run, task: Task) -> Annotator:
    """Build the command's annotators; several divide the prompts by their shares. The first process asks them."""
    annotators = run.build_all("feedback_annotator", AnnotatorContext(task, run.folder, run.log, run.settings, run.process_device))
    if len(annotators) == 1:
        annotator: Annotator = next(iter(annotators.values()))
        return annotator
    return AnnotatorShares(annotators, divide_shares({name: node.share for name, node in run.config.feedback_annotator.items()}), run.seed)
