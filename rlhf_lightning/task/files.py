"""The user's own prompts and demonstrations, as texts or conversations, from files and data sets."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Annotated, NoReturn

from pydantic import Field, PositiveInt

from rlhf_lightning.config.schema import FilePath, unescape
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.row import Row
from rlhf_lightning.feedback.row_reader import read_rows
from rlhf_lightning.feedback.source.hub import DataSet
from rlhf_lightning.flow import Prompt
from rlhf_lightning.interfaces import Demonstration, TaskPrompt
from rlhf_lightning.registry import register
from rlhf_lightning.task._rows import RowShapes, prompt_key, question_key


@register("task", "files")
class Files:
    """Your own prompts and demonstrations, as texts or conversations, without a utility.

    Read are JSON Lines, JSON arrays, CSV and Parquet files, plain or gzipped, folders of the datasets library, and names on the Hub. A
    row's prompt is its `prompt`, a text or a list of messages {role, content}; else its `messages` up to the last answer, or what
    `chosen` and `rejected` share. A demonstration is a prompt with its response, a text or messages; `messages`, of which all turns of the
    assistant are learned; or `text`, which is learned from its first token. A row's other columns go to the scorer. The tokenizer's
    chat template renders conversations. Prompts with the same Unicode NFC form are duplicates; the first is kept. Held-out prompts are
    neither among the training prompts nor in the demonstrations.

    Args:
        prompts: file, folder or Hub name of the prompts; null takes those of the demonstrations.
        test_prompts: file, folder or Hub name of held-out prompts; null holds out a fraction of `prompts`.
        prompt_field: the column of the prompt.
        demonstrations: file, folder or Hub name of prompts with responses, of conversations or of texts, for supervised fine-tuning;
            possibly that of `prompts`.
        response_field: the column of the response in it; null takes `response`, else `completion`.
        system: a system message before each conversation that has none. With it, also empty, a text prompt is a user's message.
        split: name of the data set's split with `prompts`.
        test_split: name of the data set's split with `test_prompts`.
        config: name of a data set's configuration on the Hub.
        test_fraction: fraction of `prompts` to hold out without test_prompts, by a prompt's sha256, independent of the rest of the
            file.
        limit: maximum of prompts, of test prompts and of demonstrations, the first ones; null keeps all.
        prefix, suffix: text around every prompt that is a text. Strings of the model's special tokens in them are special tokens, and
            \\n and \\t a line break and a tab; in the prompts themselves they stay plain text.

    Raises:
        DataError: naming file, line and field.
        ConfigError: neither prompts nor demonstrations, or prefix and suffix with system.
    """

    has_utility = False

    def __init__(
        self,
        *,
        prompts: FilePath | None = None,
        test_prompts: FilePath | None = None,
        prompt_field: str = "prompt",
        demonstrations: FilePath | None = None,
        response_field: str | None = None,
        system: str | None = None,
        split: str = "train",
        test_split: str = "test",
        config: str | None = None,
        test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1,
        limit: PositiveInt | None = None,
        prefix: str = "",
        suffix: str = "",
    ) -> None:
        if system is not None and (prefix or suffix):
            raise ConfigError("task.prefix and task.suffix frame texts, and task.system makes conversations of them: choose one of the two")
        shapes = RowShapes(prompt_field, response_field, system, unescape(prefix), unescape(suffix))
        path, setting = (prompts, "task.prompts") if prompts is not None else (demonstrations, "task.demonstrations")
        if path is None:
            raise ConfigError(
                "task=files reads a file, folder or Hub name: give task.prompts=..., or task.demonstrations=... for stage=sft"
            )
        every = _distinct(DataSet(path, split, config, path_setting=setting, split_setting="task.split"), shapes, prompts is not None)
        if test_prompts is not None:
            data_set = DataSet(test_prompts, test_split, config, path_setting="task.test_prompts", split_setting="task.test_split")
            held_out = _distinct(data_set, shapes)
        else:
            held_out = {key: row for key, row in every.items() if _hash_fraction(row.prompt) < test_fraction}
        train = [row for key, row in every.items() if key not in held_out]
        if every and not train:
            raise DataError(f"{path}: no prompts are left to train on, {len(every)} were read and all of them are held out")
        self._train, self._test = train[:limit], [*held_out.values()][:limit]
        self._demonstrations: list[Demonstration] = []
        if demonstrations is not None:
            data_set = DataSet(demonstrations, split, config, path_setting="task.demonstrations", split_setting="task.split")
            self._demonstrations = list(_demonstrations(data_set, shapes, held_out.keys()))[:limit]

    def train_prompts(self) -> list[TaskPrompt]:
        """Return the training prompts, in the file's order."""
        return list(self._train)

    def test_prompts(self) -> list[TaskPrompt]:
        """Return the held-out prompts, in the file's order; possibly empty."""
        return list(self._test)

    def demonstrations(self) -> list[Demonstration]:
        """Return the demonstrations, in the file's order."""
        return list(self._demonstrations)

    def utility(self, prompt: Prompt, response: str) -> float:
        """Raise ConfigError: there is no utility."""
        _unknown("utility")

    def improve(self, prompt: Prompt, response: str, rng: random.Random) -> str:
        """Raise ConfigError: there are no edits."""
        _unknown("edits")


def _unknown(kind: str) -> NoReturn:
    raise ConfigError(f"task=files knows no {kind}; bring feedback with feedback_source, or take a task that has one (task=reviews)")


def _distinct(data: DataSet, shapes: RowShapes, required: bool = True) -> dict[str, TaskPrompt]:
    """Return the distinct prompts by their keys.

    Args:
        required: rows of plain text, which have no prompt, are an error.
    """
    prompts: dict[str, TaskPrompt] = {}
    for row in read_rows(data):
        with _error_origin(row):
            prompt = shapes.prompt_row(row)
            if prompt is not None:
                prompts.setdefault(prompt_key(prompt.prompt), prompt)
            elif required:
                raise DataError("a row of text has no prompt: give it as task.demonstrations alone, to stage=sft")
    return prompts


def _demonstrations(data: DataSet, shapes: RowShapes, held_out: Collection[str]) -> Iterator[Demonstration]:
    """Yield the demonstrations whose prompts aren't held out."""
    for row in read_rows(data):
        with _error_origin(row):
            demonstration, prompt = shapes.demonstration(row), shapes.prompt_row(row)
        if prompt is None or prompt_key(prompt.prompt) not in held_out:
            yield demonstration


@contextmanager
def _error_origin(row: Row) -> Iterator[None]:
    """Name the row's file and line in an error."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{row.origin}: {error}") from None


def _hash_fraction(prompt: Prompt) -> float:
    """Hash a prompt without its system message to [0, 1)."""
    return int.from_bytes(hashlib.sha256(question_key(prompt).encode()).digest()[:8]) / 2**64
