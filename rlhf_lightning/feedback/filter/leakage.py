"""Keeps the prompts of a test out of the training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

from pydantic import NonNegativeInt

from rlhf_lightning.config.schema import FilePath
from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.chat import prompt_of
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.judgements import prompt_number
from rlhf_lightning.feedback.row import BadLine, Row
from rlhf_lightning.feedback.source.jsonl import jsonl
from rlhf_lightning.feedback.words import runs_of, said, words_of
from rlhf_lightning.flow import Feedback, Prompt
from rlhf_lightning.registry import register


@register("feedback_filter", "leakage")
def leakage(
    feedback: Iterable[Feedback],
    done: Cleaning,
    *,
    against: FilePath | tuple[FilePath, ...],
    field: str = "prompt",
    ngram: NonNegativeInt = 0,
) -> Iterator[Feedback]:
    """Removes records whose prompt is one of a test's, blind to Unicode form, case and white space, as the held-out split is.

    Responses are not looked at; records without a prompt pass. A chat of a single message is the same as that message's text.

    Args:
        against: JSONL files of test prompts (as feedback_source=jsonl takes them: file, folder or pattern, .gz), one or a list.
        field: where a row of theirs holds its prompt, a text or a list of messages {role, content}.
        ngram: also remove records whose prompt shares so many words in a row with a test prompt (13 is usual; Brown et al. 2020, app. C);
            a prompt of fewer words must have all of a test prompt's. 0: don't.

    Raises:
        DataError: a line of `against` that can't be read, with file, line and field.
    """
    prompts: set[int] = set()
    runs: set[bytes] = set()
    for prompt in _prompts((against,) if isinstance(against, str) else against, field):
        prompts |= _numbers(prompt)
        if ngram:
            runs.update(map(_known, runs_of(words_of(said(prompt)), ngram)))
    for record in feedback:
        if not prompts.isdisjoint(_numbers(record.prompt)):
            done.remove(record, "its prompt is in the test")
        elif ngram and any(_known(run) in runs for run in runs_of(words_of(said(record.prompt)), ngram)):
            done.remove(record, f"its prompt shares {ngram} words in a row with the test")
        else:
            yield record


def _numbers(prompt: Prompt) -> set[int]:
    """What a prompt is known by; a chat of one message is the same as the message's text, a blank one is none."""
    alone = [prompt[0].content] if not isinstance(prompt, str) and len(prompt) == 1 else []
    return {prompt_number(one) for one in (prompt, *alone)} if said(prompt).strip() else set()


def _known(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _prompts(paths: Iterable[str], field: str) -> Iterator[Prompt]:
    for path in paths:
        count = 0
        for row in jsonl(path=path):
            if isinstance(row, BadLine):
                raise DataError(f"feedback_filter.leakage.against: {row.origin}: {row.reason}")
            count += 1
            yield _prompt(row, field)
        if not count:
            raise DataError(f"feedback_filter.leakage.against: {path} has no rows; give a JSONL file of test prompts")


def _prompt(row: Row, field: str) -> Prompt:
    try:
        return prompt_of(row, field)
    except DataError as error:
        raise DataError(f"feedback_filter.leakage.against: {row.origin}: {error}; feedback_filter.leakage.field={field}") from None
