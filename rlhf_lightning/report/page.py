"""The report as one self-contained HTML file without scripts, with every text escaped."""

from __future__ import annotations

import base64
import dataclasses
import difflib
import functools
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
from rlhf_lightning.report.dots import dot_chart
from rlhf_lightning.report.report import Curve, Level, Metric, Report, RoundResult, Sample, Series, Value
from rlhf_lightning.statistics.intervals import Interval

LONG = 1200
"""Minimum characters of a sample's text that scrolls within its box."""
WORDS = 1500
"""Maximum words of texts that are compared, in quadratic time."""


def write_page(report: Report, path: Path) -> Path:
    """Write the page and the report's JSON of the same name, each atomically; return the page's path.

    Raises:
        OSError: the folder can't be written.
    """
    write_atomic(path.with_suffix(".json"), report.to_json(), private=True)
    write_atomic(path, page(report), private=True)
    return path.absolute()


def page(report: Report) -> str:
    """Render the page's HTML, deterministically."""
    return render_template(
        "page.html.j2",
        report=report,
        command=shlex.join(report.command),
        round_curves=[draw_chart(curve) for curve in curves_of_rounds(report.rounds)],
        curves=[draw_chart(curve) for curve in report.curves],
        samples=[_Compared(sample, *mark_changes(sample.before, sample.after)) for sample in report.samples],
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


def render_template(template: str, *styles: str, **parts: object) -> str:
    """Render a template of this folder with inline styles, all texts escaped, all characters visible.

    Args:
        styles: style sheets of this folder, after page.css.
        parts: the template's variables.
    """
    return visible(_environment(*styles).get_template(template).render(**parts))


@functools.cache
def _environment(*styles: str) -> jinja2.Environment:
    """The templates of this folder, compiled once for all pages of a process."""
    folder = resources.files("rlhf_lightning.report")

    def read(name: str) -> str:
        return folder.joinpath(name).read_text(encoding="utf-8")

    style = "".join(map(read, ("page.css", *styles)))
    # The content security policy allows this style by its hash, and nothing else.
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(read), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(style=Markup(style), style_hash=digest, plots=plots, formatting=formatting)
    return environment


def curves_of_rounds(rounds: list[RoundResult]) -> list[Curve]:
    """Utility, reward-model accuracy and KL by round, if at least two rounds measured them.

    Scores are omitted: each round's reward model has another scale.
    """
    accuracy = _by_round("Reward-model accuracy on held-out feedback", "%", rounds, lambda r: r.accuracy)
    ceilings = {r.ceiling for r in rounds if r.ceiling is not None}
    if len(ceilings) == 1:
        accuracy = [dataclasses.replace(curve, levels=[Level("ceiling", *ceilings)]) for curve in accuracy]
    elif ceilings and accuracy:
        points = [(r.number, r.ceiling) for r in rounds if r.ceiling is not None]
        line = Series("ceiling", [number for number, _ in points], [ceiling for _, ceiling in points])
        accuracy = [dataclasses.replace(curve, series=[*curve.series, line]) for curve in accuracy]
    return [
        *_by_round("Utility on held-out prompts", "", rounds, lambda r: r.utility),
        *accuracy,
        *_by_round("KL from the reference", "nats per response", rounds, lambda r: r.kl),
    ]


def mark_changes(before: str, after: str) -> tuple[Markup, Markup, bool]:
    """Mark the words that differ with <del> and <ins>; the flag says whether the texts were compared.

    Texts with little in common, and very long ones, aren't.
    """
    old, new = _words(before), _words(after)
    plain = escape(before), escape(after)
    if max(len(old), len(new)) > WORDS:
        return *plain, False
    matcher = difflib.SequenceMatcher(None, [word.strip() for word in old], [word.strip() for word in new], autojunk=False)
    if matcher.ratio() < 0.25:
        return *plain, False
    old_marked, new_marked = Markup(""), Markup("")
    for kind, i, j, k, m in matcher.get_opcodes():
        old_marked += _wrap("del" if kind != "equal" else "", old[i:j])
        new_marked += _wrap("ins" if kind != "equal" else "", new[k:m])
    return old_marked, new_marked, True


@dataclass(frozen=True)
class _Compared:
    sample: Sample
    before: Markup
    after: Markup
    is_compared: bool


@dataclass(frozen=True)
class Chart:
    """A plot with its drawing and the note below it."""

    curve: Curve
    drawing: Markup
    note: str


def draw_chart(curve: Curve) -> Chart:
    """Draw a curve for the template's `charts`."""
    notes = [curve.note] if curve.note else []
    size = plots.points_per_mark(curve)
    if size > 1:
        notes.append(f"Each point is the mean of {size} neighbours, the band their lowest and highest.")
    wild = sum(not abs(y) < 1e30 for series in curve.series for y in series.ys)
    if wild:
        notes.append(f"{wild} of {sum(len(series.ys) for series in curve.series)} values are not finite: gaps.")
    return Chart(curve, dot_chart(curve) if curve.names else plots.line_chart(curve), " ".join(notes))


def _by_round(name: str, unit: str, rounds: list[RoundResult], value_of: Callable[[RoundResult], Value | None]) -> list[Curve]:
    points = [(float(r.number), value) for r in rounds if (value := value_of(r)) is not None]
    if len(points) < 2:
        return []
    intervals = [value for _, value in points if isinstance(value, Interval)]
    bounded = len(intervals) == len(points)
    series = Series(
        "after the round",
        [x for x, _ in points],
        [value.mean if isinstance(value, Interval) else value for _, value in points],
        [value.low for value in intervals] if bounded else [],
        [value.high for value in intervals] if bounded else [],
    )
    note = f"Bars: {100 * intervals[0].level:g} % intervals." if bounded else ""
    return [Curve(name, "round", unit, [series], note=note)]


def _titles(report: Report) -> dict[str, str]:
    """Anchor -> title of the page's parts, in order."""
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
    return {name: title for name, title, content in parts if content}


def parts_of(report: Report) -> dict[str, str]:
    """Anchor -> heading of the tables' sections, in order."""
    return {f"tables-{i}": part for i, part in enumerate(dict.fromkeys(table.part for table in report.tables))}


def _has(report: Report) -> dict[str, bool]:
    """Flags of the tables' non-empty columns."""
    rounds = report.rounds
    return {
        "feedback": any(r.collected or r.remaining for r in rounds),
        "accuracy": any(r.accuracy is not None for r in rounds),
        "score": any(r.score is not None for r in rounds),
        "utility": any(r.utility is not None for r in rounds),
        "win_rate": any(r.win_rate is not None for r in rounds),
        "kl": any(r.kl is not None for r in rounds),
        "change": any(metric.difference is not None for metric in report.metrics),
        "before": any(metric.before is not None for metric in report.metrics),
        "feedback_notes": any(count.note for count in report.feedback),
    }


def _words(text: str) -> list[str]:
    """Split a text into words with the space that follows, and into characters in scripts without spaces."""
    return re.findall(r"(?:[\u3040-\u30ff\u3400-\u9fff]|[^\s\u3040-\u30ff\u3400-\u9fff]+)\s*|\s+", text)


def _wrap(tag: str, words: Iterable[str]) -> Markup:
    text = "".join(words)
    stripped = text.rstrip()
    return Markup("<{0}>{1}</{0}>{2}").format(tag, stripped, text[len(stripped) :]) if tag and stripped else escape(text)
