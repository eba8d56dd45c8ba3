"""The jobs of a sweep's folder: in order, with what they gave, and seeds together."""

from __future__ import annotations

from statistics import stdev

import pytest
from scipy import stats

from rlhf_lightning.cli.sweep.jobs import Job, by_settings, read_jobs, varied_settings


def test_jobs_come_by_number_with_what_they_gave_or_why_they_failed(jobs, job):
    job(jobs / "10", ["a.b=3"], 1.0)
    found = read_jobs(jobs)
    assert [one.name for one in found] == ["0", "1", "2", "3", "4", "5", "10"]
    assert found[1] == Job("1", {"advantage": "gae", "seed": "2", "a.b": "[1,2]"}, 0.2, {"kl": 0.5, "long/name": 0.5}, 3.0)
    assert (found[3].objective, found[3].error) == (None, "RuntimeError: out of [memory]")
    assert (found[5].objective, found[5].error) == (None, "no result was written: the job was ended")
    assert found[4].overrides == "advantage=rloo seed=2 a.b=[1,2]"


def test_a_value_keeps_its_equals_signs(tmp_path, job):
    job(tmp_path / "0", ["++x={a: 1}", "path=/a=b/c"], 1.0)
    assert read_jobs(tmp_path)[0].settings == {"x": "{a: 1}", "path": "/a=b/c"}


def test_what_was_varied_is_distinguished_from_what_was_the_same(jobs):
    assert varied_settings(read_jobs(jobs)) == ["advantage", "seed"]
    assert varied_settings([Job("0", {"a": "1"}), Job("1", {})]) == ["a"]
    assert varied_settings([Job("0", {"a": "1"})]) == []


def test_jobs_of_different_seeds_are_one_choice_with_a_mean_and_student_s_interval(jobs):
    gae, rloo = by_settings(read_jobs(jobs))
    assert (gae.settings, rloo.settings) == ({"advantage": "gae", "a.b": "[1,2]"}, {"advantage": "rloo", "a.b": "[1,2]"})
    reach = stats.t.ppf(0.975, 2) * stdev([0.1, 0.2, 0.3]) / 3**0.5
    assert gae.objective is not None
    assert (gae.objective.mean, gae.objective.low, gae.objective.high) == pytest.approx((0.2, 0.2 - reach, 0.2 + reach))
    assert gae.metrics == pytest.approx({"kl": 0.5, "long/name": 0.5, "seconds": 3.0})
    assert (len(rloo.finished_jobs), len(rloo.jobs)) == (1, 3)
    assert rloo.objective is not None
    assert (rloo.objective.mean, rloo.objective.low) == (0.7, -float("inf"))


def test_a_choice_of_which_no_job_ended_well_has_no_objective():
    (only,) = by_settings([Job("0", {"a": "1"}, error="x")])
    assert (only.objective, only.metrics) == (None, {})
