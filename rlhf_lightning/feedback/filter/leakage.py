"""Leakage of test prompts into the training."""

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
from rlhf_lightning.feedback.words import prompt_content, word_ngrams, words_of
from rlhf_lightning.flow import Feedback, Prompt
from rlhf_lightning.registry import register


@register("feedback_filter", "leakage")
def leakage(
    feedback: Iterable[Feedback],
    cleaning: Cleaning,
    *,
    against: FilePath | tuple[FilePath, ...],
    field: str = "prompt",
    ngram: NonNegativeInt = 0,
) -> Iterator[Feedback]:
    """Remove records with a test prompt, ignoring Unicode form, case and white space.

    The held-out split compares prompts in the same way. Responses are not compared; records without a prompt pass. A chat of a
    single message is the same as that message's text.

    Args:
        against: JSONL files of test prompts (paths as for feedback_source=jsonl: file, folder or pattern, .gz), one or a list.
        field: the field of their rows with the prompt: a text or a list of messages {role, content}.
        ngram: also remove records whose prompt shares so many words in a row with a test prompt (13 is usual; Brown et al. 2020, app. C);
            a prompt of fewer words must equal a test prompt. 0 switches it off.

    Raises:
        DataError: a line of `against` that can't be read, with file, line and field.
    """
    prompts: set[int] = set()
    test_ngrams: set[bytes] = set()
    for prompt in _prompts((against,) if isinstance(against, str) else against, field):
        prompts |= _numbers(prompt)
        if ngram:
            test_ngrams.update(map(_digest, word_ngrams(words_of(prompt_content(prompt)), ngram)))
    for record in feedback:
        if not prompts.isdisjoint(_numbers(record.prompt)):
            cleaning.remove(record, "its prompt is in the test")
        elif ngram and any(_digest(words) in test_ngrams for words in word_ngrams(words_of(prompt_content(record.prompt)), ngram)):
            cleaning.remove(record, f"its prompt shares {ngram} words in a row with the test")
        else:
            yield record


def _numbers(prompt: Prompt) -> set[int]:
    """Return a prompt's ids: a chat of one message also has the id of its text; a blank prompt has none."""
    single_message = [prompt[0].content] if not isinstance(prompt, str) and len(prompt) == 1 else []
    return {prompt_number(text) for text in (prompt, *single_message)} if prompt_content(prompt).strip() else set()


def _digest(text: str) -> bytes:
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
