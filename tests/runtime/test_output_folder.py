"""Commands that would write over what they didn't make: refused before anything is written, or harmless."""

from __future__ import annotations

import os
import shutil
import textwrap
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from rlhf_lightning.config.presets import CONF
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime import resume
from rlhf_lightning.runtime.output_folder import check_run, check_sweep

STAGE = '''
from __future__ import annotations
from rlhf_lightning.registry import register


@register("stage", "stub_writer")
def stub_writer(run, *, models: tuple[str, ...] = ()):
    """Writes what runs write."""
    for name in ("report.json", "quality.json", "plan.json"):
        run.write_json(name, run.seed)
    for name in ("policy", "reward_model", "sft"):
        (run.folder / name).mkdir(exist_ok=True)
        (run.folder / name / "model.safetensors").write_text("overwritten")
    return 0.5
'''
STUB = ["stage=stub_writer", "logger=none"]
FOLDERS = [
    ".", "", "..", "{home}", "/", "{top}", "model", "model/", "./model", "{top}/model", "data", "notes.txt", "notes.txt/run",
    "link_to_model", "link_to_notes", "link_to_nowhere", "link_to_done", "runs", "runs/done", "runs/done/", "runs/../runs/done",
    "{top}/runs/done",
    "runs/done/policy", "runs/done/policy/new", "runs/done/checkpoints/new", "runs/stopped", "runs/stopped/checkpoints",
    "runs/stopped/checkpoints/sft/new", "runs/sweep", "runs/sweep/0", "repository", "hidden", "of_another_hydra", "has_result",
    "has_checkpoints", "has_policy", "has_config", "has_logs", "has_wandb", "has_feedback", "has_report", "has_reward_model", "has_seconds",
    "has_link",
]  # fmt: skip
INPUTS = [
    "backbone=causal backbone.path=runs/done/policy",
    "backbone=causal backbone.path=runs/other/../done/policy",
    "backbone=causal backbone.path={top}/runs/done",
    "backbone=causal backbone.path=link_to_done/policy",
    "backbone=encoder backbone.path=runs/done/policy",
    "rollout_scorer=reward_model rollout_scorer.reward_model.path=runs/done/reward_model",
    "ppo.held_out_scorer=runs/done/reward_model",
    "feedback_source=jsonl feedback_source.jsonl.path=runs/done/feedback.jsonl",
    "feedback_source=jsonl feedback_source.jsonl.path=runs/done/*.jsonl",
    "feedback_source=csv feedback_source.csv.path=runs/done",
    "task=files task.prompts=runs/done/feedback.jsonl",
    "feedback_filter=[leakage] feedback_filter.leakage.against=[data/more.jsonl,runs/done/feedback.jsonl]",
]
SWEEPS = [
    "hydra.sweep.dir=.", "hydra.sweep.dir=model", "hydra.sweep.dir=data", "hydra.sweep.dir=notes.txt", "hydra.sweep.dir=runs/done",
    "hydra.sweep.dir=runs/done/policy/new", "hydra.sweep.dir=runs/sweep ppo.updates=3", "hydra.sweep.dir=runs", "hydra.sweep.subdir=same",
    "hydra.sweep.subdir=.", "hydra.sweep.dir=of_another_hydra", "hydra.sweep.dir=link_to_model", "hydra.sweep.dir=has_logs",
    "hydra.sweep.dir=runs/sweep backbone=causal backbone.path=runs/sweep/0/policy",
]  # fmt: skip
OTHERS = [
    "hydra.run.dir=runs/new hydra.output_subdir=..",
    "hydra.run.dir=runs/new hydra.output_subdir=../../model",
    "hydra.run.dir=runs/done resume=auto seed=8",
    "hydra.run.dir=runs/stopped resume=auto seed=8",
    "hydra.run.dir=model resume=auto",
    "hydra.run.dir=has_checkpoints resume=auto",
    "resume=model",
    "resume=data",
    "resume=notes.txt",
    "resume=runs",
    "resume=runs/stopped seed=8",
    "hydra.run.dir=runs/done --config-path runs/done",
    "hydra.run.dir=runs/done stage=inspect feedback_source=jsonl feedback_source.jsonl.path=data/rows.jsonl",
    "hydra.run.dir=runs/done stage=plan",
]


@pytest.fixture
def stub(untouched, tmp_path, monkeypatch):
    from rlhf_lightning import registry

    monkeypatch.delenv(resume.FLAG, raising=False)
    folder = tmp_path / "components"
    folder.mkdir()
    (folder / "stub_writer.py").write_text(textwrap.dedent(STAGE))
    assert registry.load_components([folder]) == []


def write(top: Path, names: str) -> None:
    for name in names.split():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"precious {name}")


@pytest.fixture
def top(command, stub, template, tmp_path, monkeypatch):
    """A working folder with models, data, a finished run, a stopped one and a sweep, which no command may change."""
    if not (template / "work").exists():
        make(template / "work", command)
    shutil.copytree(template / "work", tmp_path / "work", symlinks=True)
    write(tmp_path / "home", ".bashrc thesis.tex")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "work"


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    return tmp_path_factory.mktemp("template")


def make(top: Path, command) -> None:
    write(top, "notes.txt model/config.json model/model.safetensors data/rows.jsonl repository/.git/HEAD repository/README hidden/.env")
    write(top, ".git/HEAD train.py")
    write(top, "has_result/result.json has_checkpoints/checkpoints/sft/step_1/weights has_policy/policy/model.safetensors")
    write(top, "has_config/config.yaml has_logs/logs/sft/metrics.csv has_wandb/wandb/run has_feedback/feedback.jsonl")
    write(top, "has_report/report.html has_reward_model/reward_model/config.json has_seconds/seconds.json of_another_hydra/multirun.yaml")
    write(top, "of_another_hydra/.hydra/config.yaml of_another_hydra/.hydra/hydra.yaml")
    (top / "has_link").mkdir()
    for link, target in (
        ("model", "model"), ("notes", "notes.txt"), ("nowhere", "nowhere"), ("done", "runs/done"), ("has_link/policy", "../model"),
    ):  # fmt: skip
        name = link if "/" in link else f"link_to_{link}"
        (top / name).symlink_to(target)
    for run in ("done", "stopped"):
        outcome = command(*STUB, folder=top / "runs" / run, workdir=top)
        assert outcome.code == 0, outcome.error
    write(top, "runs/done/feedback.jsonl runs/done/notes.md runs/other/x runs/stopped/checkpoints/sft/step_1/trainer.ckpt")
    (top / "runs" / "stopped" / "result.json").unlink()
    outcome = command("-m", *STUB, "seed=1,2", folder=top / "runs" / "sweep", workdir=top)
    assert outcome.code == 0, outcome.error


def contents(folder: Path) -> dict[str, bytes | str]:
    """Every file and link below a folder."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def run(command, top, words):
    home = os.environ["HOME"]
    filled = [word.replace("{top}", str(top)).replace("{home}", home) for word in words]
    before = contents(top.parent)
    outcome = command(*filled, folder=top / "unused", workdir=top)
    after = contents(top.parent)
    assert {name: after.get(name) for name in before} == before, outcome
    return outcome, sorted(after.keys() - before.keys())


def test_there_are_sixty_mistakes():
    assert len(FOLDERS) + len(INPUTS) + len(SWEEPS) + len(OTHERS) >= 60


def composed(*words: str) -> DictConfig:
    """The configuration of a command, with Hydra's."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words), return_hydra_config=True)


def test_a_folder_that_this_command_did_not_make_is_refused(command, top, monkeypatch):
    """Every folder by the check, and every sixth by a whole command, which must leave all files as they are."""
    monkeypatch.chdir(top)
    config = composed(*STUB)
    for folder in FOLDERS:
        with pytest.raises(ConfigError, match=r"hydra\.run\.dir"):
            check_run(config, Path(folder.replace("{top}", str(top)).replace("{home}", os.environ["HOME"])))
    for folder in FOLDERS[::6]:
        outcome, new = run(command, top, [*STUB, "seed=7", f"hydra.run.dir={folder}"])
        assert (outcome.code, new) == (2, []), (folder, outcome)
        assert "Traceback" not in outcome.error
        assert "hydra.run.dir" in outcome.error


def test_inputs_in_the_folder_that_is_written_are_refused(command, top, monkeypatch):
    monkeypatch.chdir(top)
    for words in INPUTS:
        with pytest.raises(ConfigError, match="is within runs/done, the output folder"):
            check_run(composed(*STUB, *words.replace("{top}", str(top)).split()), Path("runs/done"))
    for words in INPUTS[::6]:
        outcome, new = run(command, top, [*STUB, *words.split(), "hydra.run.dir=runs/done"])
        assert (outcome.code, new) == (2, []), (words, outcome)
        assert "is within runs/done, the output folder" in outcome.error


def test_a_name_that_is_also_the_folder_s_is_no_input(command, top):
    """plan.job=ppo in a folder called ppo: only settings that are paths by their type are looked at."""
    write(top, "ppo/train.log")
    outcome, _ = run(command, top, [*STUB, "plan.job=ppo", "hydra.run.dir=ppo"])
    assert outcome.code == 0, outcome.error


def test_sweeps_are_held_to_the_same(command, top, monkeypatch):
    monkeypatch.chdir(top)
    config = composed(*STUB)
    for words in SWEEPS:
        key, _, folder = words.partition("=")
        if key == "hydra.sweep.dir" and " " not in words:
            with pytest.raises(ConfigError, match=r"hydra\.sweep\.dir"):
                check_sweep(config, Path(folder))
    for words in [words for words in SWEEPS if " " in words or "subdir" in words] + SWEEPS[:1]:
        outcome, new = run(command, top, ["-m", *STUB, "seed=1,2", *words.split()])
        assert (outcome.code, [name for name in new if not name.endswith("lock.json")]) == (2, []), (words, outcome)
        assert "Traceback" not in outcome.error


def test_other_ways_to_write_there_are_refused(command, top):
    for words in OTHERS:
        start = [] if "--config-path" in words or words.startswith("resume=") else STUB
        outcome, new = run(command, top, [*words.split()[:1], *start, *words.split()[1:]])
        assert (outcome.code, new) == (2, []), (words, outcome)
        assert "Traceback" not in outcome.error


def test_the_same_command_again_leaves_a_finished_run_alone(command, top):
    outcome, new = run(command, top, [*STUB, "hydra.run.dir=runs/done"])
    assert (outcome.code, new) == (2, [])
    assert "has a finished run" in outcome.error
    outcome, new = run(command, top, ["resume=runs/done"])
    assert (outcome.code, new) == (0, [])
    assert "is already complete" in outcome.out


def test_what_is_no_mistake_goes_on(command, top):
    write(top, "with_log/train.log with_log/slurm-12.out")
    (top / "empty").mkdir()
    (top / "link_to_empty").symlink_to("empty")
    for folder in ("with_log", "link_to_empty", "runs/new/deep", "runs/done/runs/next"):
        outcome, new = run(command, top, [*STUB, f"hydra.run.dir={folder}"])
        assert outcome.code == 0, outcome.error
        assert new


def test_a_run_that_failed_before_its_first_checkpoint_begins_again_in_its_folder(command, world, tmp_path):
    words = world.inspect("feedback_source.jsonl.path=nowhere.jsonl")
    assert command(*words, folder=tmp_path / "run").code != 0
    assert command(*words, "seed=-1", folder=tmp_path / "run").code == 2
    (tmp_path / "run" / "quarantine.jsonl").write_text("of the first attempt")
    outcome = command(*world.inspect(), folder=tmp_path / "run")
    assert outcome.code == 0, outcome.error
    assert not (tmp_path / "run" / "quarantine.jsonl").exists()


HYDRA = "hydra:\n  run:\n    dir: x\n"
UNFINISHED = [{}, {"config.yaml": "seed: 0\n"}, {"config.yaml": "", "hydra.yaml": ""}, {"config.yaml": "seed: 0\n", "hydra.yaml": HYDRA}]


@pytest.mark.parametrize("files", UNFINISHED)
def test_a_command_killed_while_hydra_writes_begins_again(command, top, files):
    folder = top / "runs" / "killed"
    (folder / ".hydra").mkdir(parents=True)
    for name, text in files.items():
        (folder / ".hydra" / name).write_text(text)
    refused = command(*STUB, folder=folder)
    assert refused.code == 2
    assert ".hydra" in refused.error
    (folder / "lock.json").write_text("")
    outcome = command(*STUB, "resume=auto", folder=folder)
    assert outcome.code == 0, outcome.error


def test_a_sweep_killed_while_hydra_writes_begins_again(command, top):
    folder = top / "runs" / "killed_sweep"
    folder.mkdir(parents=True)
    (folder / "multirun.yaml").write_text(HYDRA)
    words = ["-m", *STUB, "seed=1,2", f"hydra.sweep.dir={folder}"]
    assert command(*words).code == 2
    (folder / "lock.json").write_text("")
    outcome = command(*words)
    assert outcome.code == 0, outcome.error


def test_the_folder_of_another_hydra_program_stays_with_a_lock(command, top):
    folder = top / "runs" / "foreign"
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "hydra.yaml").write_text(f"{HYDRA}  verbose: false\n")
    (folder / "lock.json").write_text("")
    assert command(*STUB, folder=folder).code == 2
    assert (folder / ".hydra" / "hydra.yaml").read_text() == f"{HYDRA}  verbose: false\n"


def test_runs_of_the_same_second_get_folders_of_their_own(command, top, monkeypatch):
    from rlhf_lightning.training import launch

    launch.run_name.cache_clear()
    monkeypatch.setattr(launch.time, "strftime", lambda pattern: "2026-11-23_12-00-00")
    name = "hydra.run.dir=runs/${started:%Y}"
    folders = []
    for _ in range(3):
        outcome, new = run(command, top, [*STUB, name])
        assert outcome.code == 0, outcome.error
        folders += {Path(path).relative_to("work/runs").parts[0] for path in new}
    launch.run_name.cache_clear()
    assert folders == ["2026-11-23_12-00-00", "2026-11-23_12-00-00_2", "2026-11-23_12-00-00_3"]


def test_a_scaffold_writes_over_nothing(command, top):
    write(top, "plugins/my_head.py")
    outcome, new = run(command, top, ["new", "reward_head", "my_head"])
    assert (outcome.code, new) == (2, [])
    (top / "plugins" / "my_head.py").unlink()
    (top / "plugins").rmdir()
    write(top, "plugins")
    outcome, new = run(command, top, ["new", "reward_head", "my_head"])
    assert (outcome.code, new) == (2, [])
    assert "plugins is a file" in outcome.error
