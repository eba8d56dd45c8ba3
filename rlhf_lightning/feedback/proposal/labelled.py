"""Proposals for rows with a label of a response, or a dialogue with judged turns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_lightning.feedback.proposal.candidate import Candidate, Table, find_exchange, find_prompt, metadata_settings
from rlhf_lightning.feedback.proposal.families import families_of
from rlhf_lightning.feedback.proposal.fields import Field
from rlhf_lightning.feedback.proposal.labels import thumbs_meaning
from rlhf_lightning.feedback.proposal.names import is_machine_name, name_score
from rlhf_lightning.feedback.proposal.scale import guess_scale

MAX_LABELS = 8


def propose_thumbs(table: Table) -> Iterator[Candidate]:
    """Fields of few values, each of which says good or bad."""
    paired = {path for family in families_of(table.texts) for path in family.paths if min(f.words for f in family.fields) >= 1.5}
    for field in table.of_kind("boolean", "number", "text"):
        if len(field.distinct) > MAX_LABELS or is_machine_name(field.name) or field.words > 4:
            continue
        meanings = {value: thumbs_meaning(value, field.name) for value in field.distinct}
        if field.kind == "number" and not set(field.distinct) <= {-1, 0, 1}:
            continue
        if None in meanings.values() or set(meanings.values()) <= {"skip"}:
            continue
        if field.kind == "number" and -1 in meanings and 0 in meanings:
            meanings[0] = "skip"
        exchange = find_exchange(table, {field.path, *paired} if len(paired) > 1 else {field.path})
        if exchange is None:
            continue
        settings: dict[str, Any] = {
            meaning: tuple(value for value, of in meanings.items() if of == meaning) for meaning in ("up", "down", "skip")
        }
        metadata, reasons = metadata_settings(table, {field.path, *exchange.paths}, annotator="annotator", model="model")
        named = max(name_score(field.name, "label"), 0.9 * name_score(field.path.rpartition(".")[0].rpartition(".")[2], "label"))
        if {"up", "down"} <= set(meanings.values()) and field.kind == "text":
            named = max(named, 0.6)  # the values speak for themselves
        certainty = exchange.score if len(field.distinct) > 1 else 0.8 * exchange.score
        values = "; ".join(f"{'/'.join(map(str, labels))} is {meaning}" for meaning, labels in settings.items() if labels)
        yield Candidate(
            "thumbs", exchange.settings | {"label": field.path} | settings | metadata,
            ((0.5 if named else 0.4) + (0.4 if field.kind == "number" else 0.45) * named) * certainty,
            (*exchange.reasons, f"`{field.path}` is the judgement: {values}", *reasons), frozenset([field.path]),
        )  # fmt: skip


def propose_dialogue(table: Table) -> Iterator[Candidate]:
    """Chats whose messages carry ratings or thumbs, or have a list of ratings beside them."""
    for chat in table.of_kind("chat"):
        keys = {
            key
            for item in chat.items
            for key, value in item.items()
            if key not in ("role", "content", "from", "value") and value is not None
        }
        judged = frozenset([chat.path])
        metadata, reasons = metadata_settings(table, judged, annotator="annotator", model="model")
        for key in sorted(keys):
            values = [item[key] for item in chat.items if item.get(key) is not None]
            because = (f"`{key}` of the messages in `{chat.path}` judges them", *reasons)
            base: dict[str, Any] = {"messages": chat.path} | metadata
            if all(isinstance(value, bool) for value in values):
                yield Candidate("dialogue", base | {"thumbs": key, "rating": None, "ratings": None}, 0.93, because, judged)
            elif all(isinstance(value, int | float) for value in values) and not is_machine_name(key):
                scale, extent = guess_scale(values, key)
                yield Candidate(
                    "dialogue", base | {"rating": key, "ratings": None, "scale": scale}, 0.92, because, judged,
                    (extent,) if "taken" in extent else (),
                )  # fmt: skip
        for field in table.of_kind("list"):
            if _fits_turns(chat, field):
                scale, extent = guess_scale(field.numbers, field.name)
                yield Candidate(
                    "dialogue", {"messages": chat.path, "rating": None, "ratings": field.path, "scale": scale} | metadata, 0.9,
                    (f"`{field.path}` holds a rating of each message in `{chat.path}`", *reasons), frozenset([field.path]),
                    (extent,) if "taken" in extent else (),
                )  # fmt: skip


def _fits_turns(chat: Field, field: Field) -> bool:
    lengths = [len(value) for value in chat.values] == [len(value) for value in field.values]
    return lengths and bool(field.numbers) and all(item is None or isinstance(item, int | float) for item in field.items)


def propose_stepwise(table: Table) -> Iterator[Candidate]:
    """Lists of steps with a list of labels as long."""
    for steps in table.of_kind("list"):
        if name_score(steps.name, "steps") <= 0.3 or not all(isinstance(item, str) for item in steps.items):
            continue
        for labels in table.of_kind("list"):
            if (
                labels is steps
                or name_score(labels.name, "step_labels") <= 0.3
                or [len(v) for v in labels.values] != [len(v) for v in steps.values]
            ):
                continue
            values = list(dict.fromkeys((type(item) is bool, item) for item in labels.items if item is not None))
            meanings = {key: thumbs_meaning(key[1], labels.name) for key in values}
            if None in meanings.values():
                continue
            prompt = find_prompt(table, {steps.path, labels.path})
            by = {"up": "good", "down": "bad", "skip": "neutral"}
            settings = {setting: tuple(value for (_, value), of in meanings.items() if of == meaning) for meaning, setting in by.items()}
            if all(type(value) is int for _, value in values) and len(values) == 3:
                settings = {"good": (1,), "neutral": (0,), "bad": (-1,)}
            yield Candidate(
                "stepwise",
                {"prompt": prompt.path if prompt else None, "completions": steps.path, "labels": labels.path} | settings, 0.9,
                (f"`{labels.path}` judges the steps in `{steps.path}`",), frozenset([labels.path]),
            )  # fmt: skip
