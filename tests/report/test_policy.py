"""From what was measured to the metrics of the report."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from rlhf_lightning.evaluation.measure import Measured
from rlhf_lightning.feedback.intake import Intake
from rlhf_lightning.report.policy import (
    curve,
    feedback_counts,
    mean_of_last,
    policy_metrics,
    ppo_curves,
    prompt_means,
    result_metrics,
    side_by_side,
)
from rlhf_lightning.report.report import FeedbackCount
from rlhf_lightning.statistics.intervals import mean_interval, paired_interval

PROMPTS = ["p", "q", "r", "p", "q", "r", "p"]


def measured(shift: float, kl: float | None = None, **more: list[float]) -> Measured:
    values = {"utility": [shift + v for v in (1.0, 5.0, 2.0, 3.0, 6.0, 2.5, 8.0)], "length": [3.0, 4, 5, 6, 7, 8, 9], **more}
    return Measured(PROMPTS, [f"{prompt}{i} {shift:g}" for i, prompt in enumerate(PROMPTS)], values, kl)


MEANS = [4.0, 5.5, 2.25]


def test_responses_to_one_prompt_are_averaged_first():
    assert list(prompt_means(measured(0), "utility").values()) == pytest.approx(MEANS)


def test_a_metrics_metric_is_before_after_and_the_paired_change():
    before, after = measured(0), measured(1, kl=0.7, score=[0.5] * 7)
    after.values["utility"][0] += 3
    metrics = {metric.label: metric for metric in policy_metrics(before, after)}
    later = [MEANS[0] + 2, MEANS[1] + 1, MEANS[2] + 1]
    utility = metrics["Hidden utility"]
    assert (utility.before, utility.after) == (mean_interval(MEANS), mean_interval(later))
    assert utility.change == paired_interval(MEANS, later)
    assert utility.change.n == 3
    assert (utility.better, utility.headline, utility.unit) == ("higher", True, "")
    length = metrics["Response length"]
    assert (length.better, length.headline, length.unit) == (None, False, "tokens")
    assert (metrics["Score"].before, metrics["Score"].change) == (None, None)  # not measured before
    kl = metrics["KL from the start, per response"]
    assert (kl.before, kl.after, kl.unit, kl.better) == (0.0, 0.7, "nats", None)


def test_what_can_not_be_scored_is_left_out_of_means_and_pairs():
    nan = math.nan
    before, after = measured(0, score=[1.0, nan, 3.0, nan, nan, 5.0, 2.0]), measured(1, score=[2.0, 4.0, nan, nan, nan, nan, 4.0])
    assert prompt_means(before, "score") == {"p": 1.5, "r": 4.0}
    assert prompt_means(after, "score") == {"p": 3.0, "q": 4.0}
    score = next(metric for metric in policy_metrics(before, after) if metric.label == "Score")
    assert (score.before, score.after) == (mean_interval([1.5, 4.0]), mean_interval([3.0, 4.0]))
    assert score.change == paired_interval([1.5], [3.0])
    assert (before.mean("score"), after.mean("score")) == (2.75, pytest.approx(10 / 3))
    assert [sample.score_before for sample in side_by_side(before, after, 7)] == [1.0, None, 3.0, None, None, 5.0, 2.0]
    assert math.isnan(measured(0, score=[nan] * 7).mean("score"))
    none = policy_metrics(None, measured(0, score=[nan] * 7))
    assert next(metric for metric in none if metric.label == "Score").after is None


def test_without_a_before_there_is_no_change_and_without_a_reference_no_kl():
    metrics = policy_metrics(None, measured(0, jokes=[1.0] * 7))
    assert [metric.label for metric in metrics] == ["Hidden utility", "Response length", "jokes"]
    assert all(metric.before is None and metric.change is None for metric in metrics)


def test_feedback_is_counted_by_kind_before_and_after_cleaning():
    intake = Intake([], Counter(rating=5, edit=2), Counter(rating=4))
    assert feedback_counts(intake) == [FeedbackCount("edit", 2, 0), FeedbackCount("rating", 5, 4)]


def test_a_curve_counts_from_one_and_has_gaps_where_nothing_was_measured():
    found = curve("Loss", "step", "nats", {"a": [{"loss": 3.0}, {}, {"loss": 1.0}], "b": [{"loss": 2.0}]}, "loss")
    assert (found.name, found.x_label, [line.label for line in found.series]) == ("Loss", "step", ["a", "b"])
    assert [list(line.xs) for line in found.series] == [[1.0, 2.0, 3.0], [1.0]]
    assert found.series[0].ys[0] == 3.0
    assert math.isnan(found.series[0].ys[1])
    assert found.series[1].ys == [2.0]


def test_the_curves_of_ppo_read_what_ppo_logs():
    step = {"objective/scores": 1.0, "objective/kl": 2.0, "policy/entropy_avg": 3.0, "val/response_length": 4.0}
    curves = ppo_curves({"round 1": [step, step]})
    assert [found.series[0].ys for found in curves] == [[1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [4.0, 4.0]]


@pytest.mark.parametrize(("count", "rows"), [(1, [0]), (3, [0, 2, 4]), (7, list(range(7))), (12, list(range(7)))])
def test_samples_are_spread_over_what_was_measured(count, rows):
    before, after = measured(0, score=[0.25] * 7), measured(1)
    samples = side_by_side(before, after, count)
    assert [sample.prompt for sample in samples] == [PROMPTS[i] for i in rows]
    assert [(sample.before, sample.after) for sample in samples] == [(before.responses[i], after.responses[i]) for i in rows]
    values = [(before.values["utility"][i], after.values["utility"][i]) for i in rows]
    assert [(sample.utility_before, sample.utility_after) for sample in samples] == values
    assert {(sample.score_before, sample.score_after) for sample in samples} == {(0.25, None)}


def test_the_results_are_the_plain_means():
    before, after = measured(0), measured(1, kl=0.7)
    found = result_metrics(before, after)
    assert found["utility/before"] == pytest.approx(27.5 / 7)
    assert found["utility/after"] == pytest.approx(27.5 / 7 + 1)
    assert found.keys() == {"utility/before", "utility/after", "length/before", "length/after", "kl"}
    assert result_metrics(None, before).keys() == {"utility/after", "length/after"}


def test_the_mean_of_the_last_steps():
    history = [{"loss": float(i)} for i in range(100)]
    assert mean_of_last(history, "loss") == pytest.approx(sum(range(80, 100)) / 20)
    assert mean_of_last(history, "loss", steps=1) == 99
    assert mean_of_last(history[:3], "loss") == 1
    assert mean_of_last([*history[:3], {"loss": math.nan}, {"loss": math.inf}], "loss") == 1, "what was not applied"
    assert math.isnan(mean_of_last([{"loss": math.nan}], "loss"))


def test_what_shows_a_gamed_scorer_is_drawn_where_it_was_logged_as_a_line_through_what_was_measured():
    """A held-out score that is taken now and then has no gaps; a history without it has no line."""
    often = [{"val/eos_rate": 0.5}, {"val/eos_rate": 0.25}, {"val/eos_rate": 1.0}]
    seldom = [step | ({"objective/held_out_scores": float(i)} if i != 1 else {}) for i, step in enumerate(often)]
    curves = {found.name: found for found in ppo_curves({"round 1": often, "round 2": seldom})}
    (held_out,) = curves["Held-out score"].series
    assert (held_out.label, held_out.xs, held_out.ys) == ("round 2", [1.0, 3.0], [0.0, 2.0])
    ended = curves["Responses that end by themselves"]
    assert (ended.unit, [line.ys for line in ended.series]) == ("%", [[0.5, 0.25, 1.0]] * 2)
    assert not {"Hidden utility", "Distinct token pairs"} & curves.keys()
