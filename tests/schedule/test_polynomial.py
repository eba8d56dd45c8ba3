"""schedule=polynomial has the library's values."""

from __future__ import annotations

import pytest
from transformers.optimization import get_polynomial_decay_schedule_with_warmup

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.schedule.polynomial import polynomial
from tests.schedule.test_anneal import rates

STEPS = 45


@pytest.mark.parametrize(
    ("settings", "theirs"),
    [
        ({}, {"power": 2.0, "lr_end": 0.0}),
        ({"warmup": 7, "power": 3.0, "lr_end": 0.1}, {"power": 3.0, "lr_end": 0.1}),
        ({"warmup": 0.1, "power": 1.0}, {"lr_end": 0.0}),
    ],
)
def test_every_step_has_transformers_value(settings, theirs):
    warmup = settings.get("warmup", 0)
    theirs = {"num_warmup_steps": 5 if warmup == 0.1 else warmup, "num_training_steps": STEPS} | theirs
    assert rates(polynomial, STEPS, **settings) == rates(get_polynomial_decay_schedule_with_warmup, STEPS, **theirs)


def test_an_end_above_the_start_is_refused():
    with pytest.raises(ConfigError, match=r"schedule\.lr_end=0\.7 .* 0\.5"):
        rates(polynomial, STEPS, lr_end=0.7)
