"""Proposals for rows with ratings of a response: one, one per rater, or one per aspect."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_lightning.feedback.proposal.candidate import Candidate, Exchange, Table, find_exchange, in_backticks, metadata_settings
from rlhf_lightning.feedback.proposal.families import families_of
from rlhf_lightning.feedback.proposal.fields import Field
from rlhf_lightning.feedback.proposal.names import LEVELS, ROLES, WORDS, is_machine_name, name_score, words_of
from rlhf_lightning.feedback.proposal.scale import guess_scale


def propose_ratings(table: Table) -> Iterator[Candidate]:
    """All readings of the rows' numbers as ratings."""
    numbers = [field for field in table.of_kind("number") if _may_be_rated(table, field)]
    exchange = find_exchange(table, {field.path for field in numbers})
    if exchange is None:
        return
    grouped = set[str]()
    for fields in aspect_groups(numbers, 1 if table.explode else 2):
        yield _attributes(table, exchange, fields)
        grouped |= {field.path for field in fields}
    yield from _valued_aspects(table, exchange)
    lists = [field for field in table.of_kind("list") if field.items and len(field.numbers) == len(field.items)]
    for fields in aspect_groups([field for field in lists if "." in field.path], 2):
        yield _attributes(table, exchange, fields)
        grouped |= {field.path for field in fields}
    raters = rater_columns([field for field in numbers if field.path not in grouped])
    if len(raters) > 1:
        yield _raters(table, exchange, raters)
    for field in numbers:
        if field not in raters:
            yield from _single(table, exchange, field, 0.7 if field.path in grouped else 1.0)
    for field in table.of_kind("text"):
        yield from _levels(table, field)
    for field in lists:
        yield from _lists(table, exchange, field, 0.7 if field.path in grouped else 1.0)


def _levels(table: Table, field: Field) -> Iterator[Candidate]:
    """Ratings in words, such as poor, fair and good, numbered in their order."""
    words = {str(value): str(value).strip().lower() for value in field.distinct}
    order = next((order for order in LEVELS if 3 <= len(words) <= len(order) and set(words.values()) <= set(order)), None)
    exchange = find_exchange(table, {field.path})
    if order is None or exchange is None or len(set(words.values())) < len(words):
        return
    numbers = {word: rank for rank, word in enumerate(sorted(words, key=lambda word: order.index(words[word])), start=1)}
    metadata, reasons = metadata_settings(table, [field.path], annotator="annotator", model="model")
    yield Candidate(
        "rating",
        exchange.settings | {"rating": field.path, "ratings": None, "words": numbers, "scale": (1, len(numbers))} | metadata,
        0.9 * exchange.score,
        (*exchange.reasons, f"`{field.path}` is the rating in words", *reasons),
        frozenset([field.path]),
        ("the words are numbered " + ", ".join(f"{word} {number}" for word, number in numbers.items()),),
    )


def aspect_groups(fields: Sequence[Field], at_least: int) -> Iterator[list[Field]]:
    """Fields that are aspects of one rating, of an object or columns called so."""
    by_parent: dict[str, list[Field]] = {}
    for field in fields:
        by_parent.setdefault(field.path.rpartition(".")[0], []).append(field)
    for parent, members in by_parent.items():
        aspects = [field for field in members if is_aspect(field)]
        group = members if parent and "." not in parent and aspects else aspects
        if len(group) >= at_least and aspects:
            yield group


def _valued_aspects(table: Table, exchange: Exchange) -> Iterator[Candidate]:
    """Aspects that are objects with the rating inside, as a number or as text."""
    groups: dict[tuple[str, str], list[Field]] = {}
    for field in table.of_kind("number", "text"):
        parent, _, aspect = field.path.rpartition(".")[0].rpartition(".")
        if parent and aspect and name_score(field.name, "rating") > 0.7:
            groups.setdefault((parent, field.name), []).append(field)
    for (parent, value), fields in groups.items():
        texts = [str(item) for field in fields for item in field.values]
        numbers = [float(text) for text in texts if text.lstrip("-").replace(".", "", 1).isdigit()]
        if len(fields) < 2 or not numbers or len(numbers) + sum(text == "N/A" for text in texts) < len(texts):
            continue
        scale, extent = guess_scale(numbers)
        metadata, reasons = metadata_settings(table, [], model="model")
        as_text = {"text_numbers": True} if any(field.kind == "text" for field in fields) else {}
        yield Candidate(
            "attributes",
            exchange.settings | {"ratings": parent, "value_field": value, "scale": scale} | as_text | metadata,
            0.97 * exchange.score,
            (*exchange.reasons, f"`{parent}` holds ratings of aspects, each in `{value}`", *reasons),
            frozenset(field.path for field in fields),
            (extent,) if "taken" in extent else (),
        )


def _may_be_rated(table: Table, field: Field) -> bool:
    """Rule out identifiers, times, running numbers and scores of a side-by-side pair."""
    names = ("time", "seconds", "weight", "strength", "annotator", "model")
    if is_machine_name(field.name) or any(name_score(field.name, role) >= 0.75 for role in names):
        return False
    if len(field.values) >= 8 and list(field.values) == sorted(set(field.values)) and all(value == int(value) for value in field.values):
        return False  # a running number
    paired = {path for family in families_of(table.texts) for path in _matching(table, family.tokens)}
    return field.path not in paired


def _matching(table: Table, tokens: Sequence[str]) -> list[str]:
    """Numbers that go with a family of texts, as score_a goes with answer_a."""
    return [path for family in families_of(table.of_kind("number")) if family.tokens == tuple(tokens) for path in family.paths]


def rater_columns(numbers: Sequence[Field]) -> list[Field]:
    """Columns of one person each: called rater 1, or by names that are no quantity."""
    people = [field for field in numbers if WORDS["people"] & set(words_of(field.name))]
    if len(people) > 1:
        return people
    quantities = [field for field in numbers if is_aspect(field) or is_bad_thing(field)]
    unnamed = [field for field in numbers if field not in quantities and not any(name_score(field.name, role) > 0.3 for role in ROLES)]
    in_object = [field for field in unnamed if name_score(field.path.rpartition(".")[0], "score") > 0.3]
    unnamed = in_object or [field for field in unnamed if "." not in field.path]
    if len(unnamed) < 2:
        return []
    spread = max(max(field.numbers) for field in unnamed) - min(min(field.numbers) for field in unnamed)
    return unnamed if spread <= 100 and all(len(field.distinct) <= 101 for field in unnamed) else []


def is_aspect(field: Field) -> bool:
    return bool(WORDS["aspects"] & {*words_of(field.name), "_".join(words_of(field.name))})


def is_bad_thing(field: Field) -> bool:
    """Detect the rating of something bad, such as toxicity, of which more is worse."""
    return not WORDS["bad"].isdisjoint(words_of(field.name))


def _direction(fields: Sequence[Field]) -> tuple[str, ...]:
    """A warning where more is worse."""
    bad = [field.path for field in fields if is_bad_thing(field)]
    return (f"of {in_backticks(bad)} more is worse, and a rating is read as better when it is higher: turn it around",) if bad else ()


def _raters(table: Table, exchange: Exchange, raters: Sequence[Field]) -> Candidate:
    scale, extent = guess_scale([number for field in raters for number in field.numbers])
    people = tuple(field.path for field in raters)
    model, reasons = metadata_settings(table, people, model="model")
    certain = bool(WORDS["people"] & set(words_of(raters[0].name)))
    return Candidate(
        "rating", exchange.settings | {"raters": people, "scale": scale} | model, (0.95 if certain else 0.88) * exchange.score,
        (*exchange.reasons, f"{in_backticks(people)} hold one person's ratings each", *reasons), frozenset(people),
        (extent,) if "taken" in extent else (),
    )  # fmt: skip


def _attributes(table: Table, exchange: Exchange, aspects: Sequence[Field]) -> Candidate:
    scales = {field.path: guess_scale(field.numbers, field.name) for field in aspects}
    ends = {scale for scale, _ in scales.values()}
    parents = {field.path.rpartition(".")[0] for field in aspects}
    settings: dict[str, Any] = dict(exchange.settings)
    if len(parents) == 1 and parents != {""} and all("." not in field.path[len(next(iter(parents))) + 1 :] for field in aspects):
        settings |= {"ratings": next(iter(parents))}
        if scales_differ := len(ends) > 1:
            settings["scales"] = {field.name: scales[field.path][0] for field in aspects}
    else:
        settings |= {"ratings": None, "aspects": tuple(field.path for field in aspects)}
        if scales_differ := len(ends) > 1:
            settings["scales"] = {path: scale for path, (scale, _) in scales.items()}
    if not scales_differ:
        settings["scale"] = next(iter(ends))
    metadata, reasons = metadata_settings(table, [field.path for field in aspects], annotator="annotator", model="model")
    notes = [f"`{path}`: {extent}" for path, (_, extent) in scales.items() if "taken" in extent]
    certainty = 0.7 if "mean" in words_of(next(iter(parents))) or _direction(aspects) else 0.97
    return Candidate(
        "attributes", settings | metadata, certainty * exchange.score,
        (*exchange.reasons, f"{in_backticks(field.path for field in aspects)} are ratings of aspects", *reasons),
        frozenset(field.path for field in aspects), (*_direction(aspects), *notes),
    )  # fmt: skip


def _single(table: Table, exchange: Exchange, field: Field, certainty: float) -> Iterator[Candidate]:
    named = max(name_score(field.name, "rating"), 0.7 * is_aspect(field))
    if named <= 0.3 and len(field.distinct) > 101:
        return
    scale, extent = guess_scale(field.numbers, field.name)
    if set(field.distinct) <= {0, 1, -1}:
        certainty *= 0.8  # rather a thumb
    if len(field.distinct) == 1 or is_bad_thing(field):
        certainty *= 0.75
    metadata, reasons = metadata_settings(table, [field.path], annotator="annotator", model="model")
    is_mark = scale[1] == 6 and not {"note", "schulnote"}.isdisjoint(words_of(field.name))
    marks = ("school marks in German run the other way: 1 is the best",) if is_mark else ()
    aspect = {"aspect": field.name} if is_aspect(field) and name_score(field.name, "rating") < 0.7 else {}
    yield Candidate(
        "rating", exchange.settings | {"rating": field.path, "ratings": None, "scale": scale} | aspect | metadata,
        certainty * (0.35 + 0.6 * named) * exchange.score, (*exchange.reasons, f"`{field.path}` is the rating", *reasons),
        frozenset([field.path]), (*_direction([field]), *marks, *((extent,) if "taken" in extent else ())),
    )  # fmt: skip


def _lists(table: Table, exchange: Exchange, field: Field, certainty: float) -> Iterator[Candidate]:
    named = max(name_score(field.name, "rating"), name_score(field.name, "score"))
    if named <= 0.3:
        return
    scale, extent = guess_scale(field.numbers, field.name)
    metadata, reasons = metadata_settings(table, [field.path], model="model")
    raters = next(
        (other for other in table.of_kind("list") if name_score(other.name, "annotator") > 0.3 or other.name in ("raters", "annotators")),
        None,
    )
    if raters is not None:
        metadata["annotator"] = raters.path
    yield Candidate(
        "rating", exchange.settings | {"rating": None, "ratings": field.path, "scale": scale} | metadata,
        certainty * (0.4 + 0.58 * named) * exchange.score,
        (*exchange.reasons, f"`{field.path}` holds a rating of each rater", *reasons), frozenset([field.path]),
        (extent,) if "taken" in extent else (),
    )  # fmt: skip
