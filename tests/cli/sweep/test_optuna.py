"""`hydra/sweeper=optuna`: it asks, launches and tells, and goes on where it was killed: in memory by asking again, else by its trials."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from rlhf_lightning.cli.sweep.optuna import OptunaSearch, distribution
from rlhf_lightning.errors import ConfigError


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("a=x,y", CategoricalDistribution(["x", "y"])),
        ("a=[1,2],{b: 1}", CategoricalDistribution(["[1,2]", "{b:1}"])),
        ("a='p,q',r", CategoricalDistribution(["'p,q'", "r"])),
        ("a=1e-4,0.5", CategoricalDistribution(["0.0001", "0.5"])),
        ("a=range(1,5)", IntDistribution(1, 4)),
        ("a=range(0,10,3)", IntDistribution(0, 9, step=3)),
        ("a=range(5,1,-2)", IntDistribution(3, 5, step=2)),
        ("a=range(0.5,2,0.5)", FloatDistribution(0.5, 1.5, step=0.5)),
        ("a=interval(0.1,0.5)", FloatDistribution(0.1, 0.5)),
        ("a=interval(1,5)", FloatDistribution(1, 5)),
        ("a=int(interval(1,5))", IntDistribution(1, 5)),
        ("a=tag(log,interval(1e-5,1e-3))", FloatDistribution(1e-5, 1e-3, log=True)),
        ("a=tag(log,int(interval(1,64)))", IntDistribution(1, 64, log=True)),
    ],
)
def test_what_a_swept_value_is_drawn_from(word, expected):
    assert distribution(OverridesParser.create().parse_override(word)) == expected


class Jobs:
    """A launcher whose jobs are a function of their words; it remembers which ran under which number."""

    def __init__(self, objective: Callable[[dict[str, str]], float]) -> None:
        self.objective = objective
        self.ran: dict[int, dict[str, str]] = {}
        self.batches: list[int] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[SimpleNamespace]:
        self.batches.append(len(job_overrides))
        returned = []
        for number, words in enumerate(job_overrides, initial_job_idx):
            self.ran[number] = dict(word.split("=", 1) for word in words)
            returned.append(SimpleNamespace(return_value=self.objective(self.ran[number])))
        return returned


@pytest.fixture
def search(tmp_path, capsys) -> Callable[..., str]:
    """Runs a search in the same folder and returns what it prints."""

    def run(jobs: Jobs, words: Sequence[str] = ("x=interval(0,1)",), **settings: Any) -> str:
        sweeper = OptunaSearch(**settings)
        sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}})
        loader = SimpleNamespace(load_sweep_config=lambda **_: None)
        sweeper.hydra_context = SimpleNamespace(config_loader=loader)
        sweeper.launcher = jobs
        patched = OverridesParser.create
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(OverridesParser, "create", lambda config_loader=None: patched())
            sweeper.sweep(list(words))
        return capsys.readouterr().out

    return run


def far_from_a_third(words: dict[str, str]) -> float:
    return (float(words["x"]) - 1 / 3) ** 2


def test_the_best_of_all_trials_is_reported(search, tmp_path):
    jobs = Jobs(far_from_a_third)
    out = search(jobs, ["fixed=1", "x=interval(0,1)"], n_trials=30, direction="minimize")
    assert list(jobs.ran) == list(range(30))
    assert {words["fixed"] for words in jobs.ran.values()} == {"1"}
    best = min(jobs.ran, key=lambda number: far_from_a_third(jobs.ran[number]))
    assert f"best: job {best}, " in out
    assert f"x={jobs.ran[best]['x']}" in out
    assert (tmp_path / "sweep" / "multirun.yaml").is_file()
    assert sorted(file.name for file in (tmp_path / "sweep").iterdir()) == ["multirun.yaml"], "in memory nothing else is written"


def test_tpe_learns_from_what_was_tried(search):
    asked = {}
    for sampler in ("random", "tpe"):
        jobs = Jobs(far_from_a_third)
        search(jobs, n_trials=60, direction="minimize", sampler=sampler)
        asked[sampler] = [far_from_a_third(words) for words in list(jobs.ran.values())[20:]]
    assert sum(asked["tpe"]) < 0.5 * sum(asked["random"])


def test_the_command_s_own_values_win_over_the_space_of_a_preset(search):
    jobs = Jobs(lambda words: 0.0)
    search(jobs, ["a=1"], n_trials=2, params={"a": "5,6", "x": "interval(0,1)"})
    assert [words["a"] for words in jobs.ran.values()] == ["1", "1"]
    assert all(0 <= float(words["x"]) <= 1 for words in jobs.ran.values())


def test_jobs_are_launched_together(search):
    jobs = Jobs(far_from_a_third)
    search(jobs, n_trials=5, n_jobs=2)
    assert jobs.batches == [2, 2, 1]
    assert list(jobs.ran) == [0, 1, 2, 3, 4]


def killed_at(number: int) -> Jobs:
    """Jobs of which one kills the program, and an earlier one has failed."""
    jobs = Jobs(far_from_a_third)

    def objective(words: dict[str, str]) -> float:
        if len(jobs.ran) - 1 == number:
            raise KeyboardInterrupt
        return math.nan if len(jobs.ran) == 2 else far_from_a_third(words)

    jobs.objective = objective
    return jobs


def test_a_killed_study_of_a_database_goes_on_with_what_is_missing_or_failed(search, tmp_path):
    first, second, third = killed_at(3), Jobs(far_from_a_third), Jobs(far_from_a_third)
    with pytest.raises(KeyboardInterrupt):
        search(first, ["logger.key=42", "x=interval(0,1)"], n_trials=6, storage="sqlite")
    search(second, ["logger.key=42", "x=interval(0,1)"], n_trials=6, storage="sqlite")
    assert list(second.ran) == [1, 3, 4, 5], "the failed, the killed, and those that were not asked for yet"
    assert (second.ran[1], second.ran[3]) == (first.ran[1], first.ran[3])
    assert len({words["x"] for words in (first.ran | second.ran).values()}) == 6, "what is asked anew is new"
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path / 'sweep' / 'study.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 6
    assert all(trial.value == far_from_a_third({"x": str(trial.params["x"])}) for trial in study.trials)
    assert b"logger.key=42" not in (tmp_path / "sweep" / "study.db").read_bytes()
    search(third, n_trials=6, storage="sqlite")
    assert third.ran == {}
    search(third, n_trials=8, storage="sqlite")
    assert list(third.ran) == [6, 7], "more trials of the same study"


def test_a_killed_study_in_memory_asks_for_the_same_jobs_again(search):
    """Their results are then read, where they have one (sweep/going_on.py)."""
    first, second = Jobs(far_from_a_third), Jobs(far_from_a_third)
    search(first, n_trials=15)
    search(second, n_trials=15)
    assert first.ran == second.ran


def test_other_folders_of_the_same_database_are_left_alone(search, tmp_path):
    storage = f"sqlite:///{tmp_path / 'shared.db'}"
    optuna.create_study(storage=storage, study_name="shared").ask({"x": FloatDistribution(0, 1)})
    jobs = Jobs(far_from_a_third)
    search(jobs, n_trials=2, storage=storage, study_name="shared", direction="minimize")
    assert list(jobs.ran) == [0, 1]


@pytest.mark.parametrize(
    ("settings", "words", "message"),
    [
        ({"n_trials": 0}, ["x=1,2"], r"hydra.sweeper.n_trials=0"),
        ({"direction": "up"}, ["x=1,2"], r"hydra.sweeper.direction=up"),
        ({"trials": 3}, ["x=1,2"], r"no setting 'trials', did you mean 'n_trials'"),
        ({}, ["x=1"], r"nothing to search"),
        ({"storage": "sqlite:////nowhere/at/all.db"}, ["x=1,2"], r"storage=sqlite:////nowhere/at/all.db can't be opened"),
    ],
)
def test_what_cannot_be_searched_is_refused(search, settings, words, message):
    with pytest.raises(ConfigError, match=message):
        search(Jobs(far_from_a_third), words, **settings)


def test_without_optuna_the_extra_is_named(search, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "optuna.distributions", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'rlhf-lightning\[optuna\]'"):
        search(Jobs(far_from_a_third))


def test_an_address_of_a_database_keeps_its_password_to_itself(command, tmp_path):
    storage = "hydra.sweeper.storage='postgresql://me:hunter2hunter2@no.example/db'"
    outcome = command("-m", "hydra/sweeper=optuna", storage, "seed=range(0,3)", "stage=inspect", folder=tmp_path / "sweep")
    assert outcome.code == 2
    assert "hydra.sweeper.storage=postgresql://me:***@no.example/db can't be opened" in outcome.error
    assert "hunter2" not in outcome.error + outcome.out + (tmp_path / "sweep" / "multirun.yaml").read_text()
