"""reward_tuning=frozen: no weight of the trunk is trained."""

from __future__ import annotations

import pytest

from rlhf_lightning.reward.tuning.frozen import frozen


@pytest.mark.parametrize("family", ["gpt2", "bert", "t5"])
def test_the_head_alone_gets_gradients_and_phi_has_no_dropout(model_of, family):
    model = model_of(family)
    model.train()
    frozen(model.net.trunk)
    texts = [("It", "is a fan"), ("a", "lamp")]
    first, second = model(model.tokenise(texts)), model(model.tokenise(texts))
    assert first.tolist() == second.tolist()
    first.sum().backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is not None} == {"net.head.weight.weight"}
