"""A plugin of any group that raises or returns a wrong shape is named with its option, file and line."""

from __future__ import annotations

import pathlib
import re

import pytest
import torch

from rlhf_lightning import registry
from rlhf_lightning.cli.user_errors import translate
from rlhf_lightning.config.guards import CHECKS
from rlhf_lightning.errors import UserError
from rlhf_lightning.testing.trial import experience, judgement_batch, scored_rollout

pytestmark = pytest.mark.usefixtures("untouched")
RECORD, SCORED = experience(), scored_rollout()
CALLS = {
    "advantage": ("return scored.rewards[:, :1]", [SCORED], r"Experience .*\[4, 5\]"),
    "rollout_shaping": ("return None", [SCORED], "ScoredRollout"),
    "policy_loss": ("return args[1].sum(1), {}", [RECORD, RECORD.old_log_probs], r"\[4, 5\] and a dict"),
    "policy_value_loss": ("return args[1], {'a': args[1]}", [RECORD, RECORD.old_log_probs], "metrics"),
    "policy_correction": ("return args[0].rewards", [RECORD], "dict of metrics"),
    "policy_reduction": ("return args[0]", [torch.zeros(2, 3), torch.ones(2, 3)], r"\[\]"),
    "evaluation_metric": ("return torch.zeros(3)", [SCORED], r"\[4\]"),
    "rollout_sampler": ("return None", [None, SCORED.select(torch.arange(2))], "Rollout of 2"),
    "reward_pooling": ("return args[0]", [torch.zeros(2, 3, 4), torch.ones(2, 3)], r"\[U, D\]"),
    "reward_loss": ("return torch.zeros(())", [None, judgement_batch()], "two tensors"),
    "preference_loss": ("return torch.zeros(())", [None], r"\[J\]"),
    "feedback_format": ("return [1]", [None], "Feedback"),
    "feedback_filter": ("yield 1", [[], None], "Feedback"),
    "feedback_source": ("yield {'prompt': 'a'}", [], "rows"),
    "feedback_selection": ("return [1]", [None, 1, None], "Choice"),
    "feedback_comment": ("return None", ["text"], "number"),
    "reward_feature": ("return 'x' and None", ["prompt", "response"], "number"),
    "reward_tuning": ("return 3", [None], "nothing"),
    "policy_tuning": ("return 3", [None], "nothing"),
    "policy_critic": ("return None", [None, None], "Critic"),
    "backbone": ("return None", [()], "LanguageModel"),
    "optimizer": ("return 3", [None], "Optimizer"),
    "schedule": ("return 3", [None, 1, 0.1], "LRScheduler"),
    "stage": ("return 'done'", [None], "number"),
}
OBJECTS = {
    "policy_kl": ("shape_rewards", [RECORD], "ScoredRollout"),
    "policy_kl_control": ("value", [], "number"),
    "collect_question": ("feedback", [None, None, 0], "Feedback"),
    "feedback_annotator": ("judge", [[]], "Feedback"),
    "task": ("train_prompts", [], "a list"),
    "sandbox": ("isolation", [], "an Isolation"),
    "reward_head": ("forward", [torch.zeros(3, 2)], r"\[U\]"),
}


def test_every_group_is_guarded():
    """Scorers and callbacks are checked where they are made or called."""
    assert CALLS.keys() | OBJECTS.keys() == CHECKS.keys()
    assert CHECKS.keys() == registry.GROUPS.keys() - {"rollout_scorer", "callback"}


def written(plugin, group: str, name: str, *lines: str) -> None:
    """Write a plugin of these lines."""
    head = ["import torch", "from torch import nn", f"@register({group!r}, {name!r})"]
    assert plugin(name, "\n".join([*head, *lines]) + "\n") == []


@pytest.mark.parametrize("group", CALLS)
def test_a_wrong_output_of_a_function_is_named(plugin, group):
    body, args, expected = CALLS[group]
    written(plugin, group, f"wrong_{group}", f"def wrong_{group}({'scored, ' * (group == 'advantage')}*args):", f"    {body}")
    built = registry.make(group, f"wrong_{group}", {})
    with pytest.raises(UserError, match=expected) as error:
        list(built(*args))
    assert re.search(rf"{group}=wrong_{group} \(\S+wrong_{group}\.py:\d+\)", str(error.value))


@pytest.mark.parametrize("group", OBJECTS)
def test_a_wrong_output_of_an_object_is_named(plugin, group):
    method, args, expected = OBJECTS[group]
    base = "nn.Module" if method == "forward" else "object"
    lines = [f"class Wrong_{group}({base}):", f"    def {method}(self, *args):", "        return 'wrong'"]
    written(plugin, group, f"object_{group}", *lines)
    built = registry.make(group, f"object_{group}", {})
    assert type(built).__name__ == f"Wrong_{group}"
    with pytest.raises(UserError, match=expected) as error:
        (built if method == "forward" else getattr(built, method))(*args)
    assert f"object_{group}.py:" in str(error.value)


def test_an_exception_is_named_with_its_line_and_frames(plugin):
    written(plugin, "advantage", "raises", "def raises(scored):", "    return inner(scored)", "def inner(scored):", "    return 1 / 0")
    with pytest.raises(ZeroDivisionError) as caught:
        registry.make("advantage", "raises", {})(SCORED)
    message = str(translate(caught.value))
    assert message.startswith("advantage=raises raised ZeroDivisionError: division by zero (")
    file, line = re.search(r"\((\S+raises\.py):(\d+), in inner\)", message).groups()
    assert pathlib.Path(file).read_text().split("\n")[int(line) - 1] == "    return 1 / 0"
    assert "return inner(scored)" in message
    other = ValueError("a bug of the package")
    assert translate(other) is other
