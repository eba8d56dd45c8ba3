"""Proposals for rows that compare two responses: chosen and rejected, or side by side with a verdict."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from rlhf_lightning.feedback.proposal.candidate import Candidate, Table, find_prompt, in_backticks, metadata_settings
from rlhf_lightning.feedback.proposal.families import SETS, Family, families_of
from rlhf_lightning.feedback.proposal.fields import Field
from rlhf_lightning.feedback.proposal.labels import verdict_meaning
from rlhf_lightning.feedback.proposal.names import best_named, name_score, words_of

MEANINGS = ("first_wins", "second_wins", "tie", "both_bad")


def propose_pairwise(table: Table) -> Iterator[Candidate]:
    """Rows with a better and a worse text, named so."""
    rejected = best_named(table.texts, "rejected")
    chosen = best_named(table.texts, "chosen", {rejected.path}) if rejected is not None else None
    if rejected is None or chosen is None or chosen.kind != rejected.kind or min(chosen.words, rejected.words) < 1.2:
        return
    pair = frozenset([chosen.path, rejected.path])
    prompt = find_prompt(table, pair)
    settings: dict[str, Any] = {"chosen": chosen.path, "rejected": rejected.path}
    reasons = [f"`{chosen.path}` is better than `{rejected.path}`"]
    if prompt is not None:
        settings["prompt"] = prompt.path
        reasons.append(f"the prompt is `{prompt.path}`")
    models, model_reasons = _models(table, pair, ("chosen", "rejected"))
    annotator, annotator_reasons = metadata_settings(table, pair, annotator="annotator")
    score = min(name_score(chosen.name, "chosen"), name_score(rejected.name, "rejected"))
    candidate = Candidate(
        "pairwise", settings | models | annotator, 0.2 + 0.78 * score, (*reasons, *model_reasons, *annotator_reasons), pair
    )
    yield candidate
    if prompt is None:
        yield Candidate(
            "pairwise", {**candidate.settings, "prompt": None}, candidate.score - 0.1, (*candidate.reasons, "no field is a prompt"), pair
        )


def propose_verdict(table: Table) -> Iterator[Candidate]:
    """Rows with two responses side by side and a field that says which is better."""
    for family in [*families_of(table.texts), *named_by_verdict(table)]:
        if len(family.fields) != 2 or family.fields[0].kind != family.fields[1].kind or min(f.words for f in family.fields) < 1.5:
            continue
        for verdict in _verdict_fields(table, family):
            yield from _readings(table, family, verdict)


def named_by_verdict(table: Table) -> Iterator[Family]:
    """Two texts whose names, or what tells the names apart, are the values of a field: gpt and llama."""
    texts = [field for field in table.of_kind("text") if field.words >= 1.5]
    for verdict in table.of_kind("text"):
        values = {"_".join(words_of(str(value))) for value in verdict.distinct} if len(verdict.distinct) <= 5 else set()
        named = {value: [text for text in texts if value in ("_".join(words_of(text.name)), *words_of(text.name))] for value in values}
        pairs = [(value, fields[0]) for value, fields in named.items() if len(fields) == 1 and fields[0] is not verdict]
        if len(pairs) == 2 and pairs[0][1] is not pairs[1][1]:
            (a, first), (b, second) = sorted(pairs, key=lambda pair: texts.index(pair[1]))
            if not any(a in tokens for tokens in SETS):
                yield Family("", (a, b), (first, second))


def _verdict_fields(table: Table, family: Family) -> list[Field]:
    """Fields with few distinct values that may say which of the two is better, the likeliest first."""
    scalars = [field for field in table.fields.values() if field.kind in ("text", "number", "boolean") and field.path not in family.paths]
    few = [field for field in scalars if len(field.distinct) <= 9 and name_score(field.name, "winner") > 0.3]
    lists = [field for field in table.of_kind("list") if name_score(field.name, "votes") > 0.3]
    return sorted([*few, *lists], key=lambda field: -name_score(field.name, "winner"))[:3]


def _readings(table: Table, family: Family, verdict: Field) -> Iterator[Candidate]:
    """The ways to read a verdict; more than one where its numbers or booleans could mean either side."""
    values = list(dict.fromkeys(verdict.items)) if verdict.kind == "list" else verdict.distinct
    used = {*family.paths, verdict.path}
    prompt = find_prompt(table, used)
    settings: dict[str, Any] = {"first": family.paths[0], "second": family.paths[1]}
    if prompt is not None or family.fields[0].kind != "chat":  # chats share their prompt
        settings["prompt"] = prompt.path if prompt else None
    settings["votes" if verdict.kind == "list" else "verdict"] = verdict.path
    models, model_reasons = _models(table, used, family.tokens)
    metadata, metadata_reasons = metadata_settings(table, used, annotator="annotator")
    reasons = (
        f"`{verdict.path}` says which of {in_backticks(family.paths)} is better",
        f"the prompt is `{prompt.path}`" if prompt else "no field is a prompt" if "prompt" in settings else "the chats share their prompt",
        *model_reasons,
        *metadata_reasons,
    )
    named = name_score(verdict.name, "votes" if verdict.kind == "list" else "winner")
    for meanings, certainty, assumption in read_values(values, family.tokens, verdict.name):
        by_meaning = {meaning: tuple(value for value in values if meanings.get(value) == meaning) for meaning in MEANINGS}
        strength = {"strength": verdict.path} if _is_signed(values) and len(values) > 3 else {}
        yield Candidate(
            "verdict", settings | models | metadata | by_meaning | strength, (0.3 + 0.65 * named) * certainty, reasons,
            frozenset([verdict.path]), (assumption,) if assumption else (),
        )  # fmt: skip


def read_values(values: Sequence[Any], tokens: Sequence[str], name: str) -> list[tuple[dict[Any, str], float, str]]:
    """Readings of the verdicts, each with its certainty and what it assumes."""
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and _is_signed(values):
        first_if = [(-1, "a number below 0 means that the first is better"), (1, "a number above 0 means that the first is better")]
        return [
            ({value: _signed_meaning(value * sign) for value in values}, certainty, assumption)
            for (sign, assumption), certainty in zip(first_if, (0.6, 0.55), strict=True)
        ]
    if all(isinstance(value, bool) for value in values) or (set(values) <= {0, 1} and "0" not in tokens):
        words = words_of(name)
        names_first, names_second = tokens[0] in words, tokens[1] in words
        first = {value: "first_wins" if bool(value) != names_second else "second_wins" for value in values}
        if names_first or names_second:
            return [(first, 1.0, "")]
        second = {value: "second_wins" if bool(value) else "first_wins" for value in values}
        positive, negative = ("true", "false") if isinstance(values[0], bool) else ("1", "0")
        return [(first, 0.6, f"{positive} means that the first is better"), (second, 0.55, f"{negative} means that the first is better")]
    if len(numbers) == len(values) >= 4 and min(numbers) == 1 and max(numbers) <= 9:
        middle = (1 + max(numbers)) / 2
        return [({value: _signed_meaning(middle - value) for value in values}, 0.7, "1 means that the first is much better")]
    meanings = {value: verdict_meaning(value, tokens) for value in values}
    if None in meanings.values():
        return []
    by_number = numbers and not set(tokens) <= set("012345678")
    assumption = "1 is the first and 2 the second" if by_number else ""
    return [({value: str(meaning) for value, meaning in meanings.items()}, 0.9 if by_number else 1.0, assumption)]


def _is_signed(values: Sequence[Any]) -> bool:
    return any(isinstance(value, int | float) and value < 0 for value in values)


def _signed_meaning(value: float) -> str:
    return "first_wins" if value > 0 else "second_wins" if value < 0 else "tie"


def _models(table: Table, used: Iterator[str] | frozenset[str] | set[str], tokens: Sequence[str]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The fields with the authors of the two responses."""
    scalars = [field for field in table.of_kind("text") if field.path not in used and field.words <= 6]
    for a, b in itertools.permutations(scalars, 2):
        words_a, words_b = words_of(a.path), words_of(b.path)
        if tokens[0] in words_a and tokens[1] in words_b and {"model", "system", "engine"} & set(words_a) & set(words_b):
            return {"models": (a.path, b.path)}, (f"the models are {in_backticks([a.path, b.path])}",)
    pair = next(
        (field for field in table.of_kind("list") if field.name in ("models", "systems") and all(len(v) == 2 for v in field.values)), None
    )
    return ({"models": pair.path}, (f"the models are in `{pair.path}`",)) if pair is not None else ({}, ())
