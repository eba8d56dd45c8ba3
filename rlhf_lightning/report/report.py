"""The report of a run, and its file report.json; `page` and `terminal` render it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from rlhf_lightning.statistics.intervals import Interval

Value = Interval | float
Cells = list[str | float | None]
"""A row of a table."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of the run, before and after it.

    Attributes:
        label: its name, with the data that it was measured on.
        before, after: its values, with intervals if known; None if not measured.
        change: after - before, best as `paired_interval`; default the plain difference.
        unit: of the value; "%" shows a fraction as a percentage.
        digits: decimals; default 1 for "%", else 3.
        better: the direction of an improvement; None for neither.
        ceiling: the maximum possible value, in the metric's units.
        note: a remark needed to judge it.
        headline: shown large at the top of the page.
    """

    label: str
    before: Value | None = None
    after: Value | None = None
    change: Value | None = None
    unit: str = ""
    digits: int | None = None
    better: Literal["higher", "lower"] | None = "higher"
    ceiling: float | None = None
    note: str = ""
    headline: bool = True

    @property
    def factor(self) -> float:
        """Multiplier of the stored value for display."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def decimals(self) -> int:
        """Number of decimals for display."""
        return self.digits if self.digits is not None else (1 if self.unit == "%" else 3)

    @property
    def difference(self) -> Value | None:
        """`change`, or the plain difference of after and before, or None."""
        if self.change is not None or self.before is None or self.after is None:
            return self.change
        before, after = (v.mean if isinstance(v, Interval) else v for v in (self.before, self.after))
        return after - before

    @property
    def verdict(self) -> str:
        """better, worse, or no clear change if the interval contains zero; empty without an interval."""
        if not isinstance(self.change, Interval) or self.better is None or math.isnan(self.change.low):
            return ""
        if self.change.low <= 0 <= self.change.high:
            return "no clear change"
        return "better" if (self.change.low > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """Results of a round of feedback -> reward model -> policy; round 0 is the initial policy.

    Attributes:
        number: of the round.
        collected, remaining: judgements of this round, before and after cleaning.
        accuracy: of the reward model on held-out feedback, a fraction.
        ceiling: maximum accuracy there.
        score: mean score on held-out prompts by this round's reward model; not comparable between rounds.
        utility: the hidden utility there, if known.
        win_rate: of blind comparisons with the initial policy, with the interval of repeated looks.
        kl: KL from the reference per response, nats.
    """

    number: int
    collected: int = 0
    remaining: int = 0
    accuracy: Interval | None = None
    ceiling: float | None = None
    score: Value | None = None
    utility: Value | None = None
    win_rate: Value | None = None
    kl: Value | None = None


@dataclass(frozen=True)
class Series:
    """A line of a plot, with lows and highs as error bars; y values that are not finite leave gaps."""

    label: str
    xs: list[float]
    ys: list[float]
    lows: list[float] = field(default_factory=list)
    highs: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, values in (("ys", self.ys), ("lows", self.lows), ("highs", self.highs)):
            if len(values) != len(self.xs) and (values or name == "ys"):
                raise ValueError(f"series {self.label!r} has {len(self.xs)} xs and {len(values)} {name}")
        if len(self.lows) != len(self.highs):
            raise ValueError(f"series {self.label!r} has {len(self.lows)} lows and {len(self.highs)} highs")


@dataclass(frozen=True)
class Level:
    """A reference line across a plot: horizontal at a y (a ceiling), vertical at an x (a new round)."""

    label: str
    at: float


@dataclass(frozen=True)
class Curve:
    """A plot: name, x label ("update"), unit of y ("%" shows fractions as percentages) and lines.

    Attributes:
        bounds: lowest and highest possible y, where the axis ends; shares in % have 0 and 1.
        names: with names the plot has a row per name instead of lines, and an x is the number of a row, from 1.
    """

    name: str
    x_label: str
    unit: str
    series: list[Series]
    levels: list[Level] = field(default_factory=list)
    marks: list[Level] = field(default_factory=list)
    note: str = ""
    bounds: tuple[float, float] | None = None
    names: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Two responses to a held-out prompt, with the reward model's scores and the hidden utility if known."""

    prompt: str
    before: str
    after: str
    score_before: float | None = None
    score_after: float | None = None
    utility_before: float | None = None
    utility_after: float | None = None


@dataclass(frozen=True)
class StageTime:
    """Wall-clock seconds of a stage, over all rounds."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class FeedbackCount:
    """Number of judgements of one kind, before and after cleaning."""

    kind: str
    collected: int
    remaining: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under heads: numbers right-aligned with `digits` decimals, texts unchanged, None as "-".

    Attributes:
        title: caption of the table.
        part: heading of its section on the page, shared by related tables.
        in_terminal: print it in the terminal, too; long lists are for the page.
    """

    title: str
    heads: list[str]
    rows: list[Cells]
    part: str = "Details"
    note: str = ""
    digits: int = 2
    in_terminal: bool = True

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.heads):
                raise ValueError(f"table {self.title!r} has {len(self.heads)} heads and a row of {len(row)}")


@dataclass(frozen=True)
class Target:
    """The run's target in words, and whether it was met."""

    text: str
    met: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """The contents of a run's report; empty parts are omitted.

    Attributes:
        title: of the page.
        command: the arguments of the command line, without secrets.
        config_yaml: the composed configuration, without secrets.
        finished: the time, formatted.
        versions: package or machine part -> version.
    """

    title: str
    command: list[str]
    seed: int
    config_yaml: str = ""
    finished: str = ""
    target: Target | None = None
    metrics: list[Metric] = field(default_factory=list)
    rounds: list[RoundResult] = field(default_factory=list)
    curves: list[Curve] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    feedback: list[FeedbackCount] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    seconds: list[StageTime] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    format: Literal[1] = 1

    def to_json(self) -> str:
        """Strict JSON in ASCII; non-finite numbers are the strings "NaN", "Infinity" and "-Infinity"."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=1, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Convert values for strict JSON: numbers of numpy and torch to Python's, non-finite ones to text."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    number = float(value)
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
