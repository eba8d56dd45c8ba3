"""Load on a collection: annotators over HTTP, with kills of the server; no answer lost, none twice.

    python benchmarks/collect.py                                  # 50 annotators, 20,000 answers, SQLite
    python benchmarks/collect.py --url postgresql://USER@HOST/NAME
    python benchmarks/collect.py --answers 2000 --items 20000
    python benchmarks/collect.py --answers 5000 --kills 100

Each annotator answers, waits `--think` seconds on average (exponential) and goes on: by default 50 people at 0.5 s, 100 answers a second
at most. Every 20th time the page is loaded anew. A lost connection is retried with the same key. The manager's page is read every second.
Prints the answers stored, lost and doubled; the percentiles of the milliseconds of an answer (which brings the next item), of the page's
first items and of the manager's figures; the milliseconds of CPU for each answer; and the client's share of a core, which must be small.
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
from typing import Any

import numpy as np
from sqlalchemy import func, select, text

from rlhf_lightning.collect import people
from rlhf_lightning.collect.assignment import Rules
from rlhf_lightning.collect.items import Item, add_items
from rlhf_lightning.collect.project import Project
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.server.serve import listen, serve
from rlhf_lightning.database.connection import Database
from rlhf_lightning.database.tables import answer, assignment, item

STATE, ANSWER, MANAGE = "/api/state", "/api/answer", "/api/manage"
RELOAD = 20
ARRIVAL_SECONDS = 5.0
"""In which all people open their links, at random."""
HERTZ = os.sysconf("SC_CLK_TCK")


class Browser:
    """One connection of HTTP/1.1 that stays open, with its cookie and CSRF token.

    Own code rather than httpx, which takes more CPU for a request than the server.
    """

    def __init__(self, port: int, seconds: dict[str, list[float]]) -> None:
        self.port, self.seconds = port, seconds
        self.headers, self.retries = "", 0
        self.stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def enter(self, token: str) -> None:
        """Open a link and its page."""
        _, head, _ = await self.request("GET", f"/t/{token}")
        self.headers = f"cookie: {re.search('set-cookie: ([^;]+)', head)[1]}\r\n"
        _, _, page = await self.request("GET", "/")
        csrf = re.search(rb'name="csrf" content="(\w+)"', page)
        self.headers += f"x-csrf-token: {csrf[1].decode()}\r\n" if csrf else ""

    async def request(self, method: str, path: str, payload: Any = None) -> tuple[int, str, bytes]:
        """Status, head and body; repeated until the server answers."""
        body = b"" if payload is None else json.dumps(payload).encode()
        message = f"{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n{self.headers}content-length: {len(body)}\r\n\r\n".encode() + body
        while True:
            start = time.perf_counter()
            try:
                reply = await self.send(message)
            except (OSError, asyncio.IncompleteReadError):
                self.stream = None
                self.retries += 1
                await asyncio.sleep(0.2)
                continue
            self.seconds.setdefault(path, []).append(time.perf_counter() - start)
            return reply

    async def send(self, message: bytes) -> tuple[int, str, bytes]:
        """One request on the open connection, or on a new one."""
        if self.stream is None:
            self.stream = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.stream
        writer.write(message)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        body = await reader.readexactly(int(re.search(r"content-length: (\d+)", head)[1]))
        return int(head[9:12]), head, body


class Load:
    """The clients' side: acknowledged keys and latencies."""

    def __init__(self, port: int, think: float, target: int) -> None:
        self.port, self.think, self.target = port, think, target
        self.acknowledged: list[str] = []
        self.seconds: dict[str, list[float]] = {}
        self.refused: list[str] = []
        self.browsers: list[Browser] = []

    def browser(self) -> Browser:
        """A new one."""
        self.browsers.append(Browser(self.port, self.seconds))
        return self.browsers[-1]

    async def annotate(self, token: str, number: int) -> None:
        """One annotator until the target is reached or nothing is left."""
        draw, browser, tasks, answers = random.Random(number), self.browser(), [], 0
        await asyncio.sleep(draw.uniform(0, ARRIVAL_SECONDS))
        await browser.enter(token)
        while len(self.acknowledged) < self.target:
            if not answers % RELOAD or not tasks:
                tasks = json.loads((await browser.request("GET", STATE))[2])["tasks"]
            if not tasks:
                return
            task = tasks[0]
            key = f"{number}-{task['assignment']}"
            body = {"key": key, "assignment": task["assignment"], "version": task["version"], "seconds": 2, "elapsed": 3}
            status, _, reply = await browser.request("POST", ANSWER, body | {"steps": {"pairwise": {"choice": draw.choice("ab")}}})
            answers += 1
            if status != 200:
                self.refused.append(f"{status} {reply.decode()}")
                tasks = []
                continue
            self.acknowledged.append(key)
            tasks = json.loads(reply)["tasks"]
            await asyncio.sleep(draw.expovariate(1 / self.think) if self.think else 0)

    async def manage(self, token: str) -> None:
        """The manager's page, every second."""
        browser = self.browser()
        await browser.enter(token)
        while True:
            await browser.request("GET", MANAGE)
            await asyncio.sleep(1)


class Processor:
    """Seconds of CPU of processes, those that have ended included."""

    def __init__(self) -> None:
        self.of_process: dict[int, float] = {}

    def read(self, pid: int) -> None:
        """Update a process's seconds while it runs."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return
        self.of_process[pid] = (int(fields[11]) + int(fields[12])) / HERTZ

    def milliseconds(self, answers: int) -> float:
        """For each answer."""
        return round(1000 * sum(self.of_process.values()) / max(answers, 1), 2)


def prepare(location: str, annotators: int, count: int) -> tuple[str, list[str]]:
    """A collection of items; the tokens of the manager and of the annotators."""
    database = Database(location)
    with database.write() as connection:
        items = [Item(f"prompt {i} {time.time()}", (f"first {i} " * 20, f"second {i} " * 20)) for i in range(count)]
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


async def watch(server: list[subprocess.Popen[bytes]], url: str, servers: Processor, backends: Processor) -> None:
    """Read the CPU of the server, and of PostgreSQL's processes if it runs on this machine."""
    database = Database(url) if url else None
    while True:
        servers.read(server[0].pid)
        if database is not None:
            with database.read() as connection:
                for pid in connection.scalars(text("SELECT pid FROM pg_stat_activity WHERE datname = current_database()")):
                    backends.read(pid)
        await asyncio.sleep(1)


async def run(arguments: argparse.Namespace, location: str) -> tuple[Load, dict[str, Any]]:
    """Drive the load, killing the server meanwhile; returns it with the CPU taken."""
    manager, tokens = prepare(location, arguments.annotators, arguments.items or arguments.answers)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    server = [start_server(location, port)]
    load, servers, backends = Load(port, arguments.think, arguments.answers), Processor(), Processor()
    await load.browser().request("GET", "/")  # until the server has started
    servers.read(server[0].pid)
    at_start, client, start = sum(servers.of_process.values()), time.process_time(), time.perf_counter()
    background = [asyncio.create_task(load.manage(manager)), asyncio.create_task(watch(server, arguments.url, servers, backends))]
    work = asyncio.gather(*(load.annotate(token, i) for i, token in enumerate(tokens)))
    draw, kills = random.Random(1), 0
    while kills < arguments.kills:
        before = len(load.acknowledged)
        while len(load.acknowledged) == before and not work.done():  # until the server has started
            await asyncio.sleep(0.05)
        await asyncio.sleep(draw.random())
        if work.done():
            break
        server[0].send_signal(signal.SIGKILL)
        server[0].wait()
        server[0] = start_server(location, port)
        kills += 1
    await work
    servers.read(server[0].pid)
    wall, answers = time.perf_counter() - start, len(load.acknowledged)
    for task in background:
        task.cancel()
    server[0].terminate()
    server[0].wait()
    servers.of_process[0] = -at_start
    share = (time.process_time() - client) / wall
    return load, {
        "kills": kills, "seconds": round(wall, 1), "answers a second": round(answers / wall, 1),
        "server CPU ms": servers.milliseconds(answers), "PostgreSQL CPU ms": backends.milliseconds(answers),
        "client's share of a core": round(share, 2),
    }  # fmt: skip


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
        "refused": len(load.refused), "retries": sum(browser.retries for browser in load.browsers),
    }  # fmt: skip


def quantiles(seconds: list[float]) -> dict[str, float]:
    """Percentiles in milliseconds."""
    return {f"p{q}": round(1000 * float(np.percentile(seconds, q)), 1) for q in (50, 95, 99)} if seconds else {}


def main() -> None:
    """Parse the arguments; serve, or drive the load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--answers", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=0, help="0: as many as answers")
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
        load, cost = asyncio.run(run(arguments, location))
        result = check(load, location)
    names = {"answer ms": ANSWER, "next item ms": STATE, "manager ms": MANAGE}
    result |= {name: quantiles(load.seconds.get(path, [])) for name, path in names.items()} | cost
    result |= {"cores": os.cpu_count(), "load average": os.getloadavg()}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
