"""What a user is told, and what is not worth telling."""

from __future__ import annotations

import numpy as np

from rlhf_lightning.feedback.quality.quality import measure_quality
from rlhf_lightning.flow import Feedback, Ranking, Thumbs


def pair(i: int, first: bool, annotator: str = "ann", seconds: float = 60.0) -> Feedback:
    ranks = (0, 1) if first else (1, 0)
    return Feedback(
        prompt=f"q{i}",
        responses=("a longer text", "text"),
        judgement=Ranking(ranks=ranks),
        annotator=annotator,
        positions=(0, 1),
        seconds=seconds,
    )


def test_a_bias_for_the_first_and_the_longer_and_haste_are_reported() -> None:
    lines = measure_quality([pair(i, i % 10 < 8, seconds=0.01) for i in range(200)]).lines()
    assert any(line.startswith("the response shown first wins 80 % of comparisons") for line in lines)
    assert any(line.startswith("the longer response wins 80 %") for line in lines)
    assert any(line.startswith("100 % of the judgements were made faster") for line in lines)
    assert any("neither agreement nor reliability can be measured" in line for line in lines)


def test_what_may_be_chance_is_not_reported() -> None:
    lines = measure_quality([pair(i, i % 2 == 0) for i in range(100)]).lines()
    assert not any("wins" in line or "faster" in line or "wrong" in line for line in lines)


def test_agreement_contradictions_and_who_tosses_coins_are_reported() -> None:
    rng = np.random.default_rng(0)
    feedback = [pair(i, i % 2 == 0, name) for i in range(150) for name in ("ann", "bob", "cyd")]
    feedback += [pair(i, bool(rng.random() < 0.5), "dud") for i in range(150)]
    text = "\n".join(measure_quality(feedback).lines())
    assert "agreement on pairs: Krippendorff's alpha 0." in text
    assert "1 of 4 annotators with enough overlap are hardly better than chance: dud" in text
    assert "pairs that several annotators compared were judged both ways" in text
    assert "judgements are probably wrong" in text


def test_several_data_sets_are_distinguished() -> None:
    feedback = [Feedback(prompt="q", responses=("x",), judgement=Thumbs(up=True), source=name) for name in ("one", "two")]
    assert [line.split(":")[0] for line in measure_quality(feedback).lines()] == ["one", "two"]
