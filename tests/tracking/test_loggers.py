"""Where metrics go: every kind of logger with real files, and W&B where there is no server and no account."""

from __future__ import annotations

import csv
import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf
from rich.console import Console

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.report.report import Sample
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.tracking import loggers
from tests.fork_server import run

SAMPLES = [Sample(prompt="p | q", before="a", after="b\nc", score_before=0.5, score_after=1.0)]


def run_with(folder: Path, **logger: Any) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    config = {"seed": 0, "logger": logger, "stage": {"lr": 0.5}, "hub": {"token": "hf_secret", "url": "https://me:pass@host"}}
    return Run(OmegaConf.create(config), folder, Console(file=open(folder / "said.txt", "w"), width=200))


def said(run: Run) -> str:
    run.console.file.flush()
    return (run.folder / "said.txt").read_text()


def test_csv_has_metrics_of_each_stage_and_the_samples(tmp_path):
    run = run_with(tmp_path, kind="csv", naming="verl")
    for stage in ("sft", "ppo"):
        logger = run.logger(stage)
        for step in (1, 2):
            logger.log_metrics({"objective/scores": 0.25 * step, "objective/kl": 1.0}, step=step)
        logger.finalize("success")
    run.publish(SAMPLES, tmp_path / "report.html", {"score": 1.0})
    rows = list(csv.DictReader((tmp_path / "logs" / "ppo" / "metrics.csv").open()))
    assert [(row["step"], row["critic/score/mean"], row["objective/kl"]) for row in rows] == [("1", "0.25", "1.0"), ("2", "0.5", "1.0")]
    assert (tmp_path / "logs" / "sft" / "metrics.csv").exists()
    assert list(csv.DictReader((tmp_path / "logs" / "samples.csv").open())) == [
        {"prompt": "p | q", "before": "a", "after": "b\nc", "score_before": "0.5", "score_after": "1.0"}
    ]


def test_what_a_stopped_run_had_logged_stays(tmp_path, recwarn):
    for number in range(3):
        logger = run_with(tmp_path, kind="csv").logger("ppo 1")
        logger.log_metrics({"objective/kl": float(number)}, step=1)
        logger.finalize("success")
    files = ["ppo 1_before_1.csv", "ppo 1_before_2.csv", "ppo 1/metrics.csv"]
    assert [next(csv.DictReader((tmp_path / "logs" / name).open()))["objective/kl"] for name in files] == ["0.0", "1.0", "2.0"]
    assert not [one for one in recwarn if "deleted" in str(one.message)]


def test_tensorboard_has_curves_samples_and_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = run_with(tmp_path, kind="tensorboard", naming="openrlhf")
    logger = run.logger("ppo")
    for step in (1, 2):
        logger.log_metrics({"objective/scores": 0.25 * step}, step=step)
    run.publish(SAMPLES, tmp_path / "report.html", {"score": 1.0})
    logger.finalize("success")
    events = EventAccumulator(str(tmp_path / "logs" / "ppo")).Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/reward")] == [(1, 0.25), (2, 0.5)]
    assert [event.value for event in events.Scalars("results/score")] == [1.0]
    text = events.Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "| p \\| q | a | b<br>c | 0.5 | 1.0 |" in text


@pytest.mark.parametrize(("kind", "tracker"), [("wandb", "wandb_tracker"), ("tensorboard", "TensorBoardTracker")])
def test_a_logger_that_is_not_installed_says_what_to_install(tmp_path, kind, tracker, monkeypatch):
    def missing(*words: Any) -> None:
        raise ModuleNotFoundError(f"no module named {kind}")

    monkeypatch.setattr(loggers, tracker, missing)
    with pytest.raises(ConfigError, match=f"pip install {kind}"):
        run_with(tmp_path, kind=kind).logger("ppo")


def test_an_error_of_the_logger_at_the_end_is_reported_and_passed_over(tmp_path, monkeypatch):
    run = run_with(tmp_path, kind="csv")
    run.logger("ppo")
    monkeypatch.setattr(loggers.CSVTracker, "publish", lambda *_: 1 / 0)
    run.publish(SAMPLES, tmp_path / "report.html", {})
    assert "no samples and no report: ZeroDivisionError" in said(run)


def records(file: Path) -> list[Any]:
    """The records of a W&B offline file: blocks of 32 KiB, in them pieces with a checksum, a length and a kind (LevelDB's log format)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, found, whole, place = file.read_bytes(), [], b"", 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            found.append(Record.FromString(whole))
            whole = b""
    return found


def items(entries: Any) -> dict[str, Any]:
    return {entry.key or "/".join(entry.nested_key): json.loads(entry.value_json) for entry in entries}


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """W&B with nothing of this machine's: no account, no folder of settings."""
    pytest.importorskip("wandb")
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "home"))
    monkeypatch.setattr(loggers.WandbTracker, "is_unreachable", False)


def test_wandb_has_metrics_samples_the_report_and_the_configuration_without_secrets(tmp_path, offline):
    run = run_with(tmp_path / "my run", kind="wandb", naming="trl", tags=["small", "first"], notes="A trial.", job_type="train")
    for name in ("report.html", "report.json"):
        (run.folder / name).write_text("<p>told</p>")
    for stage in ("sft", "ppo"):
        logger = run.logger(stage)
        logger.log_metrics({"objective/scores": 0.25}, step=1)
        logger.finalize("success")
    run.publish(SAMPLES, run.folder / "report.html", {"score": 1.5})
    run.close()
    import wandb

    assert wandb.run is None, "a run that stays open would swallow the next job's"
    files = sorted(run.folder.glob("wandb/offline-run-*/run-*.wandb"))
    by_stage = {next(r.run.display_name for r in found if r.HasField("run")): found for found in map(records, files)}
    assert set(by_stage) == {"my run/sft", "my run/ppo"}
    found = by_stage["my run/ppo"]
    about = next(r.run for r in found if r.HasField("run"))
    assert (about.run_group, about.job_type, about.project) == ("my run", "train", "rlhf_lightning")
    assert (list(about.tags), about.notes) == (["small", "first"], "A trial.")
    config = items(about.config.update)
    assert config["stage"] == {"lr": 0.5}
    assert config["hub"] == {"token": "***", "url": "https://me:***@host"}
    history = [items(r.history.item) for r in found if r.HasField("history")]
    assert any(row.get("objective/scores") == 0.25 and row.get("trainer/global_step") == 1 for row in history)
    table = next(row["samples/path"] for row in history if "samples/path" in row)
    stored = json.loads(next(run.folder.glob(f"wandb/*/files/{table}")).read_text())
    assert stored == {"columns": ["prompt", "before", "after", "score_before", "score_after"], "data": [["p | q", "a", "b\nc", 0.5, 1.0]]}
    artifacts = [r.request.log_artifact.artifact for r in found if r.HasField("request") and r.request.HasField("log_artifact")]
    artifacts += [r.artifact for r in found if r.HasField("artifact")]
    report = next(one for one in artifacts if one.type == "report")
    assert report.name == "report-my-run"
    assert [entry.path for entry in report.manifest.contents] == ["report.html", "report.json"]
    summary = {key: value for r in found if r.HasField("summary") for key, value in items(r.summary.update).items()}
    assert summary["score"] == 1.5


NO_SERVER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_loggers

def seconds(mode):
    run = test_loggers.run_with(Path(sys.argv[1]) / mode, kind="wandb", mode=mode)
    start = time.perf_counter()
    for stage in ("sft", "ppo"):
        run.logger(stage).log_metrics({"objective/scores": 0.25}, step=1)
    run.publish(test_loggers.SAMPLES, run.folder / "report.html", {"score": 1.5})
    run.close()
    return time.perf_counter() - start

seconds("disabled")
print("cost", -seconds("offline") + seconds("online"))
"""


@pytest.mark.parametrize(
    ("account", "reason"),
    [
        ({}, "No API key configured. Use `wandb login` to log in."),
        ({"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}, "connection refused"),
    ],
    ids=["no account", "no server"],
)
@pytest.mark.slow
def test_wandb_without_a_server_costs_seconds_and_not_the_run(tmp_path, offline, account, reason):
    """Two trainings: the server is waited for once."""
    words = [sys.executable, "-c", NO_SERVER, str(tmp_path), str(Path(__file__).parent)]
    done = run(words, env=os.environ | account, timeout=120, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    told = (tmp_path / "online" / "said.txt").read_text()
    assert told.count("this run is logged offline") == 1
    assert reason in told
    assert len(list((tmp_path / "online").glob("wandb/offline-run-*/run-*.wandb"))) == 2
    assert float(done.stdout.split("cost")[1]) < 5


def test_a_job_of_a_sweep_is_a_run_of_its_own_in_the_sweep_s_group(command, world, offline):
    words = [word for word in world.sft("logger=wandb", "seed=1,2") if word != "logger=none"]
    outcome = command("-m", *words)
    assert outcome.code == 0, outcome.error
    runs = [r.run for file in outcome.folder.rglob("run-*.wandb") for r in records(file) if r.HasField("run")]
    assert {(one.run_group, one.display_name) for one in runs} == {(outcome.folder.name, "0/sft"), (outcome.folder.name, "1/sft")}


FULL_DISK = """
import csv, os, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_loggers

kind, folder = sys.argv[3], Path(sys.argv[1])
run = test_loggers.run_with(folder, kind=kind)
logger = run.logger("ppo")
row = lambda step: {f"metric_{n}": 1000.0 * step + n for n in range(40)}
for step in range(1, 101):
    if step == 21:
        resource.setrlimit(resource.RLIMIT_FSIZE, (sum(f.stat().st_size for f in (folder / "logs").rglob("*") if f.is_file()) + 500, -1))
    if step == 71:
        resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))
        run.console.file.flush()
    if step == 45:
        logger.log_metrics({**row(step), "late": 1.0}, step=step)
    logger.log_metrics(row(step), step=step)
logger.finalize("success")
print("goes on")
"""


@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_a_full_disk_costs_curves_at_most_and_is_reported_once(tmp_path, kind):
    """The system itself refuses to let files grow; later it allows it again."""
    pytest.importorskip("tensorboard") if kind == "tensorboard" else None
    words = [sys.executable, "-c", FULL_DISK, str(tmp_path), str(Path(__file__).parent), kind]
    done = run(words, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("goes on\n")
    told = (tmp_path / "said.txt").read_text()
    assert told.count("the logger fails, and the training continues") == 1
    if kind == "csv":
        assert "OSError: [Errno 27] File too large" in told
        rows = list(csv.DictReader((tmp_path / "logs" / "ppo" / "metrics.csv").open()))
        # Whole rows, all of them, in their order: those that didn't fit were written when there was room.
        assert [int(row["step"]) for row in rows] == sorted([*range(1, 101), 45])
        assert all(float(row["metric_39"]) == 1000.0 * int(row["step"]) + 39 for row in rows)
        assert [row["late"] for row in rows if row["late"]] == ["1.0"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # of TensorBoard's writer
@pytest.mark.parametrize("kind", ["csv", "tensorboard"])
def test_a_folder_that_is_gone_costs_the_run_nothing(tmp_path, kind):
    run = run_with(tmp_path, kind=kind)
    logger = run.logger("ppo")
    logger.log_metrics({"objective/kl": 1.0}, step=1)
    logger.save()
    shutil.rmtree(tmp_path / "logs")
    (tmp_path / "logs").write_text("a file where the folder was")
    for step in range(2, 31):
        logger.log_metrics({"objective/kl": 1.0}, step=step)
    logger.finalize("success")
    run.publish(SAMPLES, tmp_path / "report.html", {"score": 1.0})
    if kind == "csv":
        assert said(run).count("the logger fails") == 1
        assert "the logger has no samples and no report" in said(run)
    assert run.logger("next") is False, "a logger that can't begin is none"
    assert f"logger={kind} fails to start, and next is not logged" in said(run)


DEAD_SERVICE = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import psutil
import test_loggers

run = test_loggers.run_with(Path(sys.argv[1]), kind="wandb")
logger = run.logger("sft")
logger.log_metrics({"objective/scores": 0.25}, step=1)
children = psutil.Process().children(recursive=True)
for child in children:
    child.kill()
while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
    time.sleep(0.01)
start = time.perf_counter()
for step in range(2, 202):
    logger.log_metrics({"objective/scores": 0.25}, step=step)
logger.finalize("success")
cost = time.perf_counter() - start
run.logger("ppo").log_metrics({"objective/scores": 0.5}, step=1)
run.publish(test_loggers.SAMPLES, run.folder / "report.html", {"score": 1.5})
run.close()
print("cost", cost)
"""


def test_wandb_that_dies_in_the_middle_costs_curves_and_the_next_stage_has_them_again(tmp_path, offline):
    pytest.importorskip("psutil")
    words = [sys.executable, "-c", DEAD_SERVICE, str(tmp_path), str(Path(__file__).parent)]
    done = run(words, timeout=120)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "said.txt").read_text().count("the logger fails, and the training continues") == 1
    assert float(done.stdout.split("cost")[1]) / 200 < 0.05, "seconds a step"
    found = {}
    for file in tmp_path.glob("wandb/offline-run-*/run-*.wandb"):
        read = records(file)
        name = next((r.run.display_name for r in read if r.HasField("run")), "")
        found[name] = [items(r.history.item) for r in read if r.HasField("history")]
    assert any(row.get("objective/scores") == 0.5 for row in found[f"{tmp_path.name}/ppo"])
