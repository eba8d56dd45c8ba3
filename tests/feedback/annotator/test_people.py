"""feedback_annotator=people: rounds wait for answers over HTTP, and are killed and resumed without asking twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from rlhf_lightning.collect.batches import batch_feedback, batch_state, close_batch, finish_batch, publish
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.settings import CollectSettings
from rlhf_lightning.database.connection import Database
from rlhf_lightning.database.tables import annotator, answer, assignment, item
from rlhf_lightning.flow import Feedback, Ranking
from tests.fork_server import ForkedPopen

ROOT = Path(__file__).parents[3]


@pytest.fixture
def connection(tmp_path):
    database = Database(str(tmp_path / "collection.sqlite"))
    with database.write() as connection:
        connection.execute(annotator.insert().values(id=1, name="ada", role="annotator", created=0.0))
        yield connection
    database.close()


def store_answer(connection, number: int, name: str) -> None:
    record = Feedback(prompt="p", responses=("a", "b"), judgement=Ranking(ranks=(0, 1)), annotator=name).model_dump(mode="json")
    values = {
        "id": number,
        "item": number,
        "annotator": 1,
        "display_order": [0, 1],
        "state": "answered",
        "leased_until": 0.0,
        "created": 0.0,
    }
    connection.execute(assignment.insert().values(**values, answer=name))
    row = {"version": 0, "steps": {}, "records": [record], "seconds": 1.0, "elapsed": 1.0, "time": 0.0}
    connection.execute(answer.insert().values(key=name, assignment=number, **row))
    connection.execute(item.update().where(item.c.id == number).values(answered=1, free=0))


def test_a_batch_is_published_once_and_its_answers_stay_as_they_were_when_it_closed(connection):
    items = [Item(f"p{i}", ("a", "b")) for i in range(3)]
    for now in (5.0, 9.0):
        publish(connection, "key", items, CollectSettings(), 0, now)
    store_answer(connection, 2, "x")
    state = batch_state(connection, "key")
    assert (state.answers, state.slots, state.opened, state.is_finished) == (1, 3, 5.0, False)
    assert finish_batch(connection)
    assert batch_state(connection, "key").is_finished
    close_batch(connection, "key")
    feedback = batch_feedback(connection, "key")
    store_answer(connection, 1, "late")
    close_batch(connection, "key")
    assert batch_feedback(connection, "key") == feedback
    assert [record.annotator for record in feedback] == ["x"]
    assert batch_state(connection, "key").slots == 1, "what nobody answered is withdrawn"
    assert not finish_batch(connection)


def start(folder: Path, words: list[str], log: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "train.py"), *words]
    stream = (folder / log).open("w")
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return ForkedPopen(command, cwd=folder, stdout=stream, stderr=subprocess.STDOUT, env=environment)


def wait_for(file: Path, text: str, process: subprocess.Popen) -> str:
    deadline = time.monotonic() + 120
    while text not in file.read_text():
        assert process.poll() is None, file.read_text()
        assert time.monotonic() < deadline, file.read_text()
        time.sleep(0.1)
    return file.read_text()


class ScriptedAnnotator:
    """Answers over HTTP: the longer response is better."""

    def __init__(self, link: str) -> None:
        self.client, self.base = httpx.Client(follow_redirects=True), link.partition("/t/")[0]
        self.client.headers["x-csrf-token"] = re.search(r'name="csrf" content="(\w+)"', self.client.get(link).text)[1]
        self.count = 0

    def answer(self, most: int = 1000) -> int:
        """Answer up to `most` items; returns how many there were."""
        for turn in range(most):
            tasks = self.client.get(f"{self.base}/api/state").json()["tasks"]
            if not tasks:
                return turn
            a, b = (len(text) for text in tasks[0]["responses"])
            body = {
                "key": os.urandom(8).hex(),
                "assignment": tasks[0]["assignment"],
                "version": tasks[0]["version"],
                "seconds": 3,
                "elapsed": 4,
            }
            body["steps"] = {"pairwise": {"choice": "a" if a > b else "b" if b > a else "tie"}}
            assert self.client.post(f"{self.base}/api/answer", json=body).json()["stored"]
            self.count += 1
        return most


@pytest.mark.slow
def test_rounds_the_server_and_annotators_are_three_processes(world, tmp_path):
    database = ["collect.database=people.sqlite"]
    server = start(
        tmp_path, ["stage=collect", "collect.items=database", "collect.annotators=[ada]", "collect.port=0", *database], "server.log"
    )
    rounds = [
        *world.rounds("feedback_annotator=people", "feedback_annotator.people.serve=false", "stage.target='win_rate>=0.99'", *database),
        "stage.prompts=8", "stage.comparisons=6", "hydra.run.dir=run", "resume=auto",
    ]  # fmt: skip
    try:
        log = wait_for(tmp_path / "server.log", "Ctrl-C", server)
        ada = ScriptedAnnotator(dict(re.findall(r"^(\w+): (http\S+)$", log, re.MULTILINE))["ada"])
        first = start(tmp_path, rounds, "first.log")
        wait_for(tmp_path / "first.log", "0 of 16 judgements", first)
        ada.answer(5)
        first.kill()
        first.wait()
        second = start(tmp_path, rounds, "second.log")
        while second.poll() is None:
            ada.answer()
            time.sleep(0.1)
        assert second.wait() == 0, (tmp_path / "second.log").read_text()
    finally:
        server.terminate()
        server.wait()
    rows = [json.loads(line) for line in (tmp_path / "run/round_1/feedback.jsonl").read_text().splitlines()]
    assert len(rows) == 16
    assert all(len(r["responses"][r["judgement"]["ranks"].index(1)]) == max(map(len, r["responses"])) for r in rows)
    assert ada.count == 16 + len((tmp_path / "run/round_1/comparison.jsonl").read_text().splitlines())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "collect.annotators"),
        (["collect_question=[]"], "collect_question"),
        (["collect_question=[thumbs]", "collect.open_link=true", "stage.target='win_rate>=0.6'"], "ranking"),
    ],
)
def test_people_and_questions_are_needed(words, reason, command, world):
    outcome = command(*world.rounds("feedback_annotator=people", *words, "--check"))
    assert outcome.code == 2
    assert reason in outcome.error
