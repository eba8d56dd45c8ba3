"""Programs scored by their tests: shares, held-out halves, what can't be judged."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.isolation.limits import Limits
from rlhf_lightning.judging.judge import Judge
from rlhf_lightning.judging.program import Verdict
from rlhf_lightning.rollout.scorer.code import CodeScorer

pytest.importorskip("sandlock")
PROMPT = "import math\n\ndef f(x):\n"
CALLS, EXPECTED = [[0], [1], [2], [3]], [0, 1, 4, 9]
TEST = "def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(5) == 25\n"
RESPONSES = {
    "    return x * x\n": (1.0, 1.0, 1.0),
    "So:\n```python\ndef f(x):\n    return int(math.pow(x, 2))\n```\n": (1.0, 1.0, 1.0),
    "    return {0: 0, 2: 4}[x]\n": (1.0, 1.0, 0.0),  # a table of the rewarded tests: the held-out ones tell
    "    return x if x < 2 else 0\n": (0.0, 0.5, 0.5),
    "    import os\n    os._exit(0)\n": (0.0, 0.0, 0.0),
    "    retrun x\n": (0.0, 0.0, 0.0),
}
"""By response: its score with reward=all and with reward=fraction, and the fraction of held-out tests."""


@pytest.fixture(scope="module")
def scorers() -> Iterator[tuple[CodeScorer, CodeScorer]]:
    pair = CodeScorer(workers=2), CodeScorer(workers=1, reward="fraction")
    yield pair
    for scorer in pair:
        scorer.close()


def test_scores_count_half_of_the_tests(scored_of, scorers):
    count = len(RESPONSES)
    columns = {"entry_point": ["f"] * count, "calls": [CALLS] * count, "expected": [EXPECTED] * count}
    rollout = scored_of(torch.ones(count, 1), prompts=[PROMPT] * count, responses=list(RESPONSES), columns=columns)
    all_or_nothing, fraction = scorers
    wanted = list(zip(*RESPONSES.values(), strict=True))
    assert (all_or_nothing(rollout), fraction(rollout), fraction.held_out(rollout)) == tuple(map(list, wanted))
    metrics = all_or_nothing.metrics(rollout)
    assert metrics["held_out_tests"].tolist() == [float(value == 1) for value in wanted[2]]
    assert metrics["pass@1"].tolist() == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]


def test_assertions_and_rows_without_tests(scored_of, scorers):
    columns = {"entry_point": ["f", "f", None], "test": [TEST, TEST.splitlines(keepends=True)[0] + "    assert candidate(2) == 4\n", TEST]}
    responses = ["    return 4\n"] * 3
    rollout = scored_of(torch.ones(3, 1), prompts=[PROMPT] * 3, responses=responses, columns=columns)
    assert scorers[0](rollout) == [1.0, 1.0, None]
    assert scorers[0].held_out(rollout) == [0.0, None, None]
    assert [math.isnan(value) for value in scorers[0].metrics(rollout)["pass@1"].tolist()] == [False, False, True]


def test_what_a_busy_machine_leaves_no_time_has_no_score(scored_of, scorers, monkeypatch):
    monkeypatch.setattr(Judge, "judge", lambda self, programs: [Verdict([False, False], "unscorable", 1.0, False) for _ in programs])
    rollout = scored_of(torch.ones(1, 1), prompts=["new"], responses=["x"], columns={"entry_point": ["f"], "test": [TEST]})
    assert (scorers[0](rollout), scorers[0].held_out(rollout)) == ([None], [None])


def test_equal_programs_are_judged_once(scored_of, monkeypatch):
    sizes = []
    monkeypatch.setattr(Judge, "judge", lambda self, programs: sizes.append(len(programs)) or [Verdict([True], "", 1.0)] * len(programs))
    scorer = CodeScorer()
    rollout = scored_of(
        torch.ones(3, 1), prompts=["a"] * 3, responses=["x", "y", "x"], columns={"entry_point": ["f"] * 3, "test": [TEST] * 3}
    )
    assert (scorer(rollout), scorer(rollout)) == ([1.0] * 3,) * 2
    assert sizes == [2]


def test_wrong_columns_are_named(scored_of):
    with pytest.raises(ConfigError, match=r"entry_point.*did you mean 'entrypoint'"):
        CodeScorer().check_columns(["entrypoint", "test"])
    with pytest.raises(ConfigError, match="'expected'"):
        CodeScorer().check_columns(["entry_point", "calls"])
    rollout = scored_of(torch.ones(1, 1), columns={"entry_point": ["f"], "calls": [[[1]]], "expected": [[]]})
    with pytest.raises(UserError, match=r"a row of f: .*same length"):
        CodeScorer()(rollout)


def test_limits_reach_the_sandbox():
    assert CodeScorer(timeout=2.0, memory=100).limits == Limits(2.0, 100)
