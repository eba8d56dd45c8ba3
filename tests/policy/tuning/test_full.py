"""policy_tuning=full: every weight is trained."""

from __future__ import annotations

from rlhf_lightning.model.adapters import has_adapters
from rlhf_lightning.policy.tuning.full import full


def test_every_weight_is_trained_and_nothing_is_added(language_model):
    before = set(language_model.model.state_dict())
    language_model.model.requires_grad_(False)
    full(language_model.model)
    assert all(parameter.requires_grad for parameter in language_model.model.parameters())
    assert set(language_model.model.state_dict()) == before
    assert not has_adapters(language_model.model)
