"""Proposals for the exports of annotation tools, which are known by their structure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_lightning.feedback.proposal.candidate import Candidate, Table
from rlhf_lightning.feedback.proposal.fields import Field, fields_of
from rlhf_lightning.feedback.proposal.labels import thumbs_meaning
from rlhf_lightning.feedback.proposal.names import best_named, name_score
from rlhf_lightning.feedback.proposal.revisions import SEVERITIES
from rlhf_lightning.feedback.proposal.scale import guess_scale


def propose_exports(table: Table) -> Iterator[Candidate]:
    """The project's own records, Open-Assistant's trees, Label Studio's and Argilla's exports."""
    first = table.sample.rows[0].data
    if {"version", "judgement", "responses"} <= first.keys():
        yield Candidate("record", {}, 1.0, ("these are records of rlhf_lightning",), frozenset(["judgement"]))
    tree = next((name for name, value in first.items() if isinstance(value, dict) and "message_tree_id" in value), None)
    if "message_tree_id" in first or tree is not None:
        yield Candidate("oasst", {"tree": tree} if tree else {}, 1.0, ("these are Open-Assistant's message trees",), frozenset(["tree"]))
    if isinstance(first.get("annotations"), list) and isinstance(first.get("data"), dict):
        yield from _label_studio(table)
    if isinstance(first.get("fields"), dict) and isinstance(first.get("responses"), dict | list):
        yield from _argilla(table)


def _label_studio(table: Table) -> Iterator[Candidate]:
    rows = [row.data for row in table.sample.rows]
    results = [
        result
        for row in rows
        for annotation in row.get("annotations") or []
        if isinstance(annotation, dict)
        for result in annotation.get("result") or []
        if isinstance(result, dict)
    ]
    if not results:
        return
    data = fields_of([row["data"] for row in rows if isinstance(row.get("data"), dict)])
    texts = [field for field in data.values() if field.kind in ("text", "chat")]
    settings: dict[str, Any] = _data_fields(texts)
    assumptions = []
    kinds = {str(result.get("type")) for result in results}
    if "rating" in kinds:
        stars = [float(result["value"]["rating"]) for result in results if result.get("type") == "rating"]
        settings["scale"] = guess_scale(stars, "stars")[0]
        assumptions.append(f"the stars go from 1 to {settings['scale'][1]:g}")
    if "number" in kinds:
        numbers = [float(result["value"]["number"]) for result in results if result.get("type") == "number"]
        settings["scale"], extent = guess_scale(numbers)
        assumptions.append(extent)
    if "pairwise" in kinds:
        pair = [field.path for field in texts if name_score(field.name, "prompt") < 0.9 or name_score(field.name, "response") > 0.5]
        settings["pair"] = tuple(pair[-2:])
    choices = [choice for result in results for choice in result.get("value", {}).get("choices", [])]
    if choices:
        meanings = {choice: thumbs_meaning(choice, "") for choice in dict.fromkeys(choices)}
        settings |= {meaning: tuple(c for c, of in meanings.items() if of == meaning) for meaning in ("up", "down")}
    labels = [label for result in results for label in result.get("value", {}).get("labels", [])]
    if labels:
        settings["spans"] = {label: SEVERITIES.get(label.lower(), -1.0) for label in dict.fromkeys(labels)}
        assumptions.append("each label is worth " + ", ".join(f"{label} {value:g}" for label, value in settings["spans"].items()))
    areas = {str(result.get("from_name")) for result in results if result.get("type") == "textarea"}
    if areas:
        settings["controls"] = {name: "edit" if name_score(name, "edited") > 0.3 else "comment" for name in sorted(areas)}
    yield Candidate("label_studio", settings, 0.97, ("this is an export of Label Studio",), frozenset(["annotations"]), tuple(assumptions))


def _data_fields(texts: list[Field]) -> dict[str, Any]:
    """Settings for the prompt and the response among the fields that were shown."""
    response = best_named(texts, "response")
    prompt = best_named(texts, "prompt", {response.path} if response else ())
    settings: dict[str, Any] = {"prompt": prompt.path if prompt else None}
    return settings | ({"response": response.path} if response else {})


def _argilla(table: Table) -> Iterator[Candidate]:
    rows = [row.data for row in table.sample.rows]
    answers: dict[str, list[Any]] = {}
    for row in rows:
        responses = row["responses"] if isinstance(row.get("responses"), dict) else {}
        for question, values in responses.items():
            answers.setdefault(question, []).extend(
                value.get("value") for value in values or [] if isinstance(value, dict) and value.get("value") is not None
            )
    if not answers:
        return
    fields = fields_of([row["fields"] for row in rows])
    texts = [field for field in fields.values() if field.kind in ("text", "chat")]
    settings, kinds = _data_fields(texts), {question: _question_kind(question, values) for question, values in answers.items() if values}
    assumptions = []
    numbers = [float(value) for question, kind in kinds.items() if kind in ("rating", "aspect") for value in answers[question]]
    if numbers:
        settings["scale"], extent = guess_scale(numbers, "stars" if max(numbers) <= 5 else "")
        assumptions.append(extent)
    labels = [value for question, kind in kinds.items() if kind == "thumbs" for value in answers[question]]
    if labels:
        meanings = {label: thumbs_meaning(label, "") for label in dict.fromkeys(labels)}
        settings |= {meaning: tuple(label for label, of in meanings.items() if of == meaning) for meaning in ("up", "down")}
    marks = [mark for question, kind in kinds.items() if kind == "spans" for value in answers[question] for mark in value]
    if marks:
        settings["spans"] = {mark["label"]: SEVERITIES.get(mark["label"].lower(), -1.0) for mark in marks}
    yield Candidate(
        "argilla", settings | {"questions": kinds}, 0.96, ("this is an export of Argilla",), frozenset(["responses"]), tuple(assumptions)
    )


def _question_kind(question: str, values: list[Any]) -> str:
    """The kind of an Argilla question by its answers."""
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return "rating" if name_score(question, "rating") > 0.3 or len(values) < 1 else "aspect"
    if all(isinstance(value, list) for value in values):
        marks = [item for value in values for item in value]
        return "spans" if marks and all(isinstance(mark, dict) and "start" in mark for mark in marks) else "ranking"
    if all(thumbs_meaning(value, "") in ("up", "down") for value in values if isinstance(value, str)):
        return "thumbs"
    if name_score(question, "edited") > 0.3:
        return "edit"
    return "comment" if sum(len(str(value).split()) for value in values) / len(values) >= 2 else "ignore"
