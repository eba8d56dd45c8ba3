"""Answer names of other frameworks with ours, from the tables of docs/howto/from_*.md."""

from __future__ import annotations

import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf_lightning.config.overrides import FLAGS, FLAGS_WITH_VALUE, double_quote
from rlhf_lightning.config.schema import settings_of
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import GROUPS, PACKAGE, components, section_names
from rlhf_lightning.registry import settings_of as section_settings

PAGES = PACKAGE / "docs" if (PACKAGE / "docs").is_dir() else PACKAGE.parent / "docs" / "howto"
STAGE_SECTIONS = {"sft": "sft", "reward": "reward", "preference": "preference", "ppo": "ppo"}
"""The section of each stage that trains one model."""
OTHER_UNIT = "other unit"
"""Beginning of a note if a value can't be used as it is."""
_CODE = re.compile(r"`([^`]+)`")


@dataclass(frozen=True)
class Row:
    """A term of another program.

    Attributes:
        program: the head of the table's first column.
        stage: the stage of its section of the page; "" for all.
        key, value: the term; the value is "" if the row is for all values.
        answers: our overrides, as alternatives for different stages; empty if there is nothing to set.
        text: the cell with our overrides, if it has none, such as "always".
    """

    program: str
    stage: str
    key: str
    value: str
    answers: tuple[str, ...]
    text: str
    note: str


@dataclass(frozen=True)
class Argument:
    """An argument of a command: `key=value`, `--key=value`, `--key value` or `--key`."""

    text: str
    key: str
    value: str

    @property
    def is_flag(self) -> bool:
        return self.text.startswith("-")


def reject_foreign_flags(args: Sequence[str]) -> None:
    """Reject flags of other programs (`--learning_rate 1e-5`) with our overrides.

    Raises:
        ConfigError: with an answer for each argument that another program has.
    """
    if any(argument.is_flag and find_rows(argument, stage_of(args)) for argument in _arguments(args)):
        raise ConfigError(explain_foreign_terms(args, {}))


def explain_foreign_terms(args: Sequence[str], presets: Mapping[str, Mapping[str, Sequence[str]]]) -> str:
    """Our overrides for the arguments that are names of other programs; "" without any.

    Args:
        presets: groups of conf/, with their options and settings, whose names are ours.
    """
    stage = stage_of(args)
    answers = [answer for argument in _arguments(args) if not _is_ours(argument, presets) and (answer := hint(argument, stage))]
    return "names of other programs:\n  " + "\n  ".join(answers) if len(answers) > 1 else "".join(answers)


def hint(argument: Argument, stage: str) -> str:
    """The answer to one argument, given the command's stage; "" for an unknown term."""
    rows = find_rows(argument, stage)
    if not rows:
        return ""
    answers = dict.fromkeys(answer for row in rows for answer in _answers(row, argument, stage))
    notes = dict.fromkeys(row.note for row in rows if row.note)
    note = f" ({'; '.join(notes)})" if len(notes) == 1 or not answers else ""
    if not answers:
        return f"{argument.text} ({rows[0].program}): {rows[0].text}, leave it out{note}"
    return f"{argument.text} ({rows[0].program}): write {' or '.join(answers)}{note}"


def stage_of(args: Sequence[str]) -> str:
    """The stage that a command chooses, also by another program's name of it; "" for the default."""
    chosen = next((argument for argument in _arguments(args) if argument.key == "stage"), None)
    if chosen is None:
        return ""
    rows = [row for row in table() if row.key == "stage" and row.value == chosen.value]
    match = re.search(r"\bstage=(\w+)", rows[0].answers[0]) if rows else None
    return match[1] if match else chosen.value


def find_rows(argument: Argument, stage: str) -> list[Row]:
    """The rows of a term: of this value before others, of this stage before others."""
    key = argument.key.replace("-", "_")
    rows = [row for row in table() if row.key == key]
    top, _, name = key.rpartition(".")
    if not rows and top in (*section_names(), *GROUPS, "trainer", "logger", "hydra"):
        rows = [row for row in table() if row.key == name]
        stage = STAGE_SECTIONS.get(top, stage)
    value = argument.value.strip("'\"").lower()
    rows = [row for row in rows if row.value == value] or [row for row in rows if not row.value]
    return [row for row in rows if row.stage in ("", stage)] or rows


@functools.cache
def table() -> tuple[Row, ...]:
    """The rows of all pages, in order."""
    return tuple(row for page in sorted(PAGES.glob("from_*.md")) for row in _rows_of(page))


def _rows_of(page: Path) -> Iterator[Row]:
    """The rows of a page's tables `| PROGRAM | ours | note |`.

    The first `stage=NAME` of a section's example is their stage.
    """
    for section in re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        code = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
        match = re.search(r"\bstage=(\w+)", code[1]) if code else None
        lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in section.splitlines() if line.startswith("|")]
        for terms, ours, note in lines[2:] if lines and lines[0][1:] == ["ours", "note"] else ():
            names = [term.lstrip("-").replace('"', "").replace(" ", "=") for term in _CODE.findall(terms)]
            for name, answers in zip(names, _split_answers(ours, len(names)), strict=True):
                key, _, value = name.partition("=")
                yield Row(lines[0][0], match[1] if match else "", key, value.lower(), answers, ours, note.replace("`", ""))


def _split_answers(cell: str, count: int) -> list[tuple[str, ...]]:
    """The answers to each of `count` terms: their own, separated by commas, or all of them."""
    parts = [tuple(_CODE.findall(part)) for part in cell.split(", ")]
    return parts if len(parts) == count else [tuple(_CODE.findall(cell))] * count


def _answers(row: Row, argument: Argument, stage: str) -> list[str]:
    """The row's answers for a stage, with the argument's value where it fits."""
    section = STAGE_SECTIONS.get(argument.key.partition(".")[0], STAGE_SECTIONS.get(stage, ""))
    fitting = [answer for answer in row.answers if re.search(rf"(^| ){section}\.", answer)] if section else []
    usable = not row.value and not row.note.startswith(OTHER_UNIT)
    return [_with_value(answer, argument.value) if usable else answer for answer in fitting or row.answers]


def _with_value(answer: str, value: str) -> str:
    """Put the value into the only setting of an answer, if it is of the kind of the example."""
    overrides = answer.split()
    settings = [i for i, override in enumerate(overrides) if "." in override.partition("=")[0] or override.startswith("resume=")]
    if len(settings) == 1 and value and not value.startswith("["):
        key, _, example = overrides[settings[0]].partition("=")
        if _kind(value) == _kind(example):
            overrides[settings[0]] = f"{key}={double_quote(value)}"
    return " ".join(overrides)


def _kind(value: str) -> str:
    if value.lower() in ("true", "false"):
        return "switch"
    return "number" if re.fullmatch(r"[+-]?\d[\d_]*\.?\d*(?:[eE][+-]?\d+)?", value) else "text"


def _arguments(args: Sequence[str]) -> Iterator[Argument]:
    """The arguments of a command but for the program's own flags and their values."""
    i = 0
    while i < len(args):
        word, following = args[i], args[i + 1] if i + 1 < len(args) else ""
        key, equals, value = word.partition("=")
        i += 1
        if word in FLAGS_WITH_VALUE:
            i += 1
        elif word.startswith("-") and key not in FLAGS:
            if not equals and following and following[0] not in "-+~" and "=" not in following:
                word, value, i = f"{word} {following}", following, i + 1
            yield Argument(word, key.lstrip("-"), value)
        elif equals and not word.startswith("-"):
            yield Argument(word, key.lstrip("+~"), value)


def _is_ours(argument: Argument, presets: Mapping[str, Mapping[str, Collection[str]]]) -> bool:
    """Return whether an argument names an option or a setting of ours."""
    if argument.is_flag:
        return False
    top, dot, name = argument.key.partition(".")
    if not dot:
        options = {*(option.name for option in components(top) if top in GROUPS), *presets.get(top, ())}
        return top in ("seed", "resume", *section_names()) or argument.value in options or argument.value.startswith("[")
    settings = [setting.name for option in components(top) for setting in settings_of(option.target)] if top in GROUPS else []
    settings += section_settings(top) if top in section_names() else []
    settings += [setting for names in presets.get(top, {}).values() for setting in names]
    name = name.rpartition(".")[2] if top in GROUPS and GROUPS[top].many else name
    return name in settings or top == "hydra"
