"""The feedback of the rounds so far: weighted by age, split, and edits as demonstrations."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.interfaces import Demonstration
from rlhf_lightning.registry import make
from rlhf_lightning.rounds.artefacts import FEEDBACK
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.stage._feedback import ingest

if TYPE_CHECKING:
    from rlhf_lightning.feedback.intake import Intake
    from rlhf_lightning.flow import Feedback


def load_feedback_so_far(run: Run, rounds: Sequence[int], age_decay: float = 1.0) -> Intake:
    """Read the feedback of these rounds like a user's files.

    Args:
        age_decay: factor of a judgement's weight for each round since it was given.
    """

    def rows() -> Iterator[Any]:
        for age, number in zip(reversed(range(len(rounds))), rounds, strict=True):
            source = make("feedback_source", "jsonl", {"path": str(run.folder / f"round_{number}" / FEEDBACK)})
            for row in source():
                yield (
                    row if age_decay == 1.0 or not hasattr(row, "weight") else dataclasses.replace(row, weight=row.weight * age_decay**age)
                )

    return ingest(run, rows(), [make("feedback_format", "record", {})])


def split_feedback(feedback: Sequence[Feedback], fraction: float) -> tuple[Sequence[Feedback], Sequence[Feedback]]:
    """Feedback to learn from, and feedback of other prompts for a model that watches over-optimisation.

    Args:
        fraction: of the prompts to watch with, by a hash of the prompt.

    Raises:
        ConfigError: one of the parts would be empty.
    """
    if not fraction:
        return feedback, []
    parts: tuple[list[Feedback], list[Feedback]] = ([], [])
    for record in feedback:
        position = int.from_bytes(hashlib.sha256(f"watching {record.prompt_text}".encode()).digest()[:8]) / 2**64
        parts[position < fraction].append(record)
    if not all(parts):
        raise ConfigError(f"stage.watched_feedback={fraction:g} leaves one of two reward models without feedback: judge more prompts")
    return parts


def edit_demonstrations(feedback: Sequence[Feedback]) -> list[Demonstration]:
    """The improved texts of edits as demonstrations; an approved text is one too."""
    return [
        Demonstration(record.prompt, record.responses[1], record.origin or "")
        for record in feedback
        if record.judgement.kind == "edit" and record.prompt
    ]
