"""task=programs: problems whose demonstrations run, and mistakes at the stated rate."""

from __future__ import annotations

from typing import Any

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.task.programs import Programs


def results(source: str, calls: list[list[int]]) -> list[Any]:
    scope: dict[str, Any] = {}
    exec(source, scope)
    return [scope["f"](*call) for call in calls]


def test_demonstrations_solve_their_problems_but_for_mistakes() -> None:
    task = Programs(demonstrations=400, mistakes=0.25)
    rows = {row.prompt: row.columns for row in task.train_prompts()}
    right = [
        results(f"{row.prompt}{row.response}", rows[row.prompt]["calls"]) == rows[row.prompt]["expected"] for row in task.demonstrations()
    ]
    assert sum(right) / len(right) == pytest.approx(0.75**2, abs=0.1)
    assert all(
        results(f"{row.prompt}{row.response}", rows[row.prompt]["calls"]) == rows[row.prompt]["expected"]
        for row in Programs(demonstrations=100, mistakes=0.0).demonstrations()
    )


def test_held_out_problems_are_new_pairs_of_known_steps() -> None:
    task = Programs()
    train, test = ({row.prompt for row in rows} for rows in (task.train_prompts(), task.test_prompts()))
    assert not train & test
    assert (len(train) + len(test), len(test)) == (34**2, round(0.1 * 34**2))
    steps = {step for prompt in train for step in str(prompt).strip().split("# ")[1].split(", then ")}
    assert {step for prompt in test for step in str(prompt).strip().split("# ")[1].split(", then ")} <= steps
    with pytest.raises(ConfigError, match="rollout_scorer=code"):
        task.utility("", "")
