"""schedule=cosine has the library's values."""

from __future__ import annotations

import pytest
from transformers.optimization import get_cosine_schedule_with_warmup

from rlhf_lightning.schedule.cosine import cosine
from tests.schedule.test_anneal import rates

STEPS = 45


@pytest.mark.parametrize(("settings", "theirs"), [({}, {}), ({"warmup": 7, "num_cycles": 1.5}, {"num_cycles": 1.5}), ({"warmup": 0.1}, {})])
def test_every_step_has_transformers_value(settings, theirs):
    warmup = settings.get("warmup", 0)
    theirs = {"num_warmup_steps": 5 if warmup == 0.1 else warmup, "num_training_steps": STEPS} | theirs
    assert rates(cosine, STEPS, **settings) == rates(get_cosine_schedule_with_warmup, STEPS, **theirs)


def test_it_ends_at_its_lowest_rate():
    assert rates(cosine, STEPS, min_lr_rate=0.2)[-1] == pytest.approx(0.2)
