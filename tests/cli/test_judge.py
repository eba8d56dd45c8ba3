"""The command `judge`: its verdicts, in order, and its errors."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.cli.judge import judge
from rlhf_lightning.errors import UserError
from rlhf_lightning.registry import load_components

pytest.importorskip("sandlock")
PROMPT = 'import math\n\ndef area(r):\n    """Area of a circle.\n\n    >>> area(1)\n    """\n'
CODED = 'def encode(s):\n    return s[::-1]\n\ndef decode(s):\n    """Undo encode."""\n'
ROWS: dict[str, tuple[bool, dict[str, Any]]] = {
    "calls": (
        True,
        {
            "prompt": PROMPT,
            "completion": "    return math.pi * r * r\n",
            "entry_point": "area",
            "calls": [[1], [2]],
            "expected": [3.14159265359, 12.5663706144],
        },
    ),
    "wrong": (
        False,
        {"prompt": PROMPT, "completion": "    return 3 * r * r\n", "entry_point": "area", "calls": [[1]], "expected": [3.14159265359]},
    ),
    "test": (
        True,
        {
            "prompt": PROMPT,
            "completion": "    return math.pi * r * r\n",
            "entry_point": "area",
            "test": "def check(candidate):\n    assert abs(candidate(1) - math.pi) < 1e-6\n    assert area(0) == 0\n",
        },
    ),
    "helper of the prompt": (
        True,
        {
            "prompt": CODED,
            "completion": "    return s[::-1]\n",
            "entry_point": "decode",
            "test": "def check(candidate):\n    assert candidate(encode('abc')) == 'abc'\n",
        },
    ),
    "helper replaced by the completion": (
        False,
        {
            "prompt": CODED,
            "completion": "    return 'abc'\ndef encode(s):\n    return 'x'\n",
            "entry_point": "decode",
            "test": "def check(candidate):\n    assert candidate(encode('abd')) == 'abd'\n",
        },
    ),
    "error expected": (
        True,
        {
            "prompt": "",
            "completion": "def f(x):\n    raise KeyError(x)\n",
            "entry_point": "f",
            "test": "def check(candidate):\n    try:\n        candidate(1)\n        assert False\n    except KeyError:\n        pass\n",
        },
    ),
    "loop ended early": (
        False,
        {
            "prompt": "",
            "completion": "def f(x):\n    raise StopIteration\n",
            "entry_point": "f",
            "test": "def check(candidate):\n    assert all(map(lambda x: candidate(x) == x, [1, 2]))\n",
        },
    ),
    "test without calls": (
        False,
        {"prompt": "", "completion": "def f(x):\n    return x\n", "entry_point": "f", "test": "def check(candidate):\n    pass\n"},
    ),
    "test that exits": (
        False,
        {
            "prompt": "",
            "completion": "def f(x):\n    return x\n",
            "entry_point": "f",
            "test": "def check(candidate):\n    candidate(1)\n    raise SystemExit(0)\n",
        },
    ),
    "test that ends its process": (
        False,
        {
            "prompt": "",
            "completion": "def f(x):\n    return x\n",
            "entry_point": "f",
            "test": "import os\ndef check(candidate):\n    candidate(1)\n    os._exit(0)\n",
        },
    ),
    "test without check": (
        False,
        {"prompt": "", "completion": "def f(x):\n    return x\n", "entry_point": "f", "test": "assert f(1) == 1\n"},
    ),
    "test that imports the program": (
        False,
        {
            "prompt": "",
            "completion": "def f(x):\n    return x\n",
            "entry_point": "f",
            "test": "from solution import f\ndef check(candidate):\n    assert f(1) == 1\n",
        },
    ),
    "body indented otherwise": (
        True,
        {
            "prompt": "def f(x):\n    '''\n    Doc.\n    '''\n",
            "completion": "\treturn x\n",
            "entry_point": "f",
            "calls": [[{"__tuple__": [1]}]],
            "expected": [{"__tuple__": [1]}],
        },
    ),
    "stateful": (
        False,
        {
            "prompt": "",
            "completion": "seen = []\ndef f(x):\n    seen.append(x)\n    return 10 * len(seen)\n",
            "entry_point": "f",
            "calls": [[i] for i in range(8)],
            "expected": [10, 20, 30, 40, 50, 60, 70, 80],
        },
    ),
}


@pytest.fixture(scope="module", autouse=True)
def _options() -> None:
    load_components()


def test_verdicts_are_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "programs.jsonl"
    file.write_text("\n".join(json.dumps(row) for _, row in ROWS.values()))
    judge([str(file)])
    verdicts = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [set(verdict) for verdict in verdicts] == [{"passed", "reason", "seconds"}] * len(ROWS)
    outcomes = {name: verdict["passed"] for name, verdict in zip(ROWS, verdicts, strict=True)}
    assert outcomes == {name: passed for name, (passed, _) in ROWS.items()}, verdicts


GOOD = {"prompt": "", "completion": "f = abs", "entry_point": "f", "calls": [[1]], "expected": [1]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not valid JSON"),
        ("[1]", "an object"),
        ({**GOOD, "completion": 1}, "'completion'"),
        ({**GOOD, "expected": []}, "same length"),
        ({**GOOD, "calls": [1]}, "'calls' 0"),
        ({"completion": "", "entry_point": "f"}, "no tests"),
        ({**GOOD, "calls": None, "expected": None, "test": " "}, "'test'"),
        ({**GOOD, "expected": [{"__set__": 1}]}, "__set__"),
    ],
)
def test_a_bad_line_is_named(row: Any, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{json.dumps(GOOD)}\n\n{row if isinstance(row, str) else json.dumps(row)}\n"))
    with pytest.raises(UserError, match=f"-:3: .*{message}"):
        judge(["-"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "args", [[], ["x.jsonl", "--timeout", "0"], ["x.jsonl", "--sandbox", "docker"], ["missing.jsonl"], ["x", "--i-trust-this-code"]]
)
def test_wrong_arguments(args: list[str]) -> None:
    with pytest.raises(UserError, match="judge: "):
        judge(args)
