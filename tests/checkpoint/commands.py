"""Tiny commands of every stage for `kill.py`: run in forked processes, killed, resumed, and compared with undisturbed ones."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fixtures.world import World, write_world

CALLS = {os: ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink"), io: ("open",)}
SMALL = ["checkpoint.every=1", "ppo.self_checks=false"]


def commands(world: Any) -> dict[str, list[str]]:
    """The words of each stage, with the CSV logger where it trains."""
    trained = [*SMALL, "logger=csv"]
    return {
        "sft": world.sft(*trained),
        "reward": world.reward(*trained),
        "reward_features": world.reward("reward_head=features", "reward_feature=[length,punctuation]"),
        "preference": world.preference(*trained),
        "ppo": world.ppo(*trained, "policy_critic=separate"),
        "rounds": world.rounds(*trained, "stage.prompts=8", "task.demonstrations=30"),
        "evaluate": world.evaluate(),
        "inspect": world.inspect(),
        "explain": world.explain(),
        "evaluate_reward": world.evaluate_reward(),
    }


@dataclass
class Command:
    """One process of a command.

    Attributes:
        seconds: after which it is killed; None for not.
        touch: of the disk, at which it is killed; 0 for not.
        touches: of the disk that it made, where it wasn't killed.
    """

    words: list[str]
    seconds: float | None = None
    touch: int = 0
    touches: int = field(default=0, init=False)
    killed: bool = field(default=False, init=False)
    lasted: float = field(default=0.0, init=False)
    error: str = field(default="", init=False)

    def run(self) -> Command:
        """Fork: what is imported stays imported."""
        reading, writing = os.pipe()
        start = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._work(writing)
        os.close(writing)
        if self.seconds is not None:
            time.sleep(self.seconds)
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reading, errors="replace") as pipe:
            printed = pipe.read()
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.lasted, self.killed = time.monotonic() - start, code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL):
            self.error = f"{self.words} ended with {code}: {printed[-3000:]}"
        if counted := re.search(r"^touches (\d+)$", printed, re.MULTILINE):
            self.touches = int(counted[1])
        return self

    def _work(self, pipe: int) -> None:
        os.dup2(pipe, 1)
        os.dup2(pipe, 2)
        made = 0

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def touches(*args: Any, **kwargs: Any) -> Any:
                nonlocal made
                made += 1
                if made == self.touch:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return touches

        for module, names in CALLS.items():
            for name in names:
                setattr(module, name, counted(getattr(module, name)))
        code = 1
        try:
            code = _main(self.words)
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        os.write(1, f"\ntouches {made}\n".encode())
        os._exit(code)


def _main(words: list[str]) -> int:
    import torch
    from hydra._internal.hydra import Hydra
    from hydra.core.global_hydra import GlobalHydra

    from rlhf_lightning.cli.main import main

    torch.set_num_threads(1)
    GlobalHydra.instance().clear()
    setattr(Hydra, "get_mode", lambda *_, **__: None)
    sys.argv = ["train.py", *words]
    sys.stdout = os.fdopen(os.dup(1), "w", buffering=1)
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    try:
        main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def listing(folder: Path) -> list[str]:
    """Names of all files and folders below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


TIMED = ("report.html", "report.json", "seconds.json", "rounds.jsonl", "hydra.yaml", "overrides.yaml", "begun.json")
"""Files with times, or with the words of the last command, in them."""


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file without what is timed."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in TIMED):
        data = path.read_bytes().replace(str(folder).encode(), b"RUN")
        if path.name == "result.json":
            result = json.loads(data)
            data = json.dumps([result["objective"], result["metrics"], sorted(result["seconds"])]).encode()
        elif path.name == "metrics.csv":
            rows = csv.DictReader(io.StringIO(data.decode()))
            kept = [{name: value for name, value in row.items() if value and not name.startswith("perf/")} for row in rows]
            data = json.dumps([row for row in kept if row.keys() > {"step"}]).encode()
        found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


@dataclass
class Undisturbed:
    """What a command leaves that nothing happens to."""

    words: list[str]
    lasted: float
    touches: int
    listing: list[str]
    contents: dict[str, str]


def undisturbed(words: list[str], folder: Path) -> Undisturbed:
    done = Command([*words, f"hydra.run.dir={folder}"]).run()
    if done.error:
        raise RuntimeError(done.error)
    return Undisturbed(words, done.lasted, done.touches, listing(folder), contents(folder))


def killed_and_gone_on_with(kind: str, whole: Undisturbed, folder: Path, draw: random.Random, counts: Counter[str]) -> None:
    """Kill a command at least once, go on with it until it ends, and count what differs."""
    first = [*whole.words, f"hydra.run.dir={folder}"]
    automatic = draw.random() < 0.5
    words, again, kills = [*first, "resume=auto"] if automatic else first, True, 0
    while True:
        at_touch = draw.random() < 0.5
        planned: dict[str, Any] = {}
        if again:
            planned = {"touch": draw.randint(1, whole.touches)} if at_touch else {"seconds": draw.uniform(0, whole.lasted)}
        attempt = Command(words, **planned).run()
        if attempt.error:
            counts["commands that failed"] += 1
            print(f"{kind}: {attempt.error}", file=sys.stderr)
            break
        if attempt.killed:
            kills += 1
            counts["kills"] += 1
            counts[f"kills of {kind}"] += 1
            counts["kills at a touch of the disk"] += at_touch
            again = draw.random() < 1 / 3
            if not automatic and (folder / "config.yaml").is_file():
                words = [f"resume={folder}"]
            continue
        if kills:
            break
        shutil.rmtree(folder)  # it was over before it was to be killed
    counts["runs"] += 1
    same_names, same_contents = listing(folder) == whole.listing, contents(folder) == whole.contents
    counts["runs with the listing of an undisturbed one"] += same_names
    counts["runs with bitwise the same contents"] += same_contents
    if not same_names:
        print(f"{kind}: {sorted(set(listing(folder)) ^ set(whole.listing))}", file=sys.stderr)
    elif not same_contents:
        left = contents(folder)
        print(f"{kind}: {[name for name in left if left[name] != whole.contents[name]]}", file=sys.stderr)


def make_world(files: Path) -> Any:
    """The tests' world: files, a policy and a reward model, made in forked processes."""
    files.mkdir()
    write_world(files)
    world = World(files, files / "sft" / "policy", files / "reward" / "reward_model")
    for stage, words in (("sft", world.sft("backbone.positions=64", "sft.epochs=2")), ("reward", world.reward())):
        done = Command([*words, f"hydra.run.dir={files / stage}"]).run()
        if done.error:
            raise RuntimeError(done.error)
    return world
