"""policy_critic=shared: one trunk, one forward pass, and a head that begins at nothing."""

from __future__ import annotations

from rlhf_lightning.policy.critic.shared import shared_critic


def test_it_adds_a_head_and_nothing_else(tiny_of):
    language_model = tiny_of("gpt2")
    critic = shared_critic(language_model, None)
    assert {name: tuple(value.shape) for name, value in critic.named_parameters()} == {
        "head.weight": (1, language_model.width),
        "head.bias": (1,),
    }
    assert not any(value.any() for value in critic.parameters())
    assert critic.warmup == 0
