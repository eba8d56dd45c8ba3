"""Read a command's files and rehearse its training without weights, for --check."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from rlhf_lightning.registry import build, option
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from rlhf_lightning.stage._planned_run import Inputs

DEVICE = "H100"
"""Of the rehearsal, whose numbers are not used: a named device is not measured."""


def check_inputs(run: Run) -> None:
    """Read the task and the feedback, and make the first batches with the models' configs and tokenizers.

    Raises:
        UserError: a file, column, text or model's config with which the run would stop.
    """
    from rlhf_lightning.plan.device import device_named
    from rlhf_lightning.stage._planned_run import Inputs, PlannedRun, changed_config

    stage = run.component_of("stage").name
    job = run.settings("plan").job if stage == "plan" else stage
    module = importlib.import_module(option("stage", job).target.__module__)
    inputs = Inputs(run)
    has_trunk = job != "reward" or "texts" not in run.component_of("reward_head").needs
    if hasattr(module, "rehearse") and has_trunk:
        config = changed_config(run.config, {"plan.job": job})
        module.rehearse(PlannedRun(config, inputs, device_named(DEVICE), 0.0))
    elif hasattr(module, "check_files"):
        module.check_files(run)
    elif run.config.get("feedback_source"):
        _ = inputs.judgements
    if job in ("ppo", "evaluate"):
        _check_columns(run, inputs)


def _check_columns(run: Run, inputs: Inputs) -> None:
    """Check that the task's rows have the columns that scorers read. No reward model is loaded."""
    from rlhf_lightning.rollout.prompts import column_names

    columns = column_names([*inputs.task.train_prompts(), *inputs.task.test_prompts()])
    nodes: dict[str, Any] = dict(run.config.get("rollout_scorer") or {})
    for component, node in zip(run.components_of("rollout_scorer"), nodes.values(), strict=True):
        if hasattr(component.target, "check_columns"):
            build(node).check_columns(columns)
