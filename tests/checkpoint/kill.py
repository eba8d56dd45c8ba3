"""`python tests/checkpoint/kill.py --kills 200`: tiny trainings and commands of every stage are killed at random, resumed, and compared.

Every training and command is killed (SIGKILL) at least once: at a time drawn evenly from its length, or at a touch of the disk (of
trainings within a save, of commands anywhere). Then it is resumed, now and then killed again, until it ends. A quarter of the trainings
has TMPDIR on another file system. After each kill of a training the newest checkpoint must be readable, and not older than the last one
that the dead process had called saved; at the end all of the state must be bitwise that of a training without a kill. A command
(commands.py) must leave the listing of an undisturbed one, and bitwise the same contents but for times. Ends after the run in which the
kills are reached; prints the counts; exits with 1 if one of them is not what it must be.
"""

from __future__ import annotations

import argparse
import importlib.util
import io
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rlhf_lightning.checkpoint.store import CheckpointStore

ELSEWHERE = Path("/dev/shm")
CALLS = {os: ("open", "fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "scandir"), io: ("open",)}


def load_sibling(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(f"checkpoint_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@dataclass
class Attempt:
    """One process of a training.

    Attributes:
        seconds: after which it is killed; None for not.
        touch: of the disk within saves, at which it is killed; 0 for not.
    """

    kind: str
    folder: Path
    every: int
    keep: int
    seconds: float | None = None
    touch: int = 0
    temporary: Path | None = None
    saved: int = field(default=0, init=False)
    left: dict[str, str] | None = field(default=None, init=False)
    killed: bool = field(default=False, init=False)
    lasted: float = field(default=0.0, init=False)

    def run(self, trainings: Any) -> Attempt:
        """Fork: what is imported stays imported."""
        reading, writing = os.pipe()
        begun = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(reading)
            self._train(trainings, writing)
        os.close(writing)
        if self.seconds is not None:
            time.sleep(self.seconds)
            os.kill(child, signal.SIGKILL)
        with os.fdopen(reading) as pipe:
            said = [json.loads(line) for line in pipe.read().splitlines() if line.endswith("}")]
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.lasted, self.killed = time.monotonic() - begun, code == -signal.SIGKILL
        if code not in (0, -signal.SIGKILL):
            raise RuntimeError(f"{self} ended with {code}")
        for message in said:
            self.saved = max(self.saved, message.get("saved", 0))
            self.left = message.get("left", self.left)
        return self

    def _train(self, trainings: Any, pipe: int) -> None:
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        if self.temporary is not None:
            tempfile.tempdir = str(self.temporary)
            os.environ["TMPDIR"] = str(self.temporary)
        torch.set_num_threads(1)
        self._watch_saves(pipe)
        try:
            left = trainings.trained(self.kind, self.folder, every=self.every, keep=self.keep)
            os.write(pipe, (json.dumps({"left": left}) + "\n").encode())
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    def _watch_saves(self, pipe: int) -> None:
        """Say each save when it is done, and die at the chosen touch of the disk."""
        begin, commit, within, made = CheckpointStore.begin, CheckpointStore.commit, False, 0

        def began(store: CheckpointStore, step: int) -> Path:
            nonlocal within
            within = True
            return begin(store, step)

        def committed(store: CheckpointStore, step: int, about: Any) -> Path:
            nonlocal within
            done = commit(store, step, about)
            within = False
            os.write(pipe, (json.dumps({"saved": step}) + "\n").encode())
            return done

        def counted(real: Callable[..., Any]) -> Callable[..., Any]:
            def touches(*args: Any, **kwargs: Any) -> Any:
                nonlocal made
                made += within
                if within and made == self.touch:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*args, **kwargs)

            return touches

        setattr(CheckpointStore, "begin", began)
        setattr(CheckpointStore, "commit", committed)
        if self.touch:
            for module, names in CALLS.items():
                for name in names:
                    setattr(module, name, counted(getattr(module, name)))


def killed_and_resumed(
    trainings: Any, kind: str, seconds: float, folder: Path, draw: random.Random, counts: Counter[str]
) -> dict[str, str]:
    """What a training leaves that is killed at least once."""
    about = {"every": draw.randint(1, 3), "keep": draw.randint(1, 2), "temporary": ELSEWHERE if draw.random() < 0.25 else None}
    again = True
    while True:
        in_save = draw.random() < 0.4
        planned = {"touch": draw.randint(1, 80)} if in_save else {"seconds": draw.uniform(0, seconds)}
        attempt = Attempt(kind, folder, **about, **(planned if again else {})).run(trainings)  # type: ignore[arg-type]
        if not attempt.killed:
            if not counts["of this one"]:
                shutil.rmtree(folder)  # it was over before it was to be killed
                continue
            assert attempt.left is not None
            return attempt.left
        counts["of this one"] += 1
        counts["kills"] += 1
        counts["kills within a save"] += in_save
        counts["kills with TMPDIR on another file system"] += about["temporary"] is not None
        try:
            newest = CheckpointStore(folder).newest()
        except Exception as error:
            print(f"{kind}: {error}", file=sys.stderr)
            counts["unreadable newest checkpoints"] += 1
            shutil.rmtree(folder)
            continue
        counts["steps lost beyond the last checkpoint"] += max(0, attempt.saved - (newest.step if newest else 0))
        again = draw.random() < 1 / 3


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--kills", type=int, default=200)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--kinds", nargs="*", help="of trainings (train_sft ...) and of commands (sft, reward ...)")
    words.add_argument("--scratch", help="the folder for all files; default: TMPDIR")
    given = words.parse_args()
    # forked processes have what is imported here
    import rlhf_lightning.cli.main
    import rlhf_lightning.report.page
    import rlhf_lightning.tracking.loggers

    rlhf_lightning.cli.main.load_components()
    trainings, commands, draw = load_sibling("trainings"), load_sibling("commands"), random.Random(given.seed)
    counts = Counter[str]()
    with tempfile.TemporaryDirectory(dir=given.scratch) as top:
        of_stages = commands.commands(commands.make_world(Path(top) / "world"))
        kinds = given.kinds or [*(f"train_{kind}" for kind in sorted(trainings.KINDS)), *of_stages]
        wholes: dict[str, Any] = {}
        for kind in kinds:
            folder = Path(top) / f"whole_{kind}"
            if kind in of_stages:
                wholes[kind] = commands.undisturbed(of_stages[kind], folder)
            else:
                wholes[kind] = Attempt(kind.removeprefix("train_"), folder, every=1, keep=1).run(trainings)
        number = 0
        while counts["kills"] < given.kills:
            kind, folder = kinds[number % len(kinds)], Path(top) / str(number)
            number += 1
            if kind in of_stages:
                commands.killed_and_gone_on_with(kind, wholes[kind], folder, draw, counts)
            else:
                one_training(trainings, kind.removeprefix("train_"), wholes[kind], folder, draw, counts)
            shutil.rmtree(folder, ignore_errors=True)
            print(f"{number} {kind}: {counts['kills']} kills", file=sys.stderr, flush=True)
    print(json.dumps({**{name: 0 for name in MUST_BE_ZERO}, **counts}, indent=1))
    same = all(counts[total] == counts[part] for total, part in MUST_BE_ALL)
    sys.exit(int(not same or any(counts[name] for name in MUST_BE_ZERO)))


MUST_BE_ZERO = ("unreadable newest checkpoints", "steps lost beyond the last checkpoint", "files left over", "commands that failed")
MUST_BE_ALL = (
    ("trainings", "trainings that left bitwise the same"),
    ("runs", "runs with the listing of an undisturbed one"),
    ("runs", "runs with bitwise the same contents"),
)


def one_training(trainings: Any, kind: str, whole: Attempt, folder: Path, draw: random.Random, counts: Counter[str]) -> None:
    counts["of this one"] = 0
    left = killed_and_resumed(trainings, kind, whole.lasted, folder, draw, counts)
    del counts["of this one"]
    counts["trainings"] += 1
    counts["trainings that left bitwise the same"] += left == whole.left
    counts["files left over"] += sum(path.name.startswith(".") for path in folder.iterdir())


if __name__ == "__main__":
    main()
