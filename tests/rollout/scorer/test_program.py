"""A scorer in a process of its own: real programs that answer, hang, crash and babble."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.rollout.scorer.program import ProgramScorer
from rlhf_lightning.rollout.scoring import checked_scores
from tests.fork_server import adopt_no_orphans

LOOP = """
import json, os, signal, subprocess, sys, time
for line in sys.stdin:
    row = json.loads(line)
    text = row["response"]
"""
LENGTH = LOOP + "    print(len(text))\n"


@pytest.fixture
def program(tmp_path):
    """A scorer of the given Python program."""
    made = []

    def make(text: str, **settings: Any) -> ProgramScorer:
        file = tmp_path / f"score_{len(made)}.py"
        file.write_text(text)
        made.append(ProgramScorer(command=f"{sys.executable} -S {file}", **settings))
        return made[-1]

    yield make
    for scorer in made:
        scorer.close()


@pytest.fixture
def rollout(scored_of):
    """A rollout of the given responses."""
    return lambda *responses: scored_of(torch.ones(len(responses), 2), responses=list(responses))


@pytest.fixture(autouse=True)
def only_own_children() -> Iterator[None]:
    """What a program has started isn't this process's to wait for."""
    with adopt_no_orphans():
        yield


def children() -> set[int]:
    """Processes that have this one as their parent; a killed one that nobody waited for is among them."""
    return {
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[1] == str(os.getpid())
    }


@pytest.mark.parametrize("workers", [1, 2, 9])
def test_a_program_scores_in_order_and_stays(program, rollout, workers):
    counting = LOOP + "    n = globals().get('n', 0) + 1\n    print(len(text) if n < 100 else -1)\n"
    scorer = program(counting, workers=workers)
    texts = ["", "a", "zwölf\nZeilen", "x" * 300_000, '"quoted"']
    first = children()
    assert scorer(rollout(*texts)) == [len(text) for text in texts]
    begun = children() - first
    assert scorer(rollout("abc")) == [3.0]
    assert children() - first == begun
    assert len(begun) == min(workers, len(texts))


def test_it_is_given_prompt_and_response_and_answers_any_number(program, rollout):
    answers = (
        LOOP + "    print({'p': json.dumps(row['prompt'] == 'prompt 0'), 'n': 'null', 'f': '-1.5e-2', 'nan': 'NaN'}[text], end='\\r\\n')\n"
    )
    found = program(answers)(rollout("p", "n", "f", "nan"))
    assert found[:3] == [1.0, None, -0.015]
    assert found[3] != found[3]


def test_it_is_given_the_columns_of_the_row(program, rollout):
    texts = rollout("a", "b")
    texts.columns = {"answer": ["4", None]}
    assert program(LOOP + "    print(len(row['columns']['answer'] or ''))\n")(texts) == [1.0, 0.0]
    assert program(LOOP + "    print(int('columns' in row))\n")(rollout("a")) == [0.0]


def test_a_response_that_it_hangs_on_is_not_scored_and_costs_its_time_alone(program, rollout):
    scorer = program(LOOP + "    time.sleep(60 if 'hang' in text else 0)\n    print(len(text))\n", timeout=1.0)
    assert scorer(rollout("a")) == [1.0]
    start = time.monotonic()
    with pytest.warns(UserWarning, match="gave no answer within 1 s, and is killed and restarted") as told:
        assert scorer(rollout("ab", "hang", "abc", "hang")) == [2.0, None, 3.0, None]
    assert 2.0 < time.monotonic() - start < 50
    assert len(told) == 1


def test_hangs_leave_no_process_and_no_open_file(program, rollout):
    """Nor does what the program itself had started."""
    forking = LOOP + "    if text:\n        subprocess.Popen(['sleep', '77.125'])\n        time.sleep(60)\n    print(0)\n"
    scorer = program(forking, timeout=1.0, workers=2)
    before, files = children(), set(os.listdir("/proc/self/fd"))
    assert scorer(rollout("", "")) == [0.0, 0.0]
    with pytest.warns(UserWarning, match="gave no answer"):
        assert scorer(rollout(*["hang"] * 6)) == [None] * 6
    scorer.close()
    assert children() == before
    assert len(os.listdir("/proc/self/fd")) <= len(files)  # fewer where an earlier test's files were collected meanwhile
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not [command for command in commands if b"77.125" in command]


def test_the_end_of_the_scorer_is_the_end_of_its_programs(program, rollout):
    before = children()
    scorer = ProgramScorer(command="cat")
    with pytest.raises(UserError, match="one line a response"):
        scorer(rollout("x"))
    counts = program(LENGTH)
    counts(rollout("x"))
    assert len(children() - before) == 1
    counts.close()
    assert children() == before
    assert counts(rollout("xyz")) == [3.0]
    scorer = None
    gc.collect()


CRASHES = {
    "exits": ("sys.exit(3)", "ended with code 3"),
    "raises": ("1 / 0", "ZeroDivisionError"),
    "segfaults": ("os.kill(os.getpid(), signal.SIGSEGV)", "ended with code -11"),
    "closes its output": ("os.close(1); time.sleep(60)", "ended with code None"),
}


@pytest.mark.parametrize(("crash", "told"), CRASHES.values(), ids=CRASHES)
def test_a_crash_costs_the_response_and_at_the_start_stops_the_run(program, rollout, crash, told):
    text = LOOP + f"    if 'crash' in text:\n        {crash}\n    print(len(text))\n"
    scorer = program(text)
    with pytest.warns(UserWarning, match=f"(?s)is restarted: the response can't be scored.*{told}|{told}"):
        assert scorer(rollout("a", "crash", "bc", "crash")) == [1.0, None, 2.0, None]
    with pytest.raises(UserError, match=r"rollout_scorer.program.command=.* before its first answer"):
        program(text)(rollout("crash", "a"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("print('good')", "answered 'good' to the response 'a'"),
        ("print('0.5 0.7')", "answered '0.5 0.7'"),
        ("print('[1]')", r"answered '\[1\]'"),
        ("print()", "answered ''"),
        ("print('1\\n2')", r"answered '1\\n2'|wrote '2\\n' without a request"),
        ("sys.stdout.buffer.write(bytes([255, 10]))", "answered"),
        ("sys.stdout.write('x' * 1000000)", "answered 'xxx"),
        ("print('Infinity')", "returned inf for the response 'a'"),
    ],
)
def test_what_is_no_score_stops_the_run(program, rollout, line, message):
    scorer = program(LOOP + f"    {line}\n    sys.stdout.flush()\n")
    with pytest.raises(UserError, match=message):
        checked_scores(scorer, rollout("a", "b"))


def test_a_program_that_never_answers_is_distinguished_from_one_that_hangs_now_and_then(program, rollout):
    with pytest.raises(UserError, match="3 times in a row and never before: does it flush"):
        program(LOOP, timeout=0.3)(rollout("a", "b", "c", "d"))


def test_much_on_stderr_is_read_and_its_end_is_reported(program, rollout):
    noisy = LOOP + "    sys.stderr.write('noise ' * 200_000 + 'the end')\n    print(1 if text else 'no score')\n"
    scorer = program(noisy)
    assert scorer(rollout("a", "b")) == [1.0, 1.0]
    with pytest.raises(UserError, match=r"(?s)no score.*on stderr:\n.*the end$") as caught:
        scorer(rollout(""))
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    ("command", "message"),
    [("", "no program ''"), ("no_such_program -x", "no program 'no_such_program'"), ("a 'b", "No closing quotation")],
)
def test_a_command_that_can_not_be_run_is_refused_at_once(command, message):
    with pytest.raises(ConfigError, match=message):
        ProgramScorer(command=command)
