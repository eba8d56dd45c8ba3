"""People judge on the page of stage=collect; a round waits for their answers."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field, PositiveFloat, PositiveInt

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.flow import Feedback, Prompt, prompt_text
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, AnnotatorContext
from rlhf_lightning.registry import register

POLL_SECONDS = 0.5
HOUR = 3600.0
KIND_OF: dict[str, AnnotationKind] = {"rating": "rating", "ranking": "ranking", "pairwise": "ranking", "edit": "edit"}
"""The kind of judgement of each question that a round learns from."""


def check_people(choices: Any) -> None:
    """Require questions and people. Raises ConfigError."""
    settings, node = choices.settings("collect"), choices.config.feedback_annotator.people
    if not choices.components_of("collect_question"):
        raise ConfigError("feedback_annotator=people asks nothing: add `collect_question=[pairwise]`")
    if node.serve and not settings.annotators and not settings.open_link:
        raise ConfigError("nobody is asked: add `collect.annotators=[ada,ben]`, or `collect.open_link=true` for a link to enter a name")


@register("feedback_annotator", "people", check=check_people)
class PeopleAnnotators:
    """People on the page of stage=collect, with its questions and the settings of the section `collect`.

    A round's samples are published to collect.database, and the round continues when they are judged, at the deadline, or when the
    manager ends it. Answers are stored at once: a command that was stopped at any time continues, and nothing is asked twice. With
    collect_question=[pairwise] pairs of each prompt's responses are asked, else all of them together.

    Args:
        serve: serve the page in this command; false: `stage=collect collect.items=database` serves the same database in another one.
        comparisons: pairs of each prompt's responses, for questions about two.
        enough: share of a round's judgements at which it continues.
        deadline_hours: time since its publication after which a round continues with what is answered; null: it waits.
        seed: random seed of the pairs.
    """

    kinds: ClassVar[tuple[AnnotationKind, ...]] = ANNOTATION_KINDS

    @staticmethod
    def configured_kinds(choices: Any) -> tuple[AnnotationKind, ...]:
        """The kinds of judgement of the command's questions."""
        return tuple(dict.fromkeys(KIND_OF[c.name] for c in choices.components_of("collect_question") if c.name in KIND_OF))

    def __init__(
        self,
        context: AnnotatorContext,
        *,
        serve: bool = True,
        comparisons: PositiveInt = 2,
        enough: Annotated[float, Field(gt=0, le=1)] = 1.0,
        deadline_hours: PositiveFloat | None = None,
        seed: int = 0,
    ) -> None:
        self._context, self._serve, self._comparisons = context, serve, comparisons
        self._enough, self._seed = enough, seed
        self._deadline = None if deadline_hours is None else deadline_hours * HOUR
        self._collection: Any = None

    def judge(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], *, number: int, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
    ) -> list[Feedback]:
        """Publish the groups, wait, and return the answers of these kinds."""
        collection = self._open()
        items = collection.split(groups, self._comparisons, f"{self._seed}: round {number}")
        if not items:
            return []
        content = [number, list(kinds), [[prompt_text(prompt), texts] for prompt, texts in items]]
        key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
        collection.publish(key, items)
        self._wait(collection, key)
        feedback = [record for record in collection.close(key) if record.judgement.kind != "skip"]
        return feedback if tuple(kinds) == ANNOTATION_KINDS else [record for record in feedback if record.judgement.kind in kinds]

    def _open(self) -> Any:
        """The collection, served from the first time on."""
        if self._collection is None:
            if self._context.open_collection is None:
                raise ConfigError("feedback_annotator=people needs a run: use it in a command")
            self._collection = self._context.open_collection()
            if self._serve:
                self._collection.serve()
        return self._collection

    def _wait(self, collection: Any, key: str) -> None:
        """Wait until enough is answered.

        Raises:
            UserError: the wait is over and nobody has answered.
        """
        last = -1
        while not (state := collection.state(key)).is_closed:
            if state.answers != last:
                last = state.answers
                self._context.log(f"{state.answers} of {state.slots} judgements of the round")
            is_late = self._deadline is not None and time.time() - state.opened > self._deadline
            if state.answers >= self._enough * state.slots:
                return
            if state.is_finished or is_late or (self._serve and collection.is_exhausted()):
                if not state.answers:
                    cause = (
                        "its deadline is over"
                        if is_late
                        else "it was ended on the manager's page"
                        if state.is_finished
                        else "all skipped it"
                    )
                    raise UserError(f"the round has no answer, and {cause}: write a later deadline_hours, or add collect.annotators")
                self._context.log(f"the round continues with {state.answers} of {state.slots} judgements")
                return
            time.sleep(POLL_SECONDS)
