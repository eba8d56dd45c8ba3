"""stage=collect as a process: links, answers over HTTP, its end, and going on."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select

from rlhf_lightning.checkpoint.lock import lock_file
from rlhf_lightning.collect import people
from rlhf_lightning.database.tables import annotator
from rlhf_lightning.flow import Feedback
from tests.fixtures.collection import Collection, serving
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


def open_link(link: str) -> tuple[httpx.Client, str]:
    """A browser in which someone has opened a link, and the page's address."""
    client = httpx.Client(follow_redirects=True)
    client.headers["x-csrf-token"] = re.search(r'name="csrf" content="(\w+)"', client.get(link).text)[1]
    return client, link.partition("/t/")[0]


def answer(link: str, count: int, choice: str = "a") -> int:
    client, base = open_link(link)
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


def test_models_answer_multi_turn_prompts_and_people_judge_every_turn(command, tmp_path, monkeypatch):
    """Chats with a system turn, judged in pairs and by thumbs for each turn of the assistant; a second command draws nothing anew."""
    chats = [
        [{"role": role, "content": text} for role, text in zip(("system", "user", "assistant", "user"), texts, strict=True)]
        for texts in (("Be short.", f"The {thing}:", f" a {thing}.", f"A good {thing}?") for thing in ("lamp", "fan", "rug"))
    ]
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps({"prompt": chat}) + "\n" for chat in chats))
    (tmp_path / "demos.jsonl").write_text("".join(json.dumps({"prompt": chat, "response": "It is a good one."}) + "\n" for chat in chats))
    tasks: list[dict] = []

    def judge_all(project, listener, **settings) -> None:
        """In the place of people: the earlier turn is good, the first response bad and the worse one."""
        listener.close()
        with project.database.read() as connection:
            ada = connection.scalar(select(annotator.c.id).where(annotator.c.name == "ada"))
        with project.database.write() as connection:
            token = people.new_credential(connection, ada, "link", 0.0)
        with serving(Collection(project, {})) as address:
            client, page = open_link(f"{address}/t/{token}")
            while todo := client.get(f"{page}/api/state").json()["tasks"]:
                tasks.append(todo[0])
                steps = {"thumbs/0": {"up": False, "turns": {"2": True}}, "thumbs/1": {"up": True}, "pairwise": {"choice": "b"}}
                stamp = {"key": os.urandom(8).hex(), "assignment": todo[0]["assignment"], "version": 0, "seconds": 3, "elapsed": 4}
                assert client.post(f"{page}/api/answer", json={**stamp, "steps": steps}).status_code == 200

    monkeypatch.setattr("rlhf_lightning.collect.server.serve.serve", judge_all)
    words = ["task=files", f"task.prompts={tmp_path / 'chats.jsonl'}", f"task.demonstrations={tmp_path / 'demos.jsonl'}"]
    words += ["task.test_fraction=0", "backbone=tiny", "backbone.layers=1", "backbone.width=16", "backbone.heads=2", "logger=none"]
    words += ["rollout_sampler.max_new_tokens=8", "collect_question=[pairwise,thumbs]", "collect_question.thumbs.turns=true"]
    words += ["collect.annotators=[ada]", f"collect.database={tmp_path / 'c.sqlite'}", "collect.port=0"]
    outcomes = [command("stage=collect", *words) for _ in range(2)]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes[0].error
    assert sorted(task["prompt"][1]["content"] for task in tasks) == ["The fan:", "The lamp:", "The rug:"]
    assert all(task["prompt"] in chats and len(set(task["responses"])) == 2 for task in tasks)
    records = [Feedback.model_validate_json(line) for line in (outcomes[1].folder / "feedback.jsonl").read_text().splitlines()]
    assert len(records) == 12
    turns = [record for record in records if record.judgement.kind == "thumbs" and len(record.prompt) == 2]
    assert [(turn.prompt[0].role, turn.responses[0].strip()[:2], turn.judgement.up) for turn in turns] == [("system", "a ", True)] * 3
    last = [record for record in records if record.judgement.kind == "thumbs" and len(record.prompt) == 4]
    assert [record.judgement.up for record in last] == [False, True] * 3
    pairs = [record for record in records if record.judgement.kind == "ranking"]
    assert all(pair.judgement.ranks == (2, 1) and pair.positions == (0, 1) for pair in pairs)


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


def test_a_command_that_ends_early_leaves_nothing_open(command, tmp_path, monkeypatch):
    """A locked collection isn't even opened, and the port of a refused command is free again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text('{"prompt": "p", "chosen": "a", "rejected": "b"}\n')
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["stage=collect", "collect.annotators=[ada]", "collect.items=items.jsonl", f"collect.port={port}"]
    with lock_file(tmp_path / "collection.sqlite.lock", ""):
        locked = command(*words)
    assert (locked.code, (tmp_path / "collection.sqlite").exists()) == (2, False)
    assert "collect.database" in locked.error
    refused = command(*words, "collect.guidelines=missing.txt")
    assert refused.code == 2
    assert "collect.guidelines" in refused.error
    socket.create_server(("127.0.0.1", port)).close()
