"""Settings that are written like flags, or with blanks, are told how they are written; everything else passes."""

from __future__ import annotations

import shlex

import pytest

from rlhf_lightning.config.overrides import check_arguments
from rlhf_lightning.errors import ConfigError


@pytest.mark.parametrize(
    ("line", "written"),
    [
        ("--stage=ppo", "stage=ppo"),
        ("stage=sft --seed 3", "seed=3"),
        ("--backbone.path=x", "backbone.path=x"),
        ("-stage=ppo seed=1", "stage=ppo"),
        ("-seed=3", "seed=3"),
        ("--ppo.learning_rate 1e-5", "ppo.learning_rate=1e-5"),
        ("-m --seed=1,2", "seed=1,2"),
        ("--hydra.run.dir=runs/x", "hydra.run.dir=runs/x"),
        ("--resume runs/x", "resume=runs/x"),
        ("--config-path runs/x --seed=3", "seed=3"),
        ("--seed: 3", "seed=3"),
        ("stage: ppo", "stage=ppo"),
        ("'stage: ppo'", "stage=ppo"),
        ("seed =3", "seed=3"),
        ("seed = 3", "seed=3"),
        ("'seed = 3'", "seed=3"),
        ("seed= 3", "seed=3"),
        ("stage=sft ppo.updates =80 seed=1", "ppo.updates=80"),
    ],
)
def test_a_message_shows_how_a_setting_is_written(line, written):
    with pytest.raises(ConfigError, match=f"write {written}$"):
        check_arguments(shlex.split(line))


@pytest.mark.parametrize("flag", ["--frobnicate", "--multirn", "--experimental-rerun", "-x", "--seed"])
def test_what_is_no_flag_is_listed(flag):
    with pytest.raises(ConfigError, match=f"unrecognized arguments: {flag}.*the flags are --cfg, .*--multirun"):
        check_arguments(["stage=sft", flag])


@pytest.mark.parametrize(
    "line",
    [
        "stage=ppo seed=3", "-m seed=1,2", "--multirun seed=1,2", "--multi seed=1", "--cfg job", "-c job --resolve", "-cp x",
        "--config-path runs/x seed=1", "--config-path=a=b", "--config-dir -x", "~logger", "+x=1", "++x=1", "x= y=1", "x= ~logger", "x= -m",
        "--info", "--info searchpath", "'x=a: b'", "'x=a = b'", "'x={a: 1}'", "'x=[a, b]'", "resume=runs/x", "'resume=a = b'",
        "-sc install=bash", "--version", "--hydra-help", "-p x", "'a.b@c=d'", "hydra/launcher=joblib",
    ],
)  # fmt: skip
def test_everything_else_passes(line):
    check_arguments(shlex.split(line))


def test_the_command_ends_with_the_hint(command):
    outcome = command("stage=inspect", "--seed", "3")
    assert outcome.code == 2
    assert outcome.error == "error: --seed 3: a setting has no dashes in front, and an equals sign: write seed=3\n"
