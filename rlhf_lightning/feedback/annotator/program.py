"""A program of the user judges: JSON Lines in and out."""

from __future__ import annotations

import hashlib
import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Annotated, Any, ClassVar

from pydantic import Field, FiniteFloat, PositiveFloat, ValidationError

from rlhf_lightning.checkpoint.journal import Journal
from rlhf_lightning.config.display import safe_message
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.flow import Edit, Feedback, Judgement, Prompt, Ranking, Rating, Record
from rlhf_lightning.interfaces import ANNOTATION_KINDS, AnnotationKind, AnnotatorContext
from rlhf_lightning.registry import register

MAX_STDERR = 2000


class Answer(Record):
    """The answer of the program to a group of K responses.

    Attributes:
        id: of the question.
        ranking: K ranks, lower is better, equal is a tie, null unranked.
        ratings: K numbers on `feedback_annotator.program.rating_scale`, or null.
        edits: K improved texts, or null.
        annotator: name of who judged.
    """

    id: str
    ranking: list[int | None] | None = None
    ratings: list[FiniteFloat | None] | None = None
    edits: list[str | None] | None = None
    annotator: Annotated[str, Field(min_length=1)] = "program"


@register("feedback_annotator", "program")
class ProgramAnnotator:
    """A program that judges the responses to each prompt, by JSON Lines in and out.

    It reads {"id", "round", "kinds", "prompt", "responses"} and writes, flushed and in any order, {"id", "ranking": [1, 2], "ratings": [5,
    3], "edits": [null, "better"]} with what it judges. Answers are kept in the run's folder: a program that failed is asked the others when
    the command continues.

    Args:
        command: the program and its words, quoted as in a shell, but not run by one: "python judge.py".
        timeout: seconds without an answer after which it is ended.
        rating_scale: lowest and highest rating.
    """

    kinds: ClassVar[tuple[AnnotationKind, ...]] = ANNOTATION_KINDS

    def __init__(
        self, context: AnnotatorContext, *, command: str, timeout: PositiveFloat = 600.0, rating_scale: tuple[int, int] = (1, 7)
    ) -> None:
        try:
            self._words = [os.path.expanduser(word) for word in shlex.split(command)]
        except ValueError as cause:
            raise ConfigError(f"feedback_annotator.program.command={command}: {cause}") from cause
        if not self._words or shutil.which(self._words[0]) is None:
            raise ConfigError(f"feedback_annotator.program.command={command}: no program {(self._words or [''])[0]!r} that can be run")
        if not rating_scale[0] < rating_scale[1]:
            raise ConfigError(f"feedback_annotator.program.rating_scale={list(rating_scale)}: the lowest rating comes first, like [1, 7]")
        self._command, self._timeout = command, timeout
        self._scale = (float(rating_scale[0]), float(rating_scale[1]))
        self._path = context.folder / "program_answers.jsonl"

    def judge(
        self, groups: Sequence[tuple[Prompt, Sequence[str]]], *, number: int, kinds: Sequence[AnnotationKind] = ANNOTATION_KINDS
    ) -> list[Feedback]:
        """Ask the program for the groups that it has not answered, and return all answers.

        Raises:
            UserError: it ended or hung before it had answered, or wrote an invalid line; the message has the line's number.
        """
        journal = Journal(self._path)
        questions: dict[str, tuple[dict[str, Any], Prompt, tuple[str, ...]]] = {}
        for prompt, responses in groups:
            plain = str(prompt) if isinstance(prompt, str) else [message.model_dump() for message in prompt]
            content = {"round": number, "kinds": list(kinds), "prompt": plain, "responses": list(responses)}
            key = hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
            questions[key] = ({"id": key, **content}, prompt, tuple(responses))
        new = {key: question for key, (question, _, _) in questions.items() if key not in journal}
        for line_number, line in self._answers(list(new.values())) if new else ():
            answer = self._parse(line, line_number, {key: len(question["responses"]) for key, question in new.items()})
            journal.add(answer.id, answer.model_dump())
            del new[answer.id]
            if not new:
                break
        return [
            record for key, (_, prompt, responses) in questions.items() for record in self._records(journal[key], prompt, responses, kinds)
        ]

    def _answers(self, questions: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, bytes]]:
        """Number and text of each line that the program writes.

        Raises:
            UserError: it ends, or is silent for too long.
        """
        pipe, environment = subprocess.PIPE, {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen(self._words, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True, env=environment)
        lines, errors = queue.SimpleQueue[bytes](), bytearray()
        for target, args in (
            (_feed, (process.stdin, questions)),
            (_read_lines, (process.stdout, lines)),
            (_drain, (process.stderr, errors)),
        ):
            threading.Thread(target=target, args=args, daemon=True).start()
        try:
            number = 0
            while True:
                number += 1
                try:
                    line = lines.get(timeout=self._timeout)
                except queue.Empty:
                    raise UserError(f"{self} gave no answer within {self._timeout:g} s: does it flush each line?{_note(errors)}") from None
                if not line:
                    raise UserError(f"{self} ended with code {process.wait()} before it had answered all{_note(errors)}")
                yield number, line
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _parse(self, line: bytes, number: int, sizes: Mapping[str, int]) -> Answer:
        """Check an answer. Raises UserError that names the line."""
        origin = f"{self}, line {number}"
        try:
            answer = Answer.model_validate_json(line)
        except ValidationError as cause:
            first = cause.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise UserError(
                f"{origin}: {field + ': ' if field else ''}{first['msg']} in {safe_message(line.decode(errors='replace')[:200])!r}"
            ) from None
        if answer.id not in sizes:
            raise UserError(f"{origin}: id {answer.id!r} is no question without an answer")
        for name in ("ranking", "ratings", "edits"):
            values = getattr(answer, name)
            if values is not None and len(values) != sizes[answer.id]:
                raise UserError(f"{origin}: {name} has {len(values)} items, and the question {sizes[answer.id]} responses")
        low, high = self._scale
        if any(value is not None and not low <= value <= high for value in answer.ratings or ()):
            raise UserError(f"{origin}: a rating is off the scale {low:g} to {high:g} (feedback_annotator.program.rating_scale)")
        return answer

    def _records(
        self, content: Mapping[str, Any], prompt: Prompt, responses: tuple[str, ...], kinds: Sequence[AnnotationKind]
    ) -> Iterator[Feedback]:
        judgements: list[tuple[tuple[str, ...], Judgement, AnnotationKind]] = []
        if content["ranking"] and len(responses) > 1:
            judgements.append((responses, Ranking(ranks=tuple(content["ranking"])), "ranking"))
        for text, value in zip(responses, content["ratings"] or (), strict=False):
            if value is not None:
                judgements.append(((text,), Rating(value=value, scale=self._scale), "rating"))
        for text, edited in zip(responses, content["edits"] or (), strict=False):
            if edited is not None:
                judgements.append(((text, edited), Edit(), "edit"))
        for texts, judgement, kind in judgements:
            if kind in kinds:
                yield Feedback(prompt=prompt, responses=texts, judgement=judgement, annotator=content["annotator"], origin="program")

    def __str__(self) -> str:
        return safe_message(f"feedback_annotator.program.command={self._command!r}")


def _feed(stream: IO[bytes], questions: Sequence[Mapping[str, Any]]) -> None:
    with suppress(OSError):
        for question in questions:
            stream.write(json.dumps(question).encode() + b"\n")
            stream.flush()
        stream.close()


def _read_lines(stream: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    for line in stream:
        if line.strip():
            lines.put(line)
    lines.put(b"")


def _drain(stream: IO[bytes], errors: bytearray) -> None:
    for line in stream:
        errors += line
        del errors[:-MAX_STDERR]


def _note(errors: bytearray) -> str:
    text = safe_message(errors.decode(errors="replace").strip())
    return f"; on stderr:\n{text}" if text else ""
