"""Explanations as tables, as JSON, and as a page of coloured texts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from markupsafe import Markup, escape

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.report import formatting
from rlhf_lightning.report.page import Shown, rendered, shown
from rlhf_lightning.report.report import Curve, Metric, Series, Table
from rlhf_lightning.reward.explain.cases import Case
from rlhf_lightning.reward.explain.explanation import Explanation, WordShare
from rlhf_lightning.reward.explain.pairwise import PairExplanation
from rlhf_lightning.reward.explain.score_regression import ScoreRegression

Cells = list[str | float | None]
LEVELS = 5
"""Shades of each of the two colours."""
WORDS_SHOWN, FEATURES_SHOWN = 5, 15
PART = "Which features explain the scores"


@dataclass(frozen=True)
class ExplainedCase:
    """A case with its explanation, or the comparison of its two."""

    case: Case
    result: Explanation | PairExplanation

    @property
    def sides(self) -> list[Explanation]:
        return [self.result.first, self.result.second] if isinstance(self.result, PairExplanation) else [self.result]

    @property
    def agrees(self) -> bool | None:
        """Whether the model prefers what people preferred; None where there was nothing to prefer."""
        return self.result.difference > 0 if isinstance(self.result, PairExplanation) else None


def explanation_json(model: str, cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> dict[str, Any]:
    """All that the page shows, and the numbers behind it."""
    return {
        "format": 1,
        "model": model,
        "regression": None if regression is None else regression.to_json(),
        "cases": [{"origin": one.case.origin, "kind": one.case.kind, "agrees": one.agrees} | _plain(one.result) for one in cases],
    }


def explanation_metrics(cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> list[Metric]:
    """How many texts, whether the two methods agree, and what length has to do with the scores."""
    sides = [side for one in cases for side in one.sides]
    metrics = [Metric(label="Texts explained", after=float(len(sides)), digits=0, better=None)]
    gaps = [side.gap for side in sides if side.gap is not None]
    if gaps:
        note = "integrated gradients: the words' sum against the change of the score"
        metrics.append(Metric(label="Largest completeness gap", after=max(gaps), digits=5, better=None, note=note))
        agreement = [side.agreement for side in sides if side.agreement is not None]
        if agreement:
            note = "rank correlation over words, mean over texts; low: trust neither"
            metrics.append(Metric(label="Gradients agree with occlusion", after=mean(agreement), digits=2, better=None, note=note))
    if regression is not None:
        note = f"of the scores' variance, over {regression.texts:,} texts"
        length = next((family.alone for family in regression.families if family.name == "length"), None)
        metrics.append(Metric(label="Explained by length alone", after=length, unit="%", better=None, note=note))
        metrics.append(Metric(label="Explained by all features", after=regression.r2, unit="%", better=None, note=note))
        if regression.length_partial is not None:
            note = "partial correlation with the log of the characters, given the other features"
            metrics.append(Metric(label="Score and length", after=regression.length_partial, digits=2, better=None, note=note))
    return metrics


def regression_tables(regression: ScoreRegression) -> list[Table]:
    """What each family of features explains, and each feature's coefficient, largest first."""
    families: list[Cells] = [[one.name, one.features, one.alone, one.added, one.unique] for one in regression.families]
    by_size = sorted(regression.effects, key=lambda effect: -abs(effect.coefficient))
    effects: list[Cells] = [[one.name, one.coefficient, one.correlation, one.partial] for one in by_size[:FEATURES_SHOWN]]
    left_out = "" if regression.r2_held_out is None else f", and {regression.r2_held_out:.2f} on texts that it hasn't seen"
    note = (
        f"Linear regression of the scores of {regression.texts:,} texts: R² {regression.r2:.2f} with all features{left_out}. Alone: R² of "
        "the family; added: over the families above it; only it: what is lost without it."
    )
    about = (
        "Coefficient: deviations of the score for one deviation of the feature, the others held. Given the others: partial correlation, "
        "given the features of all other families."
    )
    heads = [["features", "number", "alone", "added", "only it"], ["feature", "coefficient", "correlation", "given the others"]]
    return [
        Table(title="Share of the scores' variance (R²)", heads=heads[0], rows=families, part=PART, note=note),
        Table(title="Features", heads=heads[1], rows=effects, part=PART, note=about),
    ]


def words_table(cases: Sequence[ExplainedCase]) -> Table:
    """For each text its score and the words that raise and lower it most."""
    rows: list[Cells] = []
    for number, one in enumerate(cases, start=1):
        for place, side in enumerate(one.sides):
            name = f"{number} {'preferred' if place == 0 else 'other'}" if len(one.sides) == 2 else str(number)
            told = [", ".join(f"{_short(word)} {value}" for word, value in strongest(side, sign, 2)) for sign in (1, -1)]
            rows.append([f"{name}: {_short(' '.join(side.response.split()))}", side.score, *told, side.agreement])
    note = "Words with what they add to the score. Occlusion: rank correlation with what the score loses without a word; low: doubt both."
    heads = ["text", "score", "raise it", "lower it", "occlusion"]
    return Table(title="What carried the scores", heads=heads, rows=rows, part="Words", note=note)


def strongest(side: Explanation, sign: int, most: int = WORDS_SHOWN) -> list[tuple[str, str]]:
    """The words of the response that raise (1) or lower (-1) the score most, and by how much; one that comes several times with its sum."""
    total: dict[str, float] = {}
    for word in (word for word in side.words if word.part == "response"):
        name = word.text.strip() or "↵"
        total[name] = total.get(name, 0.0) + word.contribution
    found = sorted((entry for entry in total.items() if entry[1] * sign >= 0.005), key=lambda entry: -abs(entry[1]))
    return [(name, signed(value)) for name, value in found[:most]]


def _short(text: str, most: int = 14) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def signed(value: float) -> str:
    text = formatting.decimal(value, 2)
    return f"+{text}" if value > 0 and text[0].isdigit() else text


def write_explanation(path: Path, title: str, model: str, cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> None:
    """Write the page, whole or not at all."""
    write_atomic(path, explanation_page(title, model, cases, regression), private=True)


def explanation_page(title: str, model: str, cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> str:
    """The page's HTML: every text coloured by what its words add, pairs side by side. No script, no outside resource."""
    return rendered(
        "explanation.html.j2",
        "explanation.css",
        title=title,
        model=model,
        cases=[_article(number, one) for number, one in enumerate(cases, start=1)],
        tables=regression_tables(regression) if regression else [],
        part=PART,
        levels=range(1, LEVELS + 1),
        by_words=any(side.gap is None for one in cases for side in one.sides),
    )


@dataclass(frozen=True)
class _Side:
    name: str
    explanation: Explanation
    prompt: Markup
    response: Markup
    raises: list[tuple[str, str]]
    lowers: list[tuple[str, str]]
    check: str


@dataclass(frozen=True)
class _Article:
    number: int
    origin: str
    kind: str
    verdict: str
    agrees: bool | None
    sides: list[_Side]
    charts: list[Shown]
    tables: list[Table]


def _article(number: int, one: ExplainedCase) -> _Article:
    names = ["Preferred by people", "The other"] if len(one.sides) == 2 else ["Text"]
    # One scale for both sides, so that the same colour says the same.
    scale = max((abs(word.contribution) for side in one.sides for word in side.words), default=0.0)
    sides = [
        _Side(
            name,
            side,
            coloured(side.prompt, [word for word in side.words if word.part == "prompt"], scale),
            coloured(side.response, [word for word in side.words if word.part == "response"], scale),
            strongest(side, 1),
            strongest(side, -1),
            _check(side),
        )
        for name, side in zip(names, one.sides, strict=True)
    ]
    verdict = ""
    if isinstance(one.result, PairExplanation):
        by = f"by {signed(abs(one.result.difference))[1:]}"
        verdict = f"The model agrees, {by}." if one.agrees else f"The model prefers the other, {by}."
    lines = [
        Series(name.lower(), list(map(float, side.trajectory.words)), side.trajectory.scores)
        for name, side in zip(names, one.sides, strict=True)
        if len(side.trajectory.words) > 1
    ]
    note = "The score as if the response ended there."
    curves = [Curve("Score along the response", "words of the response", "", lines, note=note)] if lines else []
    charts = [shown(curve) for curve in curves]
    return _Article(number, one.case.origin, one.case.kind, verdict, one.agrees, sides, charts, _tables(one.result))


def coloured(text: str, words: Sequence[WordShare], scale: float) -> Markup:
    """The text with each word in the shade of what it adds: class "up" or "down" with 1 to LEVELS, by its share of `scale`."""
    parts, at = list[Markup](), 0
    for word in words:
        parts.append(escape(text[at : word.start]))
        at = word.end
        level = math.ceil(LEVELS * abs(word.contribution) / scale - 0.1) if scale > 0 else 0
        said = word.text if word.text.strip() else f"↵{word.text}"
        if level < 1:
            parts.append(escape(word.text))
            continue
        kind = f"{'up' if word.contribution > 0 else 'down'} l{min(level, LEVELS)}"
        parts.append(Markup('<span class="{}" title="{}">{}</span>').format(kind, f"{word.contribution:+.3f}", said))
    return Markup("").join([*parts, escape(text[at:])])


def _check(side: Explanation) -> str:
    """What the reader must know to trust the colours."""
    told = []
    if side.gap is not None:
        told.append(f"gap {side.gap:.1g} after {side.steps} gradients{'' if side.is_complete else ' (too large: raise stage.max_steps)'}")
        told.append("occlusion can't be compared" if side.agreement is None else f"agrees with occlusion {side.agreement:.2f}")
    if side.is_truncated:
        told.append("too long: the model reads a part of it")
    return "; ".join(told)


def _tables(result: Explanation | PairExplanation) -> list[Table]:
    if isinstance(result, Explanation):
        if not result.reasons:
            return []
        rows: list[Cells] = [["(a text of average features)", None, result.bias]]
        rows += [[one.name, one.value, one.contribution] for one in result.reasons[:FEATURES_SHOWN]]
        return [Table(title="What the features add: together they are the score", heads=["feature", "value", "adds"], rows=rows)]
    if not result.features:
        return []
    rows = [[one.name, one.first, one.second, one.contribution] for one in result.features[:8]]
    note = "Exact: over all features these are the difference of the scores."
    if not result.is_exact:
        left = f"{signed(result.unexplained or 0.0)} of {signed(result.difference)}"
        note = f"By the regression over the data set; it leaves {left} unexplained."
    heads = ["feature", "preferred", "other", "adds to the difference"]
    return [Table(title="Where the features differ", heads=heads, rows=rows, note=note)]


def _plain(result: Explanation | PairExplanation) -> dict[str, Any]:
    if isinstance(result, PairExplanation):
        own = {name: getattr(result, name) for name in ("difference", "is_exact", "unexplained")}
        features = [dataclasses.asdict(one) for one in result.features]
        return {**own, "features": features, "texts": [_of_text(side) for side in (result.first, result.second)]}
    return {"texts": [_of_text(result)]}


def _of_text(side: Explanation) -> dict[str, Any]:
    return {**dataclasses.asdict(side), "reasons": [reason._asdict() for reason in side.reasons]}


def preferred(cases: Iterable[ExplainedCase]) -> tuple[int, int]:
    """In how many of the pairs the model prefers what people preferred, and how many there are."""
    told = [one.agrees for one in cases if one.agrees is not None]
    return sum(told), len(told)
