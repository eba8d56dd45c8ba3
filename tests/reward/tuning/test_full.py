"""reward_tuning=full: every weight is trained."""

from __future__ import annotations

import pytest

from rlhf_lightning.model.trunk import load_trunk
from rlhf_lightning.reward.tuning.full import full


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_every_weight_is_trained(trunk_folder, family):
    trunk, _ = load_trunk(trunk_folder(family))
    trunk.requires_grad_(False)
    full(trunk)
    assert all(parameter.requires_grad for parameter in trunk.parameters())
