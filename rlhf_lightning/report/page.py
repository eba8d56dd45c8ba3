"""The report as one HTML file that needs nothing else: no script, no outside resource, every text escaped."""

from __future__ import annotations

import base64
import dataclasses
import difflib
import hashlib
import re
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup, escape

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.display import visible
from rlhf_lightning.report import formatting, plots
from rlhf_lightning.report.report import Curve, Level, Metric, Report, RoundResult, Sample, Series, Value
from rlhf_lightning.statistics.intervals import Interval

LONG = 1200
"""Characters from which a sample's text scrolls within its box."""
WORDS = 1500
"""Words beyond which the changed ones aren't sought: the search takes their square."""


def write_page(report: Report, path: Path) -> Path:
    """Write the page, and the report itself as JSON beside it under the same name. Returns the page's absolute path.

    Each file is written whole or not at all.

    Raises:
        OSError: the folder can't be written.
    """
    write_atomic(path.with_suffix(".json"), report.to_json(), private=True)
    write_atomic(path, page(report), private=True)
    return path.absolute()


def page(report: Report) -> str:
    """The page's HTML. The same report gives the same bytes."""
    return rendered(
        "page.html.j2",
        report=report,
        command=shlex.join(report.command),
        round_curves=[shown(curve) for curve in curves_of_rounds(report.rounds)],
        curves=[shown(curve) for curve in report.curves],
        samples=[_Compared(sample, *marked(sample.before, sample.after)) for sample in report.samples],
        long=LONG,
        total=sum(time.seconds for time in report.seconds),
        level=formatting.level(report),
        as_share=Metric(label="", unit="%"),
        as_number=Metric(label=""),
        as_nats=Metric(label="", digits=2),
        titles=_titles(report),
        parts=parts_of(report),
        has=_has(report),
    )


def rendered(template: str, *styles: str, **parts: object) -> str:
    """The HTML of a template of this folder: every text escaped, every character visible, and no resource but its own style.

    Args:
        styles: style sheets of this folder, after page.css.
        parts: what the template shows.
    """
    folder = resources.files("rlhf_lightning.report")

    def read(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    style = "".join(map(read, ("page.css", *styles)))
    # The browser hashes what stands between the tags; the policy then lets this style in and nothing else at all.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(style=Markup(style), style_hash=digest, plots=plots, wording=formatting)
    return visible(environment.get_template(template).render(**parts))


def curves_of_rounds(rounds: list[RoundResult]) -> list[Curve]:
    """Utility, reward-model accuracy and KL by round, each where at least two rounds measured it.

    Not the score: each round's reward model has its own scale.
    """
    accuracy = _by_round("Reward-model accuracy on held-out feedback", "%", rounds, lambda r: r.accuracy)
    ceilings = {r.ceiling for r in rounds if r.ceiling is not None}
    if len(ceilings) == 1:
        accuracy = [dataclasses.replace(curve, levels=[Level("ceiling", *ceilings)]) for curve in accuracy]
    elif ceilings and accuracy:
        known = [r for r in rounds if r.ceiling is not None]
        line = Series("ceiling", [r.number for r in known], [r.ceiling for r in known if r.ceiling is not None])
        accuracy = [dataclasses.replace(curve, series=[*curve.series, line]) for curve in accuracy]
    return [
        *_by_round("Utility on held-out prompts", "", rounds, lambda r: r.utility),
        *accuracy,
        *_by_round("KL from the reference", "nats per response", rounds, lambda r: r.kl),
    ]


def marked(before: str, after: str) -> tuple[Markup, Markup, bool]:
    """Both texts with the words that went in <del> and those that came in <ins>, and whether they were compared.

    Texts with little in common, or very long ones, are left as they are: marking everything says nothing.
    """
    old, new = _words(before), _words(after)
    plain = escape(before), escape(after)
    if max(len(old), len(new)) > WORDS:
        return *plain, False
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new], autojunk=False)
    if matcher.ratio() < 0.25:
        return *plain, False
    went, came = Markup(""), Markup("")
    for kind, i, j, k, m in matcher.get_opcodes():
        went += _wrapped("del" if kind != "equal" else "", old[i:j])
        came += _wrapped("ins" if kind != "equal" else "", new[k:m])
    return went, came, True


@dataclass(frozen=True)
class _Compared:
    sample: Sample
    before: Markup
    after: Markup
    is_compared: bool


@dataclass(frozen=True)
class Shown:
    """A plot with its drawing and what must be said below it."""

    curve: Curve
    drawing: Markup
    note: str


def shown(curve: Curve) -> Shown:
    """The curve drawn, ready for the template's `charts`."""
    notes = [curve.note] if curve.note else []
    size = plots.thinning(curve)
    if size > 1:
        notes.append(f"Each point is the mean of {size} neighbours, the band their lowest and highest.")
    wild = sum(not abs(y) < 1e30 for series in curve.series for y in series.ys)
    if wild:
        notes.append(f"{wild} of {sum(len(series.ys) for series in curve.series)} values are not finite: gaps.")
    return Shown(curve, plots.line_chart(curve), " ".join(notes))


def _by_round(name: str, unit: str, rounds: list[RoundResult], chosen: Callable[[RoundResult], Value | None]) -> list[Curve]:
    found = [(float(r.number), value) for r in rounds if (value := chosen(r)) is not None]
    if len(found) < 2:
        return []
    intervals = [value for _, value in found if isinstance(value, Interval)]
    bounded = len(intervals) == len(found)
    series = Series(
        "after the round",
        [x for x, _ in found],
        [value.mean if isinstance(value, Interval) else value for _, value in found],
        [value.low for value in intervals] if bounded else [],
        [value.high for value in intervals] if bounded else [],
    )
    note = f"Bars: {100 * intervals[0].level:g} % intervals." if bounded else ""
    return [Curve(name, "round", unit, [series], note=note)]


def _titles(report: Report) -> dict[str, str]:
    """Anchor -> title of each part that the page shows, in its order."""
    compares = any(metric.before is not None for metric in report.metrics)
    parts = [
        ("metrics", "Before and after" if compares else "Metrics", report.metrics),
        ("notes", "Worth knowing", report.notes),
        ("rounds", "Round by round", report.rounds),
        ("curves", "How training went" if compares else "Plots", report.curves),
        ("samples", "Texts before and after", report.samples),
        ("feedback", "Feedback", report.feedback),
        *((anchor, part, report.tables) for anchor, part in parts_of(report).items()),
        ("time", "Time", report.seconds),
        ("how", "How it was run", report.command or report.config_yaml or report.versions),
    ]
    return {name: title for name, title, held in parts if held}


def parts_of(report: Report) -> dict[str, str]:
    """Anchor -> heading of the parts that tables stand under, in their order."""
    return {f"tables-{i}": part for i, part in enumerate(dict.fromkeys(table.part for table in report.tables))}


def _has(report: Report) -> dict[str, bool]:
    """Which columns of the tables hold anything."""
    rounds = report.rounds
    return {
        "feedback": any(r.collected or r.kept for r in rounds),
        "accuracy": any(r.accuracy is not None for r in rounds),
        "score": any(r.score is not None for r in rounds),
        "utility": any(r.utility is not None for r in rounds),
        "kl": any(r.kl is not None for r in rounds),
        "change": any(metric.moved is not None for metric in report.metrics),
        "before": any(metric.before is not None for metric in report.metrics),
        "feedback_notes": any(count.note for count in report.feedback),
    }


def _words(text: str) -> list[str]:
    """Words with the space that follows; signs of scripts without spaces are words of their own."""
    return re.findall(r"(?:[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+)\s*|\s+", text)


def _wrapped(tag: str, words: Iterable[str]) -> Markup:
    text = "".join(words)
    said = text.rstrip()
    return Markup("<{0}>{1}</{0}>{2}").format(tag, said, text[len(said) :]) if tag and said else escape(text)
