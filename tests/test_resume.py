"""`resume=RUN` through the command line: what it takes, what it refuses, and that a stopped run ends as if it hadn't been."""

from __future__ import annotations

import os

import pytest

from rlhf_lightning import resume
from rlhf_lightning.errors import ConfigError


@pytest.fixture(autouse=True)
def no_flag(monkeypatch):
    monkeypatch.delenv(resume.FLAG, raising=False)


@pytest.fixture
def stopped(tmp_path):
    (tmp_path / "config.yaml").write_text("seed: 0\n")
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def test_a_command_without_it_stays_as_it_is():
    words = ["stage=ppo", "ppo.updates=2"]
    assert resume.spelled_out(words) == words
    assert resume.finished(words) is None
    assert resume.FLAG not in os.environ


def test_it_becomes_the_run_s_own_configuration_and_folder(stopped):
    words = resume.spelled_out([f"resume={stopped}", "trainer.devices=2"])
    assert words == ["trainer.devices=2", f"hydra.run.dir={stopped}", "--config-path", str(stopped)]
    resume.check_folder(stopped)


def test_what_would_make_another_run_is_refused(stopped):
    with pytest.raises(ConfigError, match=r"ppo\.learning_rate=1 would make another run"):
        resume.spelled_out([f"resume={stopped}", "ppo.learning_rate=1"])
    with pytest.raises(ConfigError, match="this is not the folder of a run"):
        resume.spelled_out([f"resume={stopped / 'nowhere'}"])


def test_a_stopped_run_s_folder_is_not_begun_anew(stopped):
    with pytest.raises(ConfigError, match="go on with it by resume="):
        resume.check_folder(stopped)
    resume.check_folder(stopped / "another")


def test_a_finished_run_is_said_to_be_complete(stopped):
    assert resume.finished([f"resume={stopped}"]) is None
    (stopped / "result.json").write_text("{}")
    assert resume.finished([f"resume={stopped}"]) == stopped
