"""Exports of a collection: records, answers, TRL's pairs, Label Studio's and Argilla's JSON.

The functions take records as `database.records.record_rows` yields them: Feedback as JSON objects.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from rlhf_lightning.database.records import answer_rows, record_rows

Rows = Iterator[dict[str, Any]]
FILES = {"feedback": "jsonl", "answers": "jsonl", "trl": "jsonl", "label_studio": "json", "argilla": "json"}
"""Ending of each kind of export; a JSON file is one array."""


def export_text(connection: Connection, kind: str) -> Iterator[str]:
    """Stream an export, row by row.

    Args:
        kind: a key of FILES. "answers" has skips, gold items and late answers too.
    """
    exports: dict[str, Callable[[Rows], Rows]] = {"trl": trl_rows, "label_studio": label_studio_rows, "argilla": argilla_rows}
    if kind == "answers":
        rows = answer_rows(connection)
    else:
        records = record_rows(connection)
        rows = exports[kind](records) if kind in exports else records
    lines = (json.dumps(row) for row in rows)
    if FILES[kind] == "jsonl":
        yield from (f"{line}\n" for line in lines)
        return
    yield "["
    for number, line in enumerate(lines):
        yield f"{',' if number else ''}\n{line}"
    yield "\n]\n"


def trl_rows(records: Iterable[Mapping[str, Any]]) -> Rows:
    """TRL's preference pairs, conversational where the prompt is a chat.

    A ranking gives a row for each two responses of different ranks, an edit one that prefers the edited text. Other judgements and ties
    have no pairs.
    """
    for record in records:
        judgement, responses, models = record["judgement"], record["responses"], record["models"] or [None] * len(record["responses"])
        is_chat = not isinstance(record["prompt"], str)
        for better, worse in _decided_pairs(judgement, responses):
            row = {"prompt": record["prompt"]}
            for name, i in (("chosen", better), ("rejected", worse)):
                row[name] = [{"role": "assistant", "content": responses[i]}] if is_chat else responses[i]
                row[f"{name}_model"] = models[i]
            if judgement.get("margin") is not None:
                row["margin"] = judgement["margin"]
            if record.get("selected_by") is not None:
                row["selected_by"] = record["selected_by"]
            yield row | {name: record[name] for name in ("annotator", "time", "seconds")}


def _decided_pairs(judgement: Mapping[str, Any], responses: list[str]) -> Iterator[tuple[int, int]]:
    """Indices of the better and the worse of each two responses that differ in rank."""
    if judgement["kind"] == "edit":
        if responses[0] != responses[1]:
            yield 1, 0
    elif judgement["kind"] == "ranking":
        for i, j in itertools.combinations(range(len(responses)), 2):
            ranks = judgement["ranks"]
            if None not in (ranks[i], ranks[j]) and ranks[i] != ranks[j]:
                yield (i, j) if ranks[i] < ranks[j] else (j, i)


def label_studio_rows(records: Iterable[Mapping[str, Any]]) -> Rows:
    """Label Studio's tasks: one for the same responses in one order, with all annotations of them.

    Controls are called after the judgement: rating (or its aspect), pairwise, ranking, thumbs, edit, spans, comment. A ranking of more than
    two, or with ties, is a Ranker with the buckets rank_1, rank_2, ... A skip is a cancelled annotation. `meta.records` has what no field
    has: "both bad", margins, models, reasons of skips.
    """
    ids = itertools.count(1)
    for number, (texts, judged) in enumerate(_by_responses(records), start=1):
        annotations = [{"id": next(ids), **_annotation(record)} for record in judged]
        data: dict[str, Any] = {"prompt": judged[0]["prompt"]}
        if len(texts) == 1:
            data["response"] = texts[0]
        elif len(texts) == 2:
            data |= {"answer1": texts[0], "answer2": texts[1]}
        if len(texts) > 1:
            data["items"] = [{"id": str(i), "body": text} for i, text in enumerate(texts, start=1)]
        lossless = [{name: record[name] for name in ("judgement", "models", "positions", "source")} for record in judged]
        yield {"id": number, "data": data, "annotations": annotations, "predictions": [], "meta": {"records": lossless}}


def _annotation(record: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "completed_by": {"email": record["annotator"]},
        "created_at": record["time"],
        "lead_time": record["seconds"],
        "was_cancelled": record["judgement"]["kind"] == "skip",
        "result": [
            {"id": f"result_{i}", "from_name": control, "to_name": "response", "type": kind, "origin": "manual", "value": value}
            for i, (control, kind, value) in enumerate(_label_studio_values(record))
        ],
    }


def _label_studio_values(record: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The name, kind and value of each control of a judgement."""
    judgement, responses = record["judgement"], record["responses"]
    match judgement["kind"]:
        case "rating":
            kind = "rating" if float(judgement["value"]).is_integer() else "number"
            yield judgement["aspect"] or "rating", kind, {kind: _number(judgement["value"])}
        case "thumbs":
            yield "thumbs", "choices", {"choices": ["up" if judgement["up"] else "down"]}
        case "edit":
            yield "edit", "textarea", {"text": [responses[1]]}
        case "comment":
            yield "comment", "textarea", {"text": [judgement["text"]]}
        case "spans":
            for span in judgement["spans"]:
                start, end = span["start"], span["end"]
                yield "spans", "labels", {"start": start, "end": end, "text": responses[0][start:end], "labels": [span["label"]]}
        case "ranking":
            ranks = judgement["ranks"]
            if len(ranks) == 2 and ranks[0] != ranks[1]:
                yield "pairwise", "pairwise", {"selected": "left" if ranks[0] < ranks[1] else "right"}
                return
            buckets: dict[str, list[str]] = {f"rank_{level}": [] for level in range(1, len(ranks) + 1)}
            for i, rank in enumerate(ranks, start=1):
                buckets[f"rank_{sorted(set(ranks)).index(rank) + 1}"].append(str(i))
            yield "ranking", "ranker", {"ranker": buckets}


def argilla_rows(records: Iterable[Mapping[str, Any]]) -> Rows:
    """Argilla's records: one for the same responses in one order.

    Questions are called after the judgement: rating (or its aspect), ranking, thumbs (yes, no), edit, spans, comment. A ranking
    without ties is a list of fields, best first, as Argilla 2 stores it; one with ties has ranks. Skips are left out.
    """
    judgements = (record for record in records if record["judgement"]["kind"] != "skip")
    for number, (texts, judged) in enumerate(_by_responses(judgements), start=1):
        names = ["response"] if len(texts) == 1 else [f"response_{i}" for i in range(1, len(texts) + 1)]
        answers: dict[str, list[dict[str, Any]]] = {}
        for record in judged:
            question, value = _argilla_value(record, names)
            answers.setdefault(question, []).append({"value": value, "user_id": record["annotator"], "status": "submitted"})
        metadata = {} if judged[0]["source"] is None else {"source": judged[0]["source"]}
        fields = {"prompt": judged[0]["prompt"], **dict(zip(names, texts, strict=True))}
        yield {"id": str(number), "fields": fields, "metadata": metadata, "suggestions": {}, "responses": answers, "vectors": {}}


def _argilla_value(record: Mapping[str, Any], names: list[str]) -> tuple[str, Any]:
    """The question and the value of a judgement."""
    judgement, responses = record["judgement"], record["responses"]
    match judgement["kind"]:
        case "rating":
            return judgement["aspect"] or "rating", _number(judgement["value"])
        case "thumbs":
            return "thumbs", "yes" if judgement["up"] else "no"
        case "edit":
            return "edit", responses[1]
        case "comment":
            return "comment", judgement["text"]
        case "spans":
            return "spans", [{name: span[name] for name in ("start", "end", "label")} for span in judgement["spans"]]
        case "ranking":
            ranks = judgement["ranks"]
            if len(set(ranks)) == len(ranks):
                return "ranking", [name for _, name in sorted(zip(ranks, names, strict=True))]
            return "ranking", [{"value": name, "rank": rank} for name, rank in zip(names, ranks, strict=True)]
    raise ValueError(f"no judgement of the page: {judgement['kind']}")


def _by_responses(records: Iterable[Mapping[str, Any]]) -> Iterator[tuple[list[str], list[Mapping[str, Any]]]]:
    """Group the records by prompt and responses in display order; an edit belongs to its original."""
    groups: dict[str, tuple[list[str], list[Mapping[str, Any]]]] = {}
    for record in records:
        texts = record["responses"][:1] if record["judgement"]["kind"] == "edit" else record["responses"]
        groups.setdefault(json.dumps([record["prompt"], texts]), (texts, []))[1].append(record)
    yield from groups.values()


def _number(value: float) -> float:
    """The number as an integer if it is one: stars are."""
    return int(value) if float(value).is_integer() else value
