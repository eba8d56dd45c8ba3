"""policy_critic=separate: a trunk of its own that begins as the policy's, and a head that begins at nothing."""

from __future__ import annotations

import torch

from rlhf_lightning.policy.critic.separate import separate


def test_its_trunk_begins_as_the_policy_s_and_is_another(tiny_of):
    language_model = tiny_of("llama")
    critic = separate(language_model, None, warmup=3)
    own, policy_s = critic.trunk.state_dict(), language_model.model.base_model.state_dict()
    assert own.keys() == policy_s.keys()
    assert all(torch.equal(value, policy_s[name]) for name, value in own.items())
    with torch.no_grad():
        next(critic.trunk.parameters()).add_(1.0)
    assert not torch.equal(next(critic.trunk.parameters()), next(language_model.model.base_model.parameters()))
    assert not critic.head.weight.any()
    assert critic.warmup == 3
