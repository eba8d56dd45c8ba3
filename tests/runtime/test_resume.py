"""`resume=RUN` through the command line: what it takes, what it refuses, and that a stopped run ends as if it hadn't been."""

from __future__ import annotations

import json
import os
import shutil

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.registry import load_components
from rlhf_lightning.runtime import resume, saved_config


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
    assert resume.expand_resume(words) == words
    assert resume.finished_run(words) is None
    assert resume.FLAG not in os.environ


def test_it_becomes_the_run_s_own_configuration_and_folder(stopped):
    words = resume.expand_resume([f"resume={stopped}", "trainer.devices=2"])
    assert words == ["trainer.devices=2", f"hydra.run.dir={stopped}", "--config-path", str(stopped)]
    resume.check_folder(stopped)


def test_what_would_make_another_run_is_refused(stopped):
    with pytest.raises(ConfigError, match=r"ppo\.learning_rate=1 would make another run"):
        resume.expand_resume([f"resume={stopped}", "ppo.learning_rate=1"])
    with pytest.raises(ConfigError, match="this is not the folder of a run"):
        resume.expand_resume([f"resume={stopped / 'nowhere'}"])


def test_a_stopped_run_s_folder_is_not_begun_anew(stopped):
    with pytest.raises(ConfigError, match="continue it by resume="):
        resume.check_folder(stopped)
    resume.check_folder(stopped / "another")


def test_a_finished_run_is_reported_to_be_complete(stopped):
    assert resume.finished_run([f"resume={stopped}"]) is None
    (stopped / "result.json").write_text("{}")
    assert resume.finished_run([f"resume={stopped}"]) == stopped


def test_one_command_begins_and_goes_on(stopped):
    assert resume.expand_resume(["stage=sft", "hydra.run.dir=runs/x", "resume=auto"]) == ["stage=sft", "hydra.run.dir=runs/x"]
    resume.check_folder(stopped)
    assert resume.finished_run(["resume=auto"]) is None
    resume.expand_resume(["stage=sft"])
    with pytest.raises(ConfigError, match="continue it by resume="):
        resume.check_folder(stopped)


@pytest.mark.parametrize(
    ("words", "told"), [(["stage=sft"], "name it, hydra.run.dir="), (["-m", "seed=1,2", "hydra.run.dir=x"], "a sweep resumes by itself")]
)
def test_a_command_that_would_begin_each_time_is_refused(words, told, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigError, match=told):
        resume.expand_resume([*words, "resume=auto"])


SOURCE = "rlhf_lightning.feedback.source.jsonl.jsonl"


def config(**changes):
    load_components()
    made = OmegaConf.create(
        {
            "seed": 1, "trainer": {"devices": 1}, "checkpoint": {"accept_changed_inputs": False, "keep_finished": False},
            "reward": {"learning_rate": 0.1}, "feedback_source": {"jsonl": {"_target_": SOURCE, "path": "pairs.jsonl"}},
        }
    )  # fmt: skip
    for name, value in changes.items():
        OmegaConf.update(made, name.replace("__", "."), value)
    return made


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A folder where a run was begun and stopped."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text("{}\n")
    folder = tmp_path / "run"
    folder.mkdir()
    resume.prepare(config(), folder, pytest.fail)
    saved_config.save(config(), folder)
    (folder / "checkpoints").mkdir()
    monkeypatch.setenv(resume.FLAG, str(folder))
    return folder


def test_how_it_is_run_may_change_and_is_reported(begun):
    said: list[str] = []
    resume.prepare(config(trainer__devices=2), begun, said.append)
    assert said == [f"{begun} began with another setting: trainer.devices: 1 -> 2"]
    resume.prepare(config(), begun, pytest.fail)


@pytest.mark.parametrize("flag", ["auto", "the folder"])
def test_what_is_learned_may_not_change(begun, monkeypatch, flag):
    """By `resume=auto` with other words, or by an edited config.yaml."""
    if flag == "auto":
        monkeypatch.setenv(resume.FLAG, flag)
    with pytest.raises(ConfigError, match=r"began with other settings \(seed: 1 -> 2; reward.learning_rate: 0.1 -> 0.5\)") as told:
        resume.prepare(config(seed=2, reward__learning_rate=0.5), begun, pytest.fail)
    assert ("resume=" in str(told.value)) == (flag == "auto")


def test_without_a_record_the_saved_configuration_is_what_it_was_begun_with(begun):
    (begun / "begun.json").unlink()
    with pytest.raises(ConfigError, match=r"\(seed: 1 -> 2\)"):
        resume.prepare(config(seed=2), begun, pytest.fail)
    resume.prepare(config(), begun, pytest.fail)
    assert (begun / "begun.json").is_file()


def test_changed_inputs_need_a_word(begun):
    (begun.parent / "pairs.jsonl").write_text("{} \n")
    with pytest.raises(DataError, match=r"pairs.jsonl was modified; .*checkpoint.accept_changed_inputs=true"):
        resume.prepare(config(), begun, pytest.fail)
    said: list[str] = []
    resume.prepare(config(checkpoint__accept_changed_inputs=True), begun, said.append)
    assert "pairs.jsonl was modified, and the run continues with it (checkpoint.accept_changed_inputs)" in said
    assert json.loads((begun / "begun.json").read_text())["settings"]["checkpoint.accept_changed_inputs"] is True


def test_a_run_that_is_over_is_so_for_the_same_command_alone(begun, monkeypatch):
    (begun / "result.json").write_text('{"objective": 0.5}')
    assert resume.saved_objective(begun) is None
    monkeypatch.setenv(resume.FLAG, "auto")
    assert resume.saved_objective(begun) == 0.5


def test_a_finished_run_is_not_begun_anew(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "result.json").write_text('{"objective": 0.5}')
    with pytest.raises(ConfigError, match="has a finished run"):
        resume.prepare(config(), tmp_path, pytest.fail)
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_what_a_kill_left_is_gone_after_the_next_start(begun):
    for name in (".new-config.yaml.12", ".new-policy.7/model.safetensors", "stalled_0.txt", "stalled_1.txt", "notes.txt"):
        (begun / name).parent.mkdir(exist_ok=True)
        (begun / name).write_text("stack" if name in ("stalled_1.txt", "notes.txt") else "")
    said: list[str] = []
    resume.prepare(config(), begun, said.append)
    assert said == [f"{begun}: removed half-written files of a killed process (.new-config.yaml.12, .new-policy.7, stalled_0.txt)"]
    names = ["begun.json", "checkpoints", "config.yaml", "notes.txt", "pairs.jsonl", "stalled_1.txt"]
    assert sorted(path.name for path in begun.iterdir()) == [name for name in names if name != "pairs.jsonl"]


def test_a_run_that_was_killed_behind_its_result_is_tidied(begun):
    (begun / "result.json").write_text('{"objective": 0.5}')
    step = begun / "checkpoints" / "sft" / "step_1"
    step.mkdir(parents=True)
    for file in (begun / "lock.json", begun / "seconds.json", step / "trainer.ckpt", step.parent / "index.json", step.parent / "lock.json"):
        file.write_text("{}")
    resume.tidy(begun)
    assert sorted(path.name for path in begun.iterdir()) == ["begun.json", "config.yaml", "result.json"]
    step.mkdir(parents=True)
    (step.parent / "precious").mkdir()
    resume.tidy(begun)
    assert [path.name for path in (begun / "checkpoints" / "sft").iterdir()] == ["precious"]


def test_libraries_of_other_versions_are_reported(begun):
    record = json.loads((begun / "begun.json").read_text())
    record["versions"]["torch"], now = "1.0", record["versions"]["torch"]
    (begun / "begun.json").write_text(json.dumps(record))
    said: list[str] = []
    resume.prepare(config(), begun, said.append)
    assert said == [f"{begun} began with other library versions: torch 1.0 -> {now}; numbers may differ in their last digits"]


@pytest.fixture(scope="module")
def inspected(command, world):
    """The folder of a finished run with the default logger."""
    outcome = command(*(word for word in world.inspect() if not word.startswith("logger=")))
    assert outcome.code == 0, outcome.error
    return outcome.folder


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["logger=none"], ["logger.kind: csv -> none", "logger.naming: trl -> (not set)"]),
        (["logger=tensorboard"], ["logger.kind: csv -> tensorboard"]),
        (["trainer=ddp", "trainer.devices=1", "trainer.accelerator=cpu"], ["trainer.strategy: auto -> ddp"]),
        (["logger.naming=verl"], ["logger.naming: trl -> verl"]),
        (["trainer.precision=64-true"], ["trainer.precision: 32-true -> 64-true"]),
        (["checkpoint.every=3", "checkpoint.keep_finished=true"], ["checkpoint.every: 20 -> 3", "checkpoint.keep_finished: False -> True"]),
        (["ppo.micro_batch_size=2"], ["ppo.micro_batch_size: None -> 2"]),
    ],
)
def test_how_it_is_run_may_be_changed_by_settings_and_presets(command, inspected, tmp_path, words, changes):
    folder = shutil.copytree(inspected, tmp_path / "run")
    (folder / "result.json").unlink()
    outcome = command(f"resume={folder}", *words)
    assert outcome.code == 0, outcome.error
    said = [line.rpartition("began with another setting: ")[2] for line in outcome.out.splitlines() if "another setting" in line]
    assert sorted(said) == sorted(changes)
    assert (folder / "result.json").is_file()


def test_a_saved_configuration_takes_the_presets_of_how_it_is_run(command, world, tmp_path):
    assert command(*world.inspect(), folder=tmp_path / "one").code == 0
    outcome = command("--config-path", str(tmp_path / "one"), "logger=csv", folder=tmp_path / "two")
    assert outcome.code == 0, outcome.error
    assert OmegaConf.load(tmp_path / "two" / "config.yaml").logger == {"kind": "csv", "naming": "trl"}


def test_the_same_command_again_tidies_a_run_that_was_killed_behind_its_result(command, world, tmp_path):
    words = [*world.inspect(), "resume=auto"]
    first = command(*words, folder=tmp_path / "run")
    assert first.code == 0, first.error
    listing = sorted(path.name for path in first.folder.iterdir())
    (first.folder / "seconds.json").write_text("{}")
    (first.folder / "checkpoints").mkdir()
    again = command(*words, folder=first.folder)
    assert again.code == 0, again.error
    assert "is already complete" in again.out
    assert sorted(path.name for path in first.folder.iterdir()) == listing
