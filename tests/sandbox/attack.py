"""The attacks, against the command `judge`."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.cli.judge import judge
from rlhf_lightning.registry import load_components
from tests.sandbox.attacks import ATTACKS

HONEST = "def f(x):\n    return ANSWERS[x]\n"
CHECK_ONLY = {
    "error as value",
    "stop iteration",
    "sys.exit",
    "exit 0",
    "true",
    "eq str",
    "eq always true",
    "NaN",
    "generator",
    "frame walk",
}
"""Attacks that also run against a test that asserts: what they try depends on it."""


def processes_of_sandboxes() -> list[str]:
    """Command lines of sandboxes of this process that are running."""
    lines = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().decode(errors="replace")
        except OSError:
            continue
        if f'"judge": {os.getpid()},' in line:
            lines.append(line)
    return lines


def write_rows(file: Path, sources: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in sources))


def check_attacks(sandbox: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Run all attacks in a sandbox: none passes, none leaves anything."""
    load_components()
    monkeypatch.setenv("SECRET_ANSWER", "key-environment")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "secret").write_text("key-file")
    answers = [f"key-{secrets.token_hex(8)}" for _ in range(3)]
    calls = {"calls": [[0], [1], [2]], "expected": answers}
    check = {"test": "def check(candidate):\n" + "".join(f"    assert candidate({i}) == {answer!r}\n" for i, answer in enumerate(answers))}
    honest = HONEST.replace("ANSWERS", repr(answers))
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        rows: list[dict[str, Any]] = []
        for name, source in ATTACKS.items():
            text = source.replace("FOLDER", str(tmp_path)).replace("PORT", str(server.getsockname()[1])).replace("JUDGE", str(os.getpid()))
            rows.append({"name": name, "prompt": "", "completion": text, "entry_point": "f", **calls})
            if name in CHECK_ONLY:
                rows.append({"name": f"{name} (check)", "prompt": "", "completion": text, "entry_point": "f", **check})
        rows += [{"name": "honest", "prompt": "", "completion": honest, "entry_point": "f", **tests} for tests in (calls, check)]
        file = tmp_path / "programs.jsonl"
        write_rows(file, rows)
        before = sorted(entry.name for entry in tmp_path.iterdir())
        with suppress(SystemExit):  # exit code 3: the machine was too busy for one of them
            judge([str(file), "--sandbox", sandbox, "--timeout", "0.25", "--workers", "2"])
        end = time.monotonic()
        with pytest.raises(BlockingIOError):
            server.accept()
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    passed = [row["name"] for row, verdict in zip(rows, verdicts, strict=True) if verdict["passed"]]
    assert passed == ["honest", "honest"], [(row["name"], verdict) for row, verdict in zip(rows, verdicts, strict=True)]
    assert len(ATTACKS) >= 60
    # Nothing is left: no process, no file.
    while processes_of_sandboxes() and time.monotonic() < end + 1:
        time.sleep(0.02)
    assert processes_of_sandboxes() == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == before
    assert not any(Path(folder, "rlhf_attack").exists() for folder in ("/tmp", "/dev/shm", "."))
