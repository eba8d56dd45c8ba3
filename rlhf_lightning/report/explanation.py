"""Explanations of scores as tables, as JSON, and as a page of coloured texts."""

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
from rlhf_lightning.report.page import draw_chart, render_template
from rlhf_lightning.report.report import Cells, Curve, Metric, Series, Table
from rlhf_lightning.reward.explain.cases import Case
from rlhf_lightning.reward.explain.explanation import Explanation, PairExplanation, WordShare
from rlhf_lightning.reward.explain.score_regression import ScoreRegression

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
        """True if the model prefers the response that people preferred; None without a comparison."""
        return self.result.difference > 0 if isinstance(self.result, PairExplanation) else None


def explanation_json(model: str, cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> dict[str, Any]:
    """The page's content, with all numbers."""
    return {
        "format": 1,
        "model": model,
        "regression": None if regression is None else regression.to_json(),
        "cases": [{"origin": item.case.origin, "kind": item.case.kind, "agrees": item.agrees} | _plain(item.result) for item in cases],
    }


def explanation_metrics(cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> list[Metric]:
    """Number of texts, agreement of the two methods, and the scores' dependence on length."""
    sides = [side for item in cases for side in item.sides]
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
    """Tables of the variance explained by each family of features, and of coefficients, largest first."""
    families: list[Cells] = [[family.name, family.features, family.alone, family.added, family.unique] for family in regression.families]
    by_size = sorted(regression.effects, key=lambda effect: -abs(effect.coefficient))
    effects: list[Cells] = [[effect.name, effect.coefficient, effect.correlation, effect.partial] for effect in by_size[:FEATURES_SHOWN]]
    left_out = "" if regression.r2_held_out is None else f", and {regression.r2_held_out:.2f} on texts that it hasn't seen"
    note = (
        f"Linear regression of the scores of {regression.texts:,} texts: R² {regression.r2:.2f} with all features{left_out}. Alone: R² of "
        "the family; added: over the families above it; only it: what is lost without it."
    )
    effects_note = (
        "Coefficient: deviations of the score for one deviation of the feature, the others fixed. Given the others: partial correlation, "
        "given the features of all other families."
    )
    heads = [["features", "number", "alone", "added", "only it"], ["feature", "coefficient", "correlation", "given the others"]]
    return [
        Table(title="Share of the scores' variance (R²)", heads=heads[0], rows=families, part=PART, note=note),
        Table(title="Features", heads=heads[1], rows=effects, part=PART, note=effects_note),
    ]


def words_table(cases: Sequence[ExplainedCase]) -> Table:
    """Each text's score, with the words that raise and lower it most."""
    rows: list[Cells] = []
    for number, item in enumerate(cases, start=1):
        for index, side in enumerate(item.sides):
            name = f"{number} {'preferred' if index == 0 else 'other'}" if len(item.sides) == 2 else str(number)
            words = [", ".join(f"{_shorten(word)} {value}" for word, value in strongest_words(side, sign, 2)) for sign in (1, -1)]
            rows.append([f"{name}: {_shorten(' '.join(side.response.split()))}", side.score, *words, side.agreement])
    note = "Words with their effects on the score. Occlusion: rank correlation with the score's loss without a word; low: doubt both."
    heads = ["text", "score", "raise it", "lower it", "occlusion"]
    return Table(title="What carried the scores", heads=heads, rows=rows, part="Words", note=note)


def strongest_words(side: Explanation, sign: int, most: int = WORDS_SHOWN) -> list[tuple[str, str]]:
    """The response's distinct words that raise (1) or lower (-1) the score most, with their effects."""
    total: dict[str, float] = {}
    for word in (word for word in side.words if word.part == "response"):
        name = word.text.strip() or "↵"
        total[name] = total.get(name, 0.0) + word.contribution
    by_effect = sorted((entry for entry in total.items() if entry[1] * sign >= 0.005), key=lambda entry: -abs(entry[1]))
    return [(name, format_signed(value)) for name, value in by_effect[:most]]


def _shorten(text: str, most: int = 14) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def format_signed(value: float) -> str:
    text = formatting.decimal(value, 2)
    return f"+{text}" if value > 0 and text[0].isdigit() else text


def write_explanation(path: Path, title: str, model: str, cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> None:
    """Write the page atomically."""
    write_atomic(path, explanation_page(title, model, cases, regression), private=True)


def explanation_page(title: str, model: str, cases: Sequence[ExplainedCase], regression: ScoreRegression | None) -> str:
    """Render the self-contained page: texts coloured by their words' effects, pairs side by side."""
    return render_template(
        "explanation.html.j2",
        "explanation.css",
        title=title,
        model=model,
        cases=[_article(number, item) for number, item in enumerate(cases, start=1)],
        tables=regression_tables(regression) if regression else [],
        part=PART,
        levels=range(1, LEVELS + 1),
        by_words=any(side.gap is None for item in cases for side in item.sides),
    )


def _article(number: int, explained: ExplainedCase) -> dict[str, Any]:
    """The template's values of a case: its sides with coloured words, charts and tables."""
    names = ["Preferred by people", "The other"] if len(explained.sides) == 2 else ["Text"]
    # Both sides have one scale of colours.
    scale = max((abs(word.contribution) for side in explained.sides for word in side.words), default=0.0)
    sides = [
        {
            "name": name,
            "explanation": side,
            "prompt": color_words(side.prompt, [word for word in side.words if word.part == "prompt"], scale),
            "response": color_words(side.response, [word for word in side.words if word.part == "response"], scale),
            "raises": strongest_words(side, 1),
            "lowers": strongest_words(side, -1),
            "check": _check(side),
        }
        for name, side in zip(names, explained.sides, strict=True)
    ]
    verdict = ""
    if isinstance(explained.result, PairExplanation):
        by = f"by {format_signed(abs(explained.result.difference))[1:]}"
        verdict = f"The model agrees, {by}." if explained.agrees else f"The model prefers the other, {by}."
    lines = [
        Series(name.lower(), list(map(float, side.trajectory.words)), side.trajectory.scores)
        for name, side in zip(names, explained.sides, strict=True)
        if len(side.trajectory.words) > 1
    ]
    note = "The score as if the response ended there."
    charts = [draw_chart(Curve("Score along the response", "words of the response", "", lines, note=note))] if lines else []
    case = explained.case
    facts = {"number": number, "origin": case.origin, "kind": case.kind, "verdict": verdict, "agrees": explained.agrees}
    return facts | {"sides": sides, "charts": charts, "tables": _tables(explained.result)}


def color_words(text: str, words: Sequence[WordShare], scale: float) -> Markup:
    """Mark each word with its effect: class "up" or "down", level 1 to LEVELS relative to `scale`."""
    parts, end = list[Markup](), 0
    for word in words:
        parts.append(escape(text[end : word.start]))
        end = word.end
        level = math.ceil(LEVELS * abs(word.contribution) / scale - 0.1) if scale > 0 else 0
        visible_text = word.text if word.text.strip() else f"↵{word.text}"
        if level < 1:
            parts.append(escape(word.text))
            continue
        kind = f"{'up' if word.contribution > 0 else 'down'} l{min(level, LEVELS)}"
        parts.append(Markup('<span class="{}" title="{}">{}</span>').format(kind, f"{word.contribution:+.3f}", visible_text))
    return Markup("").join([*parts, escape(text[end:])])


def _check(side: Explanation) -> str:
    """Diagnostics of the attribution: completeness gap, agreement with occlusion, truncation."""
    remarks = []
    if side.gap is not None:
        remedy = "" if side.is_complete else " (too large: raise stage.max_steps)"
        remarks.append(f"gap {side.gap:.1g} after {side.steps} gradients{remedy}")
        remarks.append("occlusion can't be compared" if side.agreement is None else f"agrees with occlusion {side.agreement:.2f}")
    if side.is_truncated:
        remarks.append("too long: the model reads a part of it")
    return "; ".join(remarks)


def _tables(result: Explanation | PairExplanation) -> list[Table]:
    if isinstance(result, Explanation):
        if not result.reasons:
            return []
        rows: list[Cells] = [["(a text of average features)", None, result.bias]]
        rows += [[reason.name, reason.value, reason.contribution] for reason in result.reasons[:FEATURES_SHOWN]]
        return [Table(title="What the features add: together they are the score", heads=["feature", "value", "adds"], rows=rows)]
    if not result.features:
        return []
    rows = [[feature.name, feature.first, feature.second, feature.contribution] for feature in result.features[:8]]
    note = "Exact: over all features these are the difference of the scores."
    if not result.is_exact:
        unexplained = f"{format_signed(result.unexplained or 0.0)} of {format_signed(result.difference)}"
        note = f"By the regression over the data set; it leaves {unexplained} unexplained."
    heads = ["feature", "preferred", "other", "adds to the difference"]
    return [Table(title="Where the features differ", heads=heads, rows=rows, note=note)]


def _plain(result: Explanation | PairExplanation) -> dict[str, Any]:
    if isinstance(result, PairExplanation):
        fields = {name: getattr(result, name) for name in ("difference", "is_exact", "unexplained")}
        features = [dataclasses.asdict(feature) for feature in result.features]
        return {**fields, "features": features, "texts": [_plain_text(side) for side in (result.first, result.second)]}
    return {"texts": [_plain_text(result)]}


def _plain_text(side: Explanation) -> dict[str, Any]:
    return {**dataclasses.asdict(side), "reasons": [reason._asdict() for reason in side.reasons]}


def count_agreements(cases: Iterable[ExplainedCase]) -> tuple[int, int]:
    """Number of pairs in which the model agrees with people, and of all pairs."""
    agreements = [item.agrees for item in cases if item.agrees is not None]
    return sum(agreements), len(agreements)
