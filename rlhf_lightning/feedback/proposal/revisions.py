"""Proposals for rows with an edited text, marked spans, or a written comment."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

from rlhf_lightning.feedback.proposal.candidate import Candidate, Table, find_exchange, find_prompt, metadata_settings
from rlhf_lightning.feedback.proposal.fields import Field, fields_of
from rlhf_lightning.feedback.proposal.names import best_named, name_score

SEVERITIES = {
    "critical": -1.0, "major": -1.0, "severe": -1.0, "high": -1.0, "error": -1.0, "bad": -1.0, "wrong": -1.0, "minor": -0.2, "low": -0.2,
    "medium": -0.5, "neutral": 0.0, "good": 1.0, "correct": 1.0, "praise": 1.0,
}  # fmt: skip
"""What severities of errors are worth; major to minor is 5 to 1, as in MQM (Freitag et al. 2021)."""
SAMPLE = 40


def propose_edit(table: Table) -> Iterator[Candidate]:
    """Two texts of which one is called an edit, or that mostly share their words."""
    texts = [field for field in table.of_kind("text") if field.words >= 1.5 and field.share > 0.5]
    edited = best_named(texts, "edited")
    if edited is not None:
        others = [text for text in texts if text is not edited]
        response = max(others, key=lambda text: _similarity(text, edited), default=None)
        if response is not None and _similarity(response, edited) > 0.25:
            yield _edit(table, response, edited, 0.5 + 0.45 * name_score(edited.name, "edited"), ())
        return
    pairs = [(a, b) for i, a in enumerate(texts) for b in texts[i + 1 :]]
    a, b = max(pairs, key=lambda pair: _similarity(*pair), default=(None, None))
    if a is not None and b is not None and _similarity(a, b) > 0.7 and not _continues(a, b):
        yield _edit(table, a, b, 0.55, (f"`{b.path}` is the better version of `{a.path}`: their texts are alike",))


def _edit(table: Table, response: Field, edited: Field, score: float, assumptions: tuple[str, ...]) -> Candidate:
    used = frozenset([response.path, edited.path])
    prompt = find_prompt(table, used)
    metadata, reasons = metadata_settings(table, used, annotator="annotator", model="model")
    return Candidate(
        "edit", {"prompt": prompt.path if prompt else None, "response": response.path, "edited": edited.path} | metadata, score,
        (_prompt_reason(prompt), f"`{edited.path}` is an edit of `{response.path}`", *reasons),
        frozenset([edited.path]), assumptions,
    )  # fmt: skip


def _continues(a: Field, b: Field) -> bool:
    """Detect a text that mostly begins with the other, as a story with its prompt."""
    pairs = list(zip(a.values, b.values, strict=False))[:SAMPLE]
    return 2 * sum(str(x).startswith(str(y)) or str(y).startswith(str(x)) for x, y in pairs) > len(pairs)


def _prompt_reason(prompt: Field | None) -> str:
    return f"the prompt is `{prompt.path}`" if prompt else "no field is a prompt"


def _similarity(a: Field, b: Field) -> float:
    """Mean share of words in common of the first rows that have both."""
    pairs = list(zip(a.values, b.values, strict=False))[:SAMPLE] if len(a.values) == len(b.values) else []
    ratios = [SequenceMatcher(None, str(x).split(), str(y).split(), autojunk=False).ratio() for x, y in pairs]
    return statistics.fmean(ratios) if ratios else 0.0


def propose_spans(table: Table) -> Iterator[Candidate]:
    """Lists of marks with start and end, or with their text."""
    for field in [*table.of_kind("objects"), *table.of_kind("mixed", "list")]:
        marks = [item for item in field.items if isinstance(item, dict)]
        if not marks or len(marks) < len(field.items):
            continue
        inner = fields_of(marks)
        has_offsets = "start" in inner and "end" in inner
        text = next((inner[name] for name in ("span", "text", "quote", "substring") if name in inner and inner[name].kind == "text"), None)
        severity = best_named([item for item in inner.values() if item.kind in ("text", "number")], "severity", {text.path} if text else ())
        if severity is None or not (has_offsets or (text is not None and name_score(field.name, "spans") > 0.3)):
            continue
        exchange = find_exchange(table, {field.path})
        if exchange is None or "messages" in exchange.settings:
            continue
        values = {} if severity.kind == "number" else {str(value): SEVERITIES.get(str(value).lower(), -1.0) for value in severity.distinct}
        settings: dict[str, Any] = {"spans": field.path, "value": severity.path} | ({"values": values} if values else {})
        if text is not None:
            settings["span"] = text.path
        metadata, reasons = metadata_settings(table, {field.path, *exchange.paths}, annotator="annotator", model="model")
        label = next((name for name in ("category", "label", "type") if name in inner and name != severity.path), None)
        settings |= {"label": label} if label else {}
        rater = best_named(inner.values(), "annotator")
        settings |= (
            {"rater": rater.path, "raters": tuple(map(str, sorted(rater.distinct, key=str)))}
            if rater is not None and rater.kind == "text"
            else {}
        )
        score = (0.6 + 0.3 * name_score(field.name, "spans")) * exchange.score
        yield Candidate(
            "spans", exchange.settings | settings | {"unclear": "first"} | metadata, score,
            (*exchange.reasons, f"`{field.path}` holds the marks, worth what `{severity.path}` says", *reasons), frozenset([field.path]),
            (f"the marks are worth {', '.join(f'{name} {value:g}' for name, value in values.items())}",) if values else (),
        )  # fmt: skip


def propose_comment(table: Table) -> Iterator[Candidate]:
    """A written comment on a response."""
    comments: Sequence[Field] = [text for text in table.of_kind("text") if text.words >= 3 and name_score(text.name, "comment") > 0.5]
    for comment in comments[:1]:
        exchange = find_exchange(table, {comment.path})
        if exchange is None or exchange.score < 0.7 or "messages" in exchange.settings:
            return
        metadata, reasons = metadata_settings(table, {comment.path, *exchange.paths}, annotator="annotator", model="model")
        yield Candidate(
            "comment", exchange.settings | {"comment": comment.path, "empty": "skip"} | metadata, 0.62 * exchange.score,
            (*exchange.reasons, f"`{comment.path}` is a comment on it", *reasons), frozenset([comment.path]),
        )  # fmt: skip
