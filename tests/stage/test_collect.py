"""stage=collect as a process: links, answers over HTTP, its end, and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.fork_server import ForkedPopen

ROOT = Path(__file__).parents[2]


def start(folder: Path, *words: str, run: str = "run") -> subprocess.Popen:
    command = [
        sys.executable,
        str(ROOT / "train.py"),
        "stage=collect",
        "collect.annotators=[ada,ben]",
        "collect.port=0",
        f"hydra.run.dir={run}",
        *words,
    ]
    log = (folder / f"{run}.log").open("w")
    return ForkedPopen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(ROOT)})


def links(process: subprocess.Popen, file: Path) -> dict[str, str]:
    deadline = time.monotonic() + 60
    while "Ctrl-C" not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.1)
    return dict(re.findall(r"^(\w+): (http\S+)$", file.read_text(), re.MULTILINE))


def answer(link: str, count: int, choice: str = "a") -> int:
    client = httpx.Client(follow_redirects=True)
    page = client.get(link)
    client.headers["x-csrf-token"] = re.search(r'name="csrf" content="(\w+)"', page.text)[1]
    base = link.partition("/t/")[0]
    stored = 0
    for _ in range(count):
        tasks = client.get(f"{base}/api/state").json()["tasks"]
        if not tasks:
            break
        task = tasks[0]
        body = {
            "key": os.urandom(8).hex(),
            "assignment": task["assignment"],
            "version": 0,
            "steps": {"pairwise": {"choice": choice}},
            "seconds": 3,
            "elapsed": 4,
        }
        stored += client.post(f"{base}/api/answer", json=body).json()["stored"]
    return stored


@pytest.mark.slow
def test_a_killed_collection_goes_on_and_ends_when_all_is_judged(tmp_path):
    rows = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(6)]
    (tmp_path / "items.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    words = ["collect.items=items.jsonl"]
    first = start(tmp_path, *words, run="first")
    assert answer(links(first, tmp_path / "first.log")["ada"], 2) == 2
    first.kill()
    first.wait()
    second = start(tmp_path, *words, run="second")
    address = links(second, tmp_path / "second.log")
    assert answer(address["ada"], 3) == 3
    twin = start(tmp_path, *words, run="twin")
    assert twin.wait(60) == 2
    assert "collection.sqlite.lock is in use" in (tmp_path / "twin.log").read_text()
    second.send_signal(signal.SIGINT)
    assert second.wait(30) == 130
    assert len((tmp_path / "second/feedback.jsonl").read_text().splitlines()) == 5
    third = start(tmp_path, *words, run="third")
    assert answer(links(third, tmp_path / "third.log")["ada"], 6) == 1
    assert third.wait(30) == 0
    records = [json.loads(line) for line in (tmp_path / "third/feedback.jsonl").read_text().splitlines()]
    assert len({record["prompt"] for record in records}) == len(records) == 6
    assert json.loads((tmp_path / "third/result.json").read_text())["objective"] == 6
    changed = start(tmp_path, *words, "collect_question=[ranking]", run="changed")
    assert changed.wait(60) == 2
    assert "collect_question" in (tmp_path / "changed.log").read_text()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["collect.annotators=[]"], "collect.annotators"),
        (["collect_question=[]"], "collect_question"),
        (["collect.items=missing.jsonl"], "missing.jsonl"),
        (["collect.items=items.txt"], "jsonl"),
        (["trainer.devices=2"], "trainer.devices"),
        (["collect.gold=missing.jsonl", "--check"], "missing.jsonl"),
    ],
)
def test_a_collection_without_its_parts_is_refused(words, reason, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = command("stage=collect", "collect.annotators=[ada]", "collect.port=0", *words)
    assert outcome.code == 2
    assert reason in outcome.error
