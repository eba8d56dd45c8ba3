"""The report that ends a run: what it holds, and its file report.json. `page` and `terminal` show it."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pydantic

from rlhf_lightning.errors import DataError
from rlhf_lightning.statistics.intervals import Interval

Value = Interval | float


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number of the run, before and after it.

    Attributes:
        label: what it is, with what it was measured on.
        before, after: its value, with an interval where one is known; None where there is none.
        change: after - before, best as `paired_interval`; without it the plain difference is shown.
        unit: of the value; "%" shows a share of 1 as a percentage.
        digits: decimals shown; default 1 for "%", else 3.
        better: which direction is an improvement; None where neither is.
        ceiling: the most that can be reached, in the metric's own units.
        note: what a reader must know to judge it.
        headline: shown large on top of the page.
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
        """From the stored value to the shown one."""
        return 100.0 if self.unit == "%" else 1.0

    @property
    def decimals(self) -> int:
        """Decimals shown."""
        return self.digits if self.digits is not None else (1 if self.unit == "%" else 3)

    @property
    def moved(self) -> Value | None:
        """The change given, or the plain difference of after and before, or None."""
        if self.change is not None or self.before is None or self.after is None:
            return self.change
        before, after = (v.mean if isinstance(v, Interval) else v for v in (self.before, self.after))
        return after - before

    @property
    def verdict(self) -> str:
        """better, worse, or no clear change where the interval of the change holds zero; empty without such an interval."""
        if not isinstance(self.change, Interval) or self.better is None or math.isnan(self.change.low):
            return ""
        if self.change.low <= 0 <= self.change.high:
            return "no clear change"
        return "better" if (self.change.low > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What one round of feedback -> reward model -> policy reached. Round 0 is the policy before any feedback.

    Attributes:
        number: of the round.
        collected, kept: judgements of this round, before and after cleaning.
        accuracy: of the reward model on held-out feedback, a share of 1; ceiling: the most it can reach there.
        score: mean score on held-out prompts by this round's own reward model, so that rounds don't compare.
        utility: the hidden utility there, where one is known.
        kl: KL from the reference per response, nats.
    """

    number: int
    collected: int = 0
    kept: int = 0
    accuracy: Interval | None = None
    ceiling: float | None = None
    score: Value | None = None
    utility: Value | None = None
    kl: Value | None = None


@dataclass(frozen=True)
class Series:
    """A line of a plot; lows and highs, where given, are drawn as error bars. A y that is not finite leaves a gap."""

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
    """A value worth a line across a plot: horizontal where it is of y (a ceiling, a target), vertical where of x (a round begins)."""

    label: str
    at: float


@dataclass(frozen=True)
class Curve:
    """A plot: its name, what x counts ("update"), the unit of y ("%" shows shares of 1 as percentages) and its lines."""

    name: str
    x_label: str
    unit: str
    series: list[Series]
    levels: list[Level] = field(default_factory=list)
    marks: list[Level] = field(default_factory=list)
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Two responses to one held-out prompt, with the reward model's score and, where one is known, the hidden utility."""

    prompt: str
    before: str
    after: str
    score_before: float | None = None
    score_after: float | None = None
    utility_before: float | None = None
    utility_after: float | None = None


@dataclass(frozen=True)
class StageTime:
    """Wall-clock seconds that a stage took, over all rounds."""

    stage: str
    seconds: float


@dataclass(frozen=True)
class FeedbackCount:
    """How much feedback of one kind there was and how much of it survived cleaning."""

    kind: str
    collected: int
    kept: int
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under heads: numbers are shown right-aligned with `digits` decimals, texts as they are, None as "-".

    Attributes:
        title: what it lists; part: the heading of the page under which it stands, shared by tables that belong together.
        in_terminal: shown in the terminal, too; long lists are for the page.
    """

    title: str
    heads: list[str]
    rows: list[list[str | float | None]]
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
    """What the run was to reach, in words, and whether it did."""

    text: str
    met: bool


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the end of a run shows. Only title, command and seed must be given; a part left empty does not show.

    Attributes:
        title: of the page.
        command: the words of the command line that ran it.
        config_yaml: the composed configuration. The caller leaves secrets out of it and of the command: both are shown.
        finished: when, in the caller's words.
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
        """Strict JSON in ASCII. Numbers that are not finite are the strings "NaN", "Infinity" and "-Infinity"."""
        return json.dumps(_plain(dataclasses.asdict(self)), indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str = "report") -> Report:
        """The report that `to_json` wrote. Raises DataError naming origin and field where the text is not one."""
        try:
            return _adapter().validate_python(json.loads(text))
        except json.JSONDecodeError as error:
            raise DataError(f"{origin}:{error.lineno}: not JSON ({error.msg}); expected the report.json of a run") from None
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise DataError(f"{origin}: {place}: {first['msg']}; expected a report.json of format 1") from None


def _plain(value: Any) -> Any:
    """What strict JSON can hold: numpy's and torch's numbers as Python's, those that are not finite as words."""
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


def _adapter() -> pydantic.TypeAdapter[Report]:
    return pydantic.TypeAdapter(Report)
