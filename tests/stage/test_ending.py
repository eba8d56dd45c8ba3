"""What a report says of the command: everything but secrets."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.run import without_secrets
from rlhf_lightning.stage.ending import without_secret


@pytest.mark.parametrize(
    ("word", "written"),
    [
        ("rollout_scorer.api_key=abc", "rollout_scorer.api_key=***"),
        ("+logger.WANDB_API_KEY=a=b", "+logger.WANDB_API_KEY=***"),
        ("scorer.hf_token=abc", "scorer.hf_token=***"),
        ("scorer.password=abc", "scorer.password=***"),
        ("feedback_source.path=https://host/f?token=abc", "feedback_source.path=https://host/f?token=***"),
        ("rollout_sampler.max_new_tokens=8", "rollout_sampler.max_new_tokens=8"),
        ("ppo.updates=3", "ppo.updates=3"),
        ("-m", "-m"),
    ],
)
def test_a_word(word, written):
    assert without_secret(word) == written


def test_a_configuration():
    config = OmegaConf.create(
        {"scorer": {"api_key": "abc", "hf_token": "${oc.env:HF_TOKEN}", "deep": {"password": "x"}}, "max_new_tokens": 8, "keys": ["a"]}
    )
    assert without_secrets(config) == {
        "scorer": {"api_key": "***", "hf_token": "${oc.env:HF_TOKEN}", "deep": {"password": "***"}}, "max_new_tokens": 8, "keys": ["a"],
    }  # fmt: skip
