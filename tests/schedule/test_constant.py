"""schedule=constant has the library's values."""

from __future__ import annotations

import pytest
from transformers.optimization import get_constant_schedule_with_warmup

from rlhf_lightning.schedule.constant import constant
from tests.schedule.test_anneal import rates

STEPS = 45


@pytest.mark.parametrize(("settings", "theirs"), [({}, {}), ({"warmup": 7}, {}), ({"warmup": 0.1}, {})])
def test_every_step_has_transformers_value(settings, theirs):
    warmup = settings.get("warmup", 0)
    theirs = {"num_warmup_steps": 5 if warmup == 0.1 else warmup} | theirs
    assert rates(constant, STEPS, **settings) == rates(get_constant_schedule_with_warmup, STEPS, **theirs)
