"""The position bias of a judge, measured on pairs that it saw in both orders."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.judge.questions import FIRST, SECOND, TIE
from rlhf_lightning.statistics.intervals import proportion_interval

LEVEL = 0.01
"""Of the test of the position bias."""
MIN_PAIRS = 10


@dataclass
class PositionBias:
    """Counts of pairs in both orders, by the letters of the two answers.

    Attributes:
        pairs: of which both orders were answered.
        consistent: of which both orders name the same response, or none.
        first, second: answers for the response that came first, and second.
        both_first, both_second: pairs with the same position in both orders.
    """

    pairs: int = 0
    consistent: int = 0
    first: int = 0
    second: int = 0
    both_first: int = 0
    both_second: int = 0

    def add(self, answer: str, swapped: str) -> None:
        """Count the answers to a pair and to the swapped pair."""
        self.pairs += 1
        self.consistent += (answer, swapped) in ((FIRST, SECOND), (SECOND, FIRST), (TIE, TIE))
        self.first += (answer == FIRST) + (swapped == FIRST)
        self.second += (answer == SECOND) + (swapped == SECOND)
        self.both_first += answer == swapped == FIRST
        self.both_second += answer == swapped == SECOND

    @property
    def first_share(self) -> float:
        """Share of the answers for one response that are for the first."""
        return self.first / max(1, self.first + self.second)

    @property
    def is_biased(self) -> bool:
        """True if positions win unequally often (binomial test).

        A judge that errs without regard to positions names either in both orders equally often.
        """
        from scipy.stats import binomtest  # half a second, which every command would pay

        same = self.both_first + self.both_second
        return bool(same) and bool(binomtest(self.both_first, same).pvalue < LEVEL)

    def check(self, judge: str, limit: float) -> None:
        """Reject a judge whose answers are about positions.

        Args:
            limit: how far from half the first response may win.

        Raises:
            ConfigError: naming the judge and its answer.
        """
        if self.is_biased and abs(self.first_share - 0.5) > limit:
            letter, word = (FIRST, "first") if self.first_share > 0.5 else (SECOND, "second")
            raise ConfigError(
                f"{judge} prefers whichever response comes {word}: it answers {letter} to {max(self.first, self.second)} of "
                f"{2 * self.pairs} questions, and to both orders of {max(self.both_first, self.both_second)} of {self.pairs} pairs. Such "
                "answers say nothing about the responses: choose another judge or rubric, or allow it with judge.max_position_bias=0.5"
            )

    def describe(self) -> str:
        """Describe the consistency and the share of the first position."""
        if not self.pairs:
            return ""
        share = proportion_interval(self.first, max(1, self.first + self.second))
        ties = 2 * self.pairs - self.first - self.second
        parts = [
            f"{self.pairs} pairs in both orders, {self.consistent / self.pairs:.0%} answered alike",
            f"the first response wins {share.mean:.0%} ({share.low:.0%} to {share.high:.0%}) of the decided answers, {ties} are ties",
        ]
        if self.is_biased:
            parts.append("a position bias: pairs whose orders disagree are ties")
        if ties == 2 * self.pairs and self.pairs >= MIN_PAIRS:
            parts.append("it calls everything a tie: choose another judge or rubric")
        return "; ".join(parts)
