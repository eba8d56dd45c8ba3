"""The jobs of a sweep's folder: in order, with what they gave, and seeds together."""

from __future__ import annotations

import os
from statistics import stdev

import pytest
from omegaconf import DictConfig, OmegaConf
from scipy import stats

from rlhf_lightning.cli.sweep.jobs import (
    ERROR_FILE,
    Job,
    by_settings,
    read_jobs,
    refuse_another_sweep,
    refuse_space_without_sweep,
    saved_objective,
    varied_settings,
)
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import resume, saved_config


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


@pytest.fixture(autouse=True)
def flag(monkeypatch):
    monkeypatch.delenv(resume.FLAG, raising=False)
    monkeypatch.setenv(resume.FLAG, "")


def multirun(folder, words, params=None) -> DictConfig:
    sweep, sweeper, overrides = {"dir": str(folder)}, {"params": params}, {"task": words}
    return OmegaConf.create({"hydra": {"sweep": sweep, "sweeper": sweeper, "overrides": overrides, "verbose": False}})


def test_the_same_words_go_on_and_others_are_refused(tmp_path):
    refuse_another_sweep(multirun(tmp_path, ["seed=1,2"]))
    OmegaConf.save(multirun(tmp_path, ["seed=1,2", "logger.api_key=***"], {"ppo.epochs": "1,2"}), tmp_path / "multirun.yaml")
    refuse_another_sweep(multirun(tmp_path, ["logger.api_key=secret", "seed=1,2"], {"ppo.epochs": "1,2"}))
    with pytest.raises(ConfigError, match=r"another sweep \(there: seed=1,2; here: seed=1,2,3\)"):
        refuse_another_sweep(multirun(tmp_path, ["seed=1,2,3", "logger.api_key=secret"], {"ppo.epochs": "1,2"}))
    with pytest.raises(ConfigError, match=r"there: ppo.epochs=1,2\)"):
        refuse_another_sweep(multirun(tmp_path, ["seed=1,2", "logger.api_key=secret"]))


def test_a_job_that_ended_well_is_not_run_again(tmp_path):
    config = OmegaConf.create({"seed": 1})
    saved_config.save(config, tmp_path)
    (tmp_path / resume.RESULT).write_text('{"objective": 0.25}')
    assert saved_objective(config, tmp_path) == 0.25


def test_a_job_of_other_settings_is_run_from_its_start_and_its_old_end_is_gone(tmp_path):
    saved_config.save(OmegaConf.create({"seed": 1}), tmp_path)
    (tmp_path / resume.CHECKPOINTS).mkdir()
    (tmp_path / ERROR_FILE).write_text("failed")
    assert saved_objective(OmegaConf.create({"seed": 2}), tmp_path) is None
    assert sorted(file.name for file in tmp_path.iterdir()) == [saved_config.FILE]
    assert os.environ[resume.FLAG] == ""


def test_a_job_of_other_settings_that_has_a_result_stays(tmp_path):
    saved_config.save(OmegaConf.create({"seed": 1}), tmp_path)
    (tmp_path / resume.RESULT).write_text('{"objective": 0.25}')
    with pytest.raises(ConfigError, match="has a finished run"):
        saved_objective(OmegaConf.create({"seed": 2}), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == [saved_config.FILE, resume.RESULT]


def test_a_job_that_was_killed_goes_on_from_its_checkpoints(tmp_path):
    config = OmegaConf.create({"seed": 1})
    saved_config.save(config, tmp_path)
    (tmp_path / resume.CHECKPOINTS).mkdir()
    with pytest.raises(ConfigError):
        resume.check_folder(tmp_path)
    assert saved_objective(config, tmp_path) is None
    resume.check_folder(tmp_path)


def test_a_search_space_wants_a_sweep():
    about = OmegaConf.create({"sweeper": {"params": {"ppo.epochs": "1,2", "seed": "1,2"}}})
    with pytest.raises(ConfigError, match=r"ppo.epochs, seed: add -m"):
        refuse_space_without_sweep(about)
    refuse_space_without_sweep(OmegaConf.create({"sweeper": {"params": None}}))
    refuse_space_without_sweep(OmegaConf.create({"sweeper": {}}))
