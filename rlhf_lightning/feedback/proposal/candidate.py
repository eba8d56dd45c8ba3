"""Candidates, and what those of every format share: prompt, response and metadata."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf_lightning.feedback.chat import SHAREGPT_ROLES
from rlhf_lightning.feedback.proposal.detect import Sample
from rlhf_lightning.feedback.proposal.families import families_of
from rlhf_lightning.feedback.proposal.fields import Field, as_text
from rlhf_lightning.feedback.proposal.names import best_named, name_score


@dataclass(frozen=True)
class Table:
    """The fields of a sample's rows, or of the rows that a list of them explodes into.

    Attributes:
        explode: the lists that were exploded; their inner fields have paths through them.
    """

    sample: Sample
    fields: Mapping[str, Field]
    explode: tuple[str, ...] = ()

    def of_kind(self, *kinds: str) -> list[Field]:
        return [field for field in self.fields.values() if field.kind in kinds]

    @property
    def texts(self) -> list[Field]:
        return self.of_kind("text", "chat")


@dataclass(frozen=True)
class Candidate:
    """A format with its settings.

    Attributes:
        score: 0 to 1; what names and values speak for it.
        reasons: which field was taken for what.
        assumptions: what the file doesn't say; the user must check it.
        judgements: the fields with the judgements.
        rename, ignore_fields: settings of the source.
    """

    format: str
    settings: Mapping[str, Any]
    score: float
    reasons: tuple[str, ...]
    judgements: frozenset[str]
    assumptions: tuple[str, ...] = ()
    explode: tuple[str, ...] = ()
    rename: Mapping[str, str] = field(default_factory=dict)
    ignore_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Exchange:
    """Prompt and response of a row: the settings that name them, and how well they fit."""

    settings: dict[str, Any]
    score: float
    reasons: tuple[str, ...]

    @property
    def paths(self) -> frozenset[str]:
        return frozenset(value for value in self.settings.values() if value is not None)


def find_exchange(table: Table, used: Collection[str]) -> Exchange | None:
    """The fields of prompt and response, or of a chat that holds both; None if no text is a response."""
    texts = [field for field in table.texts if field.path not in used and field.share > 0.5 and not is_label(field)]
    response = _response(texts)
    chat = next((field for field in texts if field.kind == "chat" and ends_with_answer(field)), None)
    if chat is not None and (response is None or response is chat or name_score(response.name, "response") < 0.9):
        return Exchange({"messages": chat.path}, 1.0, (f"the chat is `{chat.path}`, judged by its last answer",))
    if response is None:
        return None
    certainty = 1.0
    prompt = find_prompt(table, {*used, response.path})
    if any(response.path in family.paths and min(field.words for field in family.fields) >= 1.5 for family in families_of(texts)):
        certainty = 0.6  # the judgement is hardly on this response alone
    named = name_score(response.name, "response") > 0.3
    reasons = (f"the response is `{response.path}`",)
    if prompt is None:
        score = 0.9 if named and len(texts) == 1 else 0.7
        return Exchange({"prompt": None, "response": response.path}, certainty * score, (*reasons, "no field is a prompt"))
    score = 1.0 if named and name_score(prompt.name, "prompt") > 0.3 else 0.75
    return Exchange({"prompt": prompt.path, "response": response.path}, certainty * score, (f"the prompt is `{prompt.path}`", *reasons))


def _response(texts: list[Field]) -> Field | None:
    """The text whose name says that it is a response; else the longest that is no prompt."""
    best = best_named([text for text in texts if name_score(text.name, "prompt") <= name_score(text.name, "response")], "response")
    if best is not None:
        return best
    others = [text for text in texts if text.words >= 3 and name_score(text.name, "prompt") < 0.5 and not is_side_text(text)]
    return max(others, key=lambda text: text.words, default=None)


def find_prompt(table: Table, used: Collection[str]) -> Field | None:
    """The text that is a prompt by its name; else a text that repeats, or stands before all others."""
    texts = [text for text in table.texts if text.path not in used and text.share > 0.5 and not is_label(text)]
    best = best_named(texts, "prompt")
    if best is not None:
        return best
    others = [text for text in texts if text.words >= 3 and not is_side_text(text) and not name_score(text.name, "response")]
    return others[0] if others else None


def is_label(text: Field) -> bool:
    """Detect texts that are few short values, such as categories."""
    return text.kind == "text" and text.words < 3 and len(text.values) >= 8 and len(text.distinct) <= len(text.values) / 2


def is_side_text(text: Field) -> bool:
    """Tell a comment, a reference and the like from prompts and responses."""
    return name_score(text.name, "comment") > 0.5 or text.name.lower() in ("reference", "fact", "guidelines", "title", "system_prompt")


def ends_with_answer(chat: Field) -> bool:
    """Detect chats that mostly hold a user's turn and an answer."""
    roles = [{SHAREGPT_ROLES.get(str(item.get("role", item.get("from")))) for item in value} for value in chat.values]
    return sum({"user", "assistant"} <= present for present in roles) > len(roles) / 2


def metadata_settings(table: Table, used: Collection[str], **names: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings for annotator and model by the role's setting, with reasons."""
    settings, reasons = {}, []
    for role, setting in names.items():
        scalars = [field for field in table.of_kind("text", "number") if field.path not in used and field.words <= 4]
        repeated = [field for field in scalars if 1 < len(field.distinct) < max(10, 0.9 * len(field.values))]
        best = best_named(repeated if role == "annotator" else scalars, role)
        if best is not None:
            settings[setting] = best.path
            reasons.append(f"the {role} is `{best.path}` ({some_values(best)})")
    return settings, tuple(reasons)


def some_values(field: Field, limit: int = 3) -> str:
    """The first distinct values, cut."""
    labels = [as_text(value)[:20] for value in field.distinct[:limit]]
    return ", ".join(labels) + f" and {len(field.distinct) - limit} more" * (len(field.distinct) > limit)


def in_backticks(names: Iterable[str]) -> str:
    """Names in backticks."""
    return ", ".join(f"`{name}`" for name in names)
