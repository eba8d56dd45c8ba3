"""The target that ends stage=rounds, and its intervals over repeated looks.

A round is looked at once, so that a target of R rounds at most has R looks. Each look has an interval of level 1 - ALPHA / R, so that all
intervals of a run cover their true values together with probability 1 - ALPHA (C. E. Bonferroni, 1936; O. J. Dunn, 1961). Boundaries of
group-sequential trials (S. J. Pocock, 1977) would be narrower, but they test one hypothesis on growing data, and here each look measures
another policy.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.statistics.intervals import Interval

ALPHA = 0.05
WIN_RATE, UTILITY, SCORE = "win_rate", "utility", "score"
_TARGET = re.compile(r"\s*([A-Za-z_][\w/.-]*)\s*(>=|<=)\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Target:
    """A bound on a measured value, such as win_rate>=0.65.

    Attributes:
        name: win_rate, utility, score, or a metric.
        relation: the direction of the bound.
    """

    name: str
    relation: Literal[">=", "<="]
    value: float

    @property
    def text(self) -> str:
        return f"{self.name}{self.relation}{self.value:g}"

    @property
    def description(self) -> str:
        """The target in words, for the report."""
        if self.name == UTILITY:
            return f"utility up by {self.value:g} standard deviations of the start"
        return f"{self.name} {'at least' if self.relation == '>=' else 'at most'} {self.value:g}"

    def is_met(self, value: Interval) -> bool:
        """Compare the bound of an interval with the target.

        The utility is a known function and an experiment's ruler: its estimate decides.
        """
        if self.name == UTILITY:
            return value.mean >= self.value if self.relation == ">=" else value.mean <= self.value
        return value.low >= self.value if self.relation == ">=" else value.high <= self.value


def parse_target(text: str) -> Target:
    """Parse NAME>=NUMBER or NAME<=NUMBER.

    Raises:
        ConfigError: another form, or a value that no win rate and no rise of the utility can have.
    """
    match = _TARGET.fullmatch(text)
    if match is None:
        raise ConfigError(f"stage.target={text}: expected NAME>=NUMBER or NAME<=NUMBER, such as win_rate>=0.65")
    relation: Literal[">=", "<="] = ">=" if match[2] == ">=" else "<="
    target = Target(match[1], relation, float(match[3]))
    if target.name == WIN_RATE and not 0 < target.value < 1:
        raise ConfigError(f"stage.target={text}: a win rate lies between 0 and 1; 0.5 is a policy as good as the initial one")
    if target.name == UTILITY and (target.value <= 0 or target.relation == "<="):
        raise ConfigError(f"stage.target={text}: the rise of the utility must be greater than 0, as in utility>=1.5")
    return target


def check_name(target: Target, names: Collection[str], missing: dict[str, str]) -> None:
    """Check that a target's value will be measured.

    Args:
        names: of the measured values.
        missing: what to add for a value that isn't measured, by its name.

    Raises:
        ConfigError: with the remedy, or with the names that there are.
    """
    if target.name in names:
        return
    if target.name in missing:
        raise ConfigError(f"stage.target={target.text}: {target.name} is not measured: {missing[target.name]}")
    listed = ", ".join(names)
    raise ConfigError(f"stage.target={target.text}: no value {target.name!r}{did_you_mean(target.name, names)}; there are: {listed}")


def look_level(rounds: int) -> float:
    """The level of each look's interval, for at most `rounds` looks."""
    return 1 - ALPHA / rounds
