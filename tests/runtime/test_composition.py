"""What a command chose, by name, and the checks that components bring of their own."""

from __future__ import annotations

import copy
import dataclasses
import functools

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from rlhf_lightning import registry
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.runtime.composition import ComposedConfig, check
from rlhf_lightning.tracking.logger_settings import logger_settings

registry.load_components()


@functools.cache
def composed(*words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


def refuse(choices: ComposedConfig) -> None:
    raise ConfigError(f"lam={choices.config.advantage.lam} and epochs={choices.settings('ppo').epochs} don't go together")


@pytest.fixture
def checked(monkeypatch) -> None:
    """advantage=gae with a check of its own."""
    components = dict(registry._components)
    components["advantage", "gae"] = dataclasses.replace(registry.option("advantage", "gae"), check=refuse)
    monkeypatch.setattr(registry, "_components", components)


def test_a_component_s_own_check_is_run_where_it_is_at_work(checked):
    with pytest.raises(ConfigError, match=r"lam=0\.95 and epochs=2 don't go together"):
        check(composed())
    check(composed("stage=sft"))
    check(composed("advantage=rloo"))


def test_chosen_options_by_name():
    choices = ComposedConfig(composed("rollout_shaping=[missing_eos,whiten_rewards]"))
    assert choices.component_of("advantage").name == "gae"
    assert [component.name for component in choices.components_of("rollout_shaping")] == ["missing_eos", "whiten_rewards"]
    assert [component.name for component in choices.components_of("advantage")] == ["gae"]
    assert choices.components_of("rollout_scorer") == []


def test_a_group_that_is_needed_is_required():
    with pytest.raises(ConfigError, match=r"chooses no rollout_scorer and needs one"):
        ComposedConfig(composed()).require("rollout_scorer")


def test_a_secret_that_a_saved_configuration_lacks_is_required():
    config = copy.deepcopy(composed())
    OmegaConf.update(config, "logger.api_key", "***", force_add=True)
    with pytest.raises(ConfigError, match=r"logger\.api_key is a secret.*add `logger\.api_key=\.\.\.`"):
        check(config)


@pytest.mark.parametrize("node", ["mlp", 3, ["mlp"]])
def test_a_node_that_is_no_option_is_refused(node):
    config = copy.deepcopy(composed())
    OmegaConf.update(config, "reward_head", node, merge=False, force_add=True)
    with pytest.raises(ConfigError, match="reward_head"):
        check(config)


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"kind": "csvv"}, "csvv is not one of csv, tensorboard, wandb, none, did you mean 'csv'"),
        ({}, "None is not one of"),
        ({"kind": "csv", "project": "x"}, "no setting 'project'; logger=csv has: kind"),
        ({"kind": "wandb", "projekt": "x"}, "'projekt', did you mean 'project'"),
        (None, "logger takes settings"),
    ],
)
def test_a_logger_takes_what_it_reads(about, message):
    with pytest.raises(ConfigError, match=message):
        logger_settings(about)
