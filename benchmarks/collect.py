"""Load on a collection: annotators over HTTP, with kills of the server; no answer lost, none twice.

    python benchmarks/collect.py                                  # 50 annotators, 20,000 answers, SQLite
    python benchmarks/collect.py --url postgresql://USER@HOST/NAME
    python benchmarks/collect.py --answers 5000 --kills 100

Each annotator answers, waits `--think` seconds on average (exponential), and goes on; a lost connection is retried with the same key.
Prints
the answers stored, lost and doubled, and the 50th, 95th and 99th percentile of the seconds of an answer and of the manager's figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from sqlalchemy import func, select

from rlhf_lightning.collect import people
from rlhf_lightning.collect.assignment import Rules
from rlhf_lightning.collect.items import Item, add_items
from rlhf_lightning.collect.project import Project
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.server.serve import listen, serve
from rlhf_lightning.database.connection import Database
from rlhf_lightning.database.tables import answer, assignment, item


class Load:
    """The clients' side: acknowledged keys and latencies."""

    def __init__(self, address: str, think: float, target: int) -> None:
        self.address, self.think, self.target = address, think, target
        self.acknowledged: list[str] = []
        self.seconds: list[float] = []
        self.manager_seconds: list[float] = []
        self.refused: list[str] = []
        self.retries = 0

    async def annotate(self, token: str, number: int) -> None:
        """One annotator until the target is reached or nothing is left."""
        draw = random.Random(number)
        async with httpx.AsyncClient(base_url=self.address, follow_redirects=True, timeout=30) as client:
            page = await self.retry(client, "GET", f"/t/{token}")
            client.headers["x-csrf-token"] = re.search(r'name="csrf" content="(\w+)"', page.text)[1]
            tasks = (await self.retry(client, "GET", "/api/state")).json()["tasks"]
            while tasks and len(self.acknowledged) < self.target:
                task = tasks[0]
                key = f"{number}-{task['assignment']}"
                body = {"key": key, "assignment": task["assignment"], "version": task["version"], "seconds": 2, "elapsed": 3}
                reply = await self.retry(client, "POST", "/api/answer", json={**body, "steps": {"pairwise": {"choice": draw.choice("ab")}}})
                if reply.status_code != 200:
                    self.refused.append(f"{reply.status_code} {reply.text}")
                    tasks = (await self.retry(client, "GET", "/api/state")).json()["tasks"]
                    continue
                self.acknowledged.append(key)
                tasks = reply.json()["tasks"]
                await asyncio.sleep(draw.expovariate(1 / self.think) if self.think else 0)

    async def manage(self, token: str) -> None:
        """The manager's page, every two seconds."""
        async with httpx.AsyncClient(base_url=self.address, follow_redirects=True, timeout=30) as client:
            await self.retry(client, "GET", f"/t/{token}")
            while True:
                start = time.perf_counter()
                await self.retry(client, "GET", "/api/manage")
                self.manager_seconds.append(time.perf_counter() - start)
                await asyncio.sleep(2)

    async def retry(self, client: httpx.AsyncClient, method: str, path: str, **content: object) -> httpx.Response:
        """A request that is repeated until the server answers."""
        while True:
            start = time.perf_counter()
            try:
                reply = await client.request(method, path, **content)
            except httpx.TransportError:
                self.retries += 1
                await asyncio.sleep(0.2)
                continue
            if path == "/api/answer":
                self.seconds.append(time.perf_counter() - start)
            return reply


def prepare(location: str, annotators: int, answers: int) -> tuple[str, list[str]]:
    """A collection with an item for each answer; the tokens of the manager and of the annotators."""
    database = Database(location)
    with database.write() as connection:
        items = [Item(f"prompt {i} {time.time()}", (f"first {i} " * 20, f"second {i} " * 20)) for i in range(answers)]
        add_items(connection, items, overlap=1, overlap_share=0, seed=0)
        tokens = []
        for name in ["manager", *(f"person {i} {time.time()}" for i in range(annotators))]:
            person = people.add_person(connection, name, "manager" if name == "manager" else "annotator", 0.0)
            tokens.append(people.new_credential(connection, person, "link", 0.0))
    database.close()
    return tokens[0], tokens[1:]


def start_server(location: str, port: int) -> subprocess.Popen[bytes]:
    """The server in a process of its own."""
    return subprocess.Popen([sys.executable, __file__, "--serve", location, "--port", str(port)])


async def run(arguments: argparse.Namespace, location: str) -> Load:
    """Drive the load, killing the server meanwhile."""
    manager, tokens = prepare(location, arguments.annotators, arguments.answers)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = start_server(location, port)
    load = Load(f"http://127.0.0.1:{port}", arguments.think, arguments.answers)
    watch = asyncio.create_task(load.manage(manager))
    work = asyncio.gather(*(load.annotate(token, i) for i, token in enumerate(tokens)))
    draw = random.Random(1)
    for _ in range(arguments.kills):
        await asyncio.sleep(2.0 + draw.random())
        if work.done():
            break
        server.send_signal(signal.SIGKILL)
        server.wait()
        server = start_server(location, port)
    await work
    watch.cancel()
    server.terminate()
    server.wait()
    return load


def check(load: Load, location: str) -> dict[str, object]:
    """Compare the acknowledged answers with those stored."""
    database = Database(location)
    with database.read() as connection:
        stored = list(connection.scalars(select(answer.c.key)))
        per_assignment = select(func.count()).select_from(answer).group_by(answer.c.assignment)
        most = max(connection.scalars(per_assignment), default=0)
        beyond = connection.scalar(select(func.count()).select_from(item).where(item.c.answered > item.c.needed))
        states = {row[0]: row[1] for row in connection.execute(select(assignment.c.state, func.count()).group_by(assignment.c.state))}
    return {
        "acknowledged": len(load.acknowledged), "stored": len(stored), "lost": len(set(load.acknowledged) - set(stored)),
        "doubled": len(stored) - len(set(stored)) + (most > 1), "items beyond their number": beyond, "states": states,
        "refused": len(load.refused), "retries": load.retries,
    }  # fmt: skip


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {f"p{q}": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95, 99)} if seconds else {}


def main() -> None:
    """Parse the arguments; serve, or drive the load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--think", type=float, default=0.5)
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--url", default="")
    parser.add_argument("--serve", default="")
    parser.add_argument("--port", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.serve:
        project = Project(Database(arguments.serve), {"pairwise": PairwiseQuestion()}, Rules(gold_share=0))
        serve(project, listen("127.0.0.1", arguments.port), https=False, root_path="", report=lambda state: None)
        return
    with tempfile.TemporaryDirectory() as folder:
        location = arguments.url or str(Path(folder) / "load.sqlite")
        start = time.perf_counter()
        load = asyncio.run(run(arguments, location))
        wall = time.perf_counter() - start
        result = check(load, location)
    result |= {
        "answer ms": quantiles(load.seconds),
        "manager ms": quantiles(load.manager_seconds),
        "seconds": round(wall, 1),
        "cores": os.cpu_count(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
