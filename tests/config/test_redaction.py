"""Secrets stay out of what a run writes, and their place is known when it is read again."""

from __future__ import annotations

import logging

import pytest
from omegaconf import OmegaConf

from rlhf_lightning.config.redaction import SafeRecord, missing_secret, safe_message, without_secret, without_secrets


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
        ("redis://:abc@host:6379/0", "redis://:***@host:6379/0"),
        ("hydra.sweeper.storage=postgresql+psycopg2://u:a@b%c@db:5432/x", "hydra.sweeper.storage=postgresql+psycopg2://u:***@db:5432/x"),
        ("https://abcdefghij0123456789@host/x", "https://***@host/x"),
        ("hydra.sweeper.storage=sqlite:///runs/a@b/study.db", "hydra.sweeper.storage=sqlite:///runs/a@b/study.db"),
        ("hub.path=https://host:8000/x@main", "hub.path=https://host:8000/x@main"),
        ("judge --api-key abc --n 3", "judge --api-key *** --n 3"),
        ("rollout_scorer.command='judge --token=abc -n 3'", "rollout_scorer.command='judge --token=*** -n 3'"),
        ("rollout_scorer.command=[judge,--api-key,abc,-n,3]", "rollout_scorer.command=[judge,--api-key,***,-n,3]"),
        ("judge --api-key --verbose", "judge --api-key --verbose"),
        ("x=hf_aBcDeFgHiJ0123", "x=hf_***"),
        ("backbone.path=models/hf_llama-7b", "backbone.path=models/hf_llama-7b"),
        ("x=sk-proj-aBcDeFgHiJ0123", "x=sk-***"),
        ("backbone.path=task-sk-learn", "backbone.path=task-sk-learn"),
        ("x=ghp_aBcDeFgHiJ0123456789", "x=ghp_***"),
        ("x=AKIAIOSFODNN7EXAMPLE", "x=AKIA***"),
        ("x=eyJhbGciOiJI.eyJzdWIiOiI.abc", "x=eyJ***"),
        ("Authorization: Bearer abc.def-1", "Authorization: Bearer ***"),
        ('{"api_key": "abc", "n": 3}', '{"api_key": "***", "n": 3}'),
        ("the pad token: x", "the pad token: x"),
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


def test_the_value_behind_a_flag_is_left_out():
    assert without_secrets(["--api-key", "abc", "-n", "3", "--token", "-m"]) == ["--api-key", "***", "-n", "3", "--token", "-m"]


def test_a_message_holds_no_secret_of_the_environment_or_the_command(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", "hunter2hunter2")
    monkeypatch.setenv("SHORT_KEY", "a")
    words = ["scorer.api_key=swordfish1", "--token", "open-sesame", "hydra.sweeper.storage=mysql://u:p4ssw0rdX@db/x", "seed=1"]
    monkeypatch.setattr("sys.argv", ["train.py", *words])
    text = "a hunter2hunter2 b swordfish1 c open-sesame d p4ssw0rdX e\nsk-aBcDeFgHiJ0123"
    assert safe_message(text) == "a *** b *** c *** d *** e\n  sk-***"


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ({"scorer": {"api_key": "abc"}}, "scorer.api_key"),
        ({"scorer": {"url": "https://me:abc@host"}}, "scorer.url"),
        ({"source": {"path": "https://host/f?token=abc"}}, "source.path"),
        ({"scorer": {"api_key": "${oc.env:KEY}", "url": None}}, None),
        ({"store": "redis://:abc@host"}, "store"),
        ({"scorer": {"command": "judge --api-key abc"}}, "scorer.command"),
        ({"scorer": {"command": ["judge", "--api-key", "abc"]}}, "scorer.command"),
        ({"x": "sk-proj-aBcDeFgHiJ0123"}, "x"),
        ({"x": ["Bearer abcdef"]}, "x"),
        ({"x": '{"api_key": "abc"}'}, "x"),
        ({"task": {"prefix": "*** ", "separator": "***"}, "seed": 1}, None),
    ],
)
def test_what_was_left_out_is_missed(content, place):
    assert missing_secret(without_secrets(content)) == place


def test_a_log_record_holds_no_secret_and_no_control_character():
    record = SafeRecord("x", logging.INFO, "file", 1, "#0 : %s \x1b[31m", ("scorer.api_key=abc",), None)
    assert record.getMessage() == "#0 : scorer.api_key=*** ␛[31m"
