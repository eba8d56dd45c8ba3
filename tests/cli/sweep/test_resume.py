"""A sweep goes on where it was killed: with the same words, and only with the jobs that have no result."""

from __future__ import annotations

import os

import pytest
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.cli.sweep.jobs import ERROR_FILE
from rlhf_lightning.cli.sweep.resume import refuse_another_sweep, refuse_space_without_sweep, saved_objective
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import resume, saved_config


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
