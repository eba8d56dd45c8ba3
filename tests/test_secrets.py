"""Secrets stay out of what a run writes, and their place is known when it is read again."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.secrets import left_out, without_secret, without_secrets


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
        ("scorer.api_key=${oc.env:KEY}", "scorer.api_key=${oc.env:KEY}"),
        ("scorer.api_key=null", "scorer.api_key=null"),
        ("scorer.url=https://me:abc@host/x", "scorer.url=https://me:***@host/x"),
        ("scorer.url=https://host:8000/x", "scorer.url=https://host:8000/x"),
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


def test_overrides_in_a_list_are_words_of_a_command():
    assert without_secrets(["seed=1", "+scorer.api_key=abc"]) == ["seed=1", "+scorer.api_key=***"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"scorer": {"api_key": "abc"}}, "scorer.api_key"),
        ({"scorer": {"url": "https://me:abc@host"}}, "scorer.url"),
        ({"source": {"path": "https://host/f?token=abc"}}, "source.path"),
        ({"scorer": {"api_key": "${oc.env:KEY}", "url": None}}, None),
        ({"task": {"prefix": "*** ", "separator": "***"}, "seed": 1}, None),
    ],
)
def test_what_was_left_out_is_missed(content, place):
    assert left_out(without_secrets(content)) == place
