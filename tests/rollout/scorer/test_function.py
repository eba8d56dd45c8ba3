"""A function as people write it, in our signature and in TRL's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.flow import Message
from rlhf_lightning.rollout.scorer.function import FunctionScorer
from rlhf_lightning.rollout.scoring import WeightedScorers, checked_scores, score_responses

REWARDS = """
import asyncio
import neighbour

def brevity(responses):
    return [-len(text) for text in responses]

def right(responses, answer, scale=2.0):
    return [None if value is None else scale * (value in text) for text, value in zip(responses, answer)]

def everything(prompts, responses, completion_ids, columns, rollout):
    assert rollout.responses == responses
    return [len(ids) + len(columns["answer"][i] or "") + len(prompts[i]) for i, ids in enumerate(completion_ids)]

def trl_plain(completions, **kwargs):
    assert set(kwargs) == {"prompts", "completion_ids", "answer"}
    return [float(len(text)) if isinstance(text, str) else float(len(text[0]["content"])) for text in completions]

def trl_columns(prompts, completions, answer, **kwargs):
    return [float(value == prompt[-1]["content"]) + (completion[0]["role"] == "assistant")
            for prompt, completion, value in zip(prompts, completions, answer)]

async def slow(responses):
    await asyncio.sleep(0.001)
    return [len(text) for text in responses]

def wrong_count(responses):
    return [1.0]

def failing(responses):
    raise ValueError("no luck")

def needs_more(responses, anser):
    return []
"""


@pytest.fixture(scope="module")
def function(tmp_path_factory):
    """A scorer by one of the functions above."""
    folder = tmp_path_factory.mktemp("functions")
    (folder / "rewards.py").write_text(REWARDS)
    (folder / "neighbour.py").write_text("")
    return lambda name: FunctionScorer(path=f"{folder / 'rewards.py'}:{name}")


@pytest.fixture
def rollout(scored_of):
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    return scored_of(mask, responses=["it is 4", "five"], prompts=["2 + 2?", "?"], columns={"answer": ["4", None]})


@pytest.mark.parametrize(
    ("name", "scores"),
    [("brevity", [-7, -4]), ("right", [2.0, None]), ("everything", [2 + 1 + 6, 3 + 0 + 1]), ("trl_plain", [7.0, 4.0]), ("slow", [7, 4])],
)
def test_a_function_gets_what_it_names(function, rollout, name, scores):
    assert function(name)(rollout) == scores


def test_conversations_are_lists_of_messages(function, rollout):
    rollout.prompts = [(Message(role="user", content="4"),), (Message(role="user", content="5"),)]
    assert function("trl_columns")(rollout) == [2.0, 1.0]
    assert function("trl_plain")(rollout) == [7.0, 4.0]


def test_errors_name_file_and_line(function, rollout):
    with pytest.raises(UserError, match=r"(?s)scorer function raised ValueError: no luck.*rewards\.py\", line 31, in failing"):
        checked_scores(function("failing"), rollout)
    with pytest.raises(UserError, match=r"scorer function returned 1 scores for 2 responses \(defined in .*rewards\.py:27\)"):
        checked_scores(function("wrong_count"), rollout)
    with pytest.raises(ConfigError, match=r"needs_more: the rows of the task have no column 'anser', did you mean 'answer'"):
        function("needs_more").check_columns(["answer"])
    function("right").check_columns(["answer"])


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("rewards.py", "FILE|write the file and its function, as in rewards.py:brevity"),
        ("{folder}/nowhere.py:f", "there is no file"),
        ("no_such_module:f", "can't be imported"),
        ("{folder}/broken.py:f", r"ZeroDivisionError at .*broken\.py:2"),
        ("{folder}/fine.py:brevty", "did you mean 'brevity'.*it has: brevity"),
    ],
)
def test_what_can_not_be_loaded_is_refused(tmp_path, path, message):
    (tmp_path / "broken.py").write_text("x = 0\n1 / x\n")
    (tmp_path / "fine.py").write_text("def brevity(responses):\n    return []\n")
    with pytest.raises(ConfigError, match=message):
        FunctionScorer(path=path.format(folder=tmp_path))


PAGE = Path(__file__).resolve().parents[3] / "docs" / "howto" / "from_trl_grpo.md"


def test_the_functions_of_the_tutorial_give_the_rewards_and_advantages_of_trl(tmp_path, scored_of):
    """Beside TRL's call (`GRPOTrainer._calculate_rewards`), its weighted sum and its advantages in groups of two."""
    if not PAGE.exists():
        pytest.skip("docs/ is not shipped with the tests")
    (tmp_path / "rewards.py").write_text(PAGE.read_text().split('```python title="rewards.py"\n')[1].split("```")[0])
    scorers = {name: FunctionScorer(path=f"{tmp_path / 'rewards.py'}:{name}") for name in ("right_answer", "brevity")}
    mask, answers = (torch.arange(5) < torch.tensor([[5], [3], [1], [4]])).long(), ["7", "7", "12", "12"]
    columns, group = {"answer": answers}, torch.tensor([0, 0, 1, 1])
    rollout = scored_of(mask, responses=["so #### 7", "#### 8", "12", "#### 1 #### 12"], columns=columns, group=group)
    scores = score_responses(WeightedScorers(scorers, {"right_answer": 1.0, "brevity": 0.1}), rollout)
    ids = [row[:n] for row, n in zip(rollout.response_ids.tolist(), mask.sum(1).tolist(), strict=True)]
    called = {"prompts": rollout.prompts, "completions": rollout.responses, "completion_ids": ids, "answer": answers, "trainer_state": None}
    per_function = torch.tensor([scorer.function(**called) for scorer in scorers.values()]).T
    rewards = (per_function * torch.tensor([1.0, 0.1])).nansum(1)
    assert per_function[:, 0].tolist() == [1.0, 0.0, 0.0, 1.0]
    torch.testing.assert_close(scores.total, rewards)
    grouped = rewards.view(-1, 2)
    advantages = (grouped - grouped.mean(1, keepdim=True)) / (grouped.std(1, keepdim=True) + 1e-4)
    scored = scored_of(mask, group=group, rewards=scores.rewards(mask))
    torch.testing.assert_close(grpo(scored, eps=1e-4).advantages[:, 0], advantages.flatten())


def test_a_module_is_imported_by_name(rollout):
    assert FunctionScorer(path="builtins:len").function is len
