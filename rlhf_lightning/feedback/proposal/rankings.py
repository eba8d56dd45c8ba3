"""Proposals for rows that order several responses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_lightning.feedback.proposal.candidate import Candidate, Table, find_prompt, in_backticks, metadata_settings
from rlhf_lightning.feedback.proposal.families import Family, families_of
from rlhf_lightning.feedback.proposal.fields import Field, fields_of
from rlhf_lightning.feedback.proposal.names import best_named, is_machine_name, name_score

_ORDER = re.compile(r"\s*[\w .-]{1,30}(\s*[>=,;|]\s*[\w .-]{1,30})+\s*")
EITHER = "these numbers could be places (the first number is the first response's) or an order (the first number is the best response)"


def propose_ranking(table: Table) -> Iterator[Candidate]:
    """Responses as objects, as a list, or in columns, with ranks, scores or an order."""
    for field in table.of_kind("objects"):
        yield from _objects(table, field)
    for field in table.of_kind("list"):
        if all(isinstance(item, str) for item in field.items) and _mean_words(field.items) >= 1.5:
            yield from _lists(table, field)
    for family in families_of(table.texts):
        if min(field.words for field in family.fields) >= 1.5:
            yield from _columns(table, family)


def _frame(table: Table, used: set[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings and reasons for prompt and annotator."""
    prompt = find_prompt(table, used)
    metadata, reasons = metadata_settings(table, used, annotator="annotator")
    return {"prompt": prompt.path if prompt else None} | metadata, (
        f"the prompt is `{prompt.path}`" if prompt else "no field is a prompt",
        *reasons,
    )


def _objects(table: Table, field: Field) -> Iterator[Candidate]:
    inner = fields_of(field.items)
    texts = [field_inside for field_inside in inner.values() if field_inside.kind == "text" and field_inside.words >= 1]
    text = best_named(texts, "response") or max(texts, key=lambda item: item.words, default=None)
    if text is None or all(len(value) < 2 for value in field.values):
        return
    settings, reasons = _frame(table, {field.path})
    settings |= {"responses": field.path, "text_field": text.path}
    model = best_named([item for item in inner.values() if item.kind == "text" and item is not text and item.words <= 4], "model")
    if model is not None:
        settings["model_field"] = model.path
    yield from _choices(table, field, settings, reasons)
    numeric = [item for item in inner.values() if item.kind in ("number", "boolean") or _is_numbers(item) or _is_nested(item)]
    for item in numeric:
        path, name = _inner_path(item)
        is_rank = name_score(name, "rank") > 0.3
        if path is None or not (is_rank or name_score(name, "score") > 0.3) or is_machine_name(name):
            continue
        rater = next((other for other in _siblings(item) if name_score(other, "annotator") > 0.3), None)
        extra = {"rater_field": f"{item.path}.{rater}"} if rater is not None else {}
        score = 0.93 if is_rank else 0.85 * name_score(name, "score") + (0.05 if item.share > 0.9 else -0.3)
        yield Candidate(
            "ranking", settings | {("rank_field" if is_rank else "score_field"): path} | extra, min(0.97, score),
            (*reasons, f"`{field.path}` holds the responses (`{text.path}`), ordered by `{path}`"), frozenset([field.path]),
        )  # fmt: skip


def _choices(table: Table, field: Field, settings: dict[str, Any], reasons: Sequence[str]) -> Iterator[Candidate]:
    """The number from 0 of the best of a list, in a field beside it."""
    fewest = min(len(value) for value in field.values)
    for choice in table.of_kind("number"):
        if (
            name_score(choice.name, "winner") > 0.3
            and set(choice.distinct) <= set(range(fewest))
            and len(choice.values) == len(field.values)
        ):
            yield Candidate(
                "ranking", settings | {"ranks": choice.path, "ranks_are": "choice"}, 0.55 + 0.35 * name_score(choice.name, "winner"),
                (*reasons, f"`{choice.path}` is the number of the best of `{field.path}`"), frozenset([choice.path]),
                () if 0 in choice.distinct else ("the numbers count from 0",),
            )  # fmt: skip


def _is_nested(item: Field) -> bool:
    return item.kind == "objects"


def _inner_path(item: Field) -> tuple[str | None, str]:
    """The path of a number, through a list of reviews where it is in one."""
    if item.kind != "objects":
        return item.path, item.name
    ranks = [inner for inner in fields_of(item.items).values() if inner.kind == "number" and name_score(inner.name, "rank") > 0.3]
    best = max(ranks, key=lambda rank: ("overall" in rank.name, name_score(rank.name, "rank")), default=None)
    return (f"{item.path}.{best.path}", best.name) if best is not None else (None, "")


def _siblings(item: Field) -> list[str]:
    return list(fields_of(item.items)) if item.kind == "objects" else []


def _is_numbers(item: Field) -> bool:
    return item.kind == "list" and bool(item.items) and all(isinstance(number, int | float | None) for number in item.items)


def _lists(table: Table, field: Field) -> Iterator[Candidate]:
    settings, reasons = _frame(table, {field.path})
    yield from _choices(table, field, settings | {"responses": field.path}, reasons)
    for ranks in table.fields.values():
        if ranks is field or ranks.kind not in ("list", "text"):
            continue
        named_rank, named_score = name_score(ranks.name, "rank"), name_score(ranks.name, "score")
        if max(named_rank, named_score) <= 0.3:
            continue
        of_texts = ranks.kind == "list" and all(isinstance(item, str) for item in ranks.items)
        numeric = _is_numbers(ranks)
        if not numeric and not of_texts and not _is_order(ranks):
            continue
        base = settings | {"responses": field.path, "ranks": ranks.path}
        judged, because = frozenset([ranks.path]), (*reasons, f"`{field.path}` holds the responses")
        if not numeric:
            yield Candidate("ranking", base | {"ranks_are": "order"}, 0.9, (*because, f"`{ranks.path}` names them, best first"), judged)
        elif named_score > named_rank or not _are_places(ranks):
            yield Candidate("ranking", base | {"ranks_are": "scores"}, 0.85, (*because, f"`{ranks.path}` holds their scores"), judged)
        else:
            yield from _places_or_order(ranks, base, judged, because)


def _places_or_order(ranks: Field, base: dict[str, Any], judged: frozenset[str], reasons: Sequence[str]) -> Iterator[Candidate]:
    """Numbers 1 to K: the places, or the responses' numbers in order; repeated numbers are places."""
    orders = all(len(set(value)) == len(value) for value in ranks.values if isinstance(value, list))
    by_name = "order" in ranks.name.lower() or "sorted" in ranks.name.lower()
    readings = [("places", 0.88, "the places of the responses"), ("order", 0.55, "the numbers of the responses, best first")]
    if by_name:
        readings = [(kind, 1.43 - score, words) for kind, score, words in reversed(readings)]
    for kind, score, words in readings:
        if kind == "places" or orders:
            yield Candidate(
                "ranking",
                base | {"ranks_are": kind},
                score,
                (*reasons, f"`{ranks.path}` holds {words}"),
                judged,
                (EITHER,) if orders else (),
            )


def _columns(table: Table, family: Family) -> Iterator[Candidate]:
    used = {*family.paths}
    for ranks in families_of(table.of_kind("number")):
        if ranks.tokens[: len(family.tokens)] != family.tokens or len(ranks.fields) != len(family.fields):
            continue
        named_rank, named_score = name_score(ranks.fields[0].name, "rank"), name_score(ranks.fields[0].name, "score")
        stem_rank = name_score(ranks.stem.replace("*", ""), "rank")
        is_rank = max(named_rank, stem_rank) > named_score
        if max(named_rank, stem_rank, named_score, name_score(ranks.stem.replace("*", ""), "score")) <= 0.3:
            continue
        settings, reasons = _frame(table, used | set(ranks.paths))
        yield Candidate(
            "ranking", settings | {"responses": family.paths, "ranks": ranks.paths, "ranks_are": "places" if is_rank else "scores"},
            0.92 if is_rank else 0.82,
            (
                *reasons,
                f"{in_backticks(family.paths)} are the responses, {in_backticks(ranks.paths)} their {'places' if is_rank else 'scores'}",
            ),
            frozenset(ranks.paths),
        )  # fmt: skip
    for field in table.fields.values():
        if field.path not in used and name_score(field.name, "rank") > 0.3 and (_is_order(field) or field.kind == "list"):
            settings, reasons = _frame(table, used | {field.path})
            base = settings | {"responses": family.paths, "ranks": field.path}
            because = (*reasons, f"{in_backticks(family.paths)} are the responses")
            if _is_numbers(field):
                yield from _places_or_order(field, base, frozenset([field.path]), because)
                continue
            yield Candidate(
                "ranking",
                base | {"ranks_are": "order"},
                0.9,
                (*because, f"`{field.path}` orders them, best first"),
                frozenset([field.path]),
            )


def _is_order(field: Field) -> bool:
    return field.kind == "text" and all(_ORDER.fullmatch(value) for value in field.values)


def _are_places(field: Field) -> bool:
    return all(isinstance(item, int | None) and (item is None or 0 <= item <= 20) for item in field.items)


def _mean_words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / max(1, len(texts))
