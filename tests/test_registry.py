"""The registry: what becomes an option, what is refused and by which name, and that nothing unregistered is ever called."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from torch import nn

from rlhf_lightning import registry
from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.config.presets import CONF
from rlhf_lightning.errors import ConfigError, RegistryError
from rlhf_lightning.reward.head.mlp import MLPHead
from rlhf_lightning.runtime.composition import check

ROOT = Path(__file__).resolve().parents[1]


pytestmark = pytest.mark.usefixtures("untouched")


@functools.cache
def default() -> DictConfig:
    return composed()


def composed(*words: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("config", list(words))


HEAD = """
@register("reward_head", "{name}")
class {name}:
    '''A head of the test.'''
    def __init__(self, width: int, *, size: int = {size}) -> None:
        self.width, self.size = width, size
"""


def test_a_plugin_file_is_an_option_at_once(plugin):
    assert plugin("first", HEAD.format(name="Triple", size=3)) == []
    node = composed("reward_head=Triple", "reward_head.size=5").reward_head
    assert node._target_ == "plugins.first.Triple"
    made = registry.build(node, 16)
    assert (made.width, made.size) == (16, 5)
    assert registry.make("reward_head", "Triple", {"size": 6}, 2).size == 6
    assert pickle.loads(pickle.dumps(made.Config())) == made.Config()


def test_the_same_object_twice_is_fine(untouched):
    before = registry.components("advantage")
    assert registry.register("advantage", "gae", needs=["values"])(gae) is gae
    assert [c.path for c in registry.components("advantage")] == [c.path for c in before]


def test_an_unknown_group_is_refused_with_the_nearest():
    with pytest.raises(RegistryError, match=r"no group 'reward_heads', did you mean 'reward_head'\?.*rollout_sampler"):
        registry.register("reward_heads", "x")


def test_a_local_component_is_refused_by_name():
    class Local: ...

    with pytest.raises(RegistryError, match=r"reward_head=local: .*test_registry.*<locals>\.Local can't be imported by worker processes"):
        registry.register("reward_head", "local")(Local)
    assert "local" not in [c.name for c in registry.components("reward_head")]


def test_a_component_of_the_main_module_is_refused():
    code = """
        from rlhf_lightning.registry import register
        try:
            @register("advantage", "mine")
            def mine(scored): ...
        except Exception as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout.startswith(
        "RegistryError advantage=mine: __main__.mine can't be imported by worker processes; move it into a module"
    )


def test_build_binds_a_function_and_makes_a_class():
    bound = registry.build(composed("advantage.lam=0.5").advantage)
    assert bound.func is gae
    assert bound.keywords["lam"] == 0.5
    head = registry.build(composed("reward_head=mlp", "reward_head.hidden=4").reward_head, 8)
    assert isinstance(head, MLPHead)
    assert next(tuple(p.shape) for p in head.parameters() if p.dim() == 2) == (4, 8)


def test_make_holds_settings_and_names():
    assert isinstance(registry.make("reward_head", "linear", {}, 8), nn.Module)
    with pytest.raises(ConfigError, match=r"no option reward_head=mpl, did you mean 'mlp'\?; there are: .*, linear, mlp, "):
        registry.make("reward_head", "mpl", {}, 8)
    with pytest.raises(ConfigError, match=r"reward_head\.hidden=0"):
        registry.make("reward_head", "mlp", {"hidden": 0}, 8)


def called(*_: object, **__: object) -> None:
    raise AssertionError("an unregistered target was called")


@pytest.mark.parametrize("target", ["os.system", "subprocess.Popen", "builtins.eval", f"{__name__}.called", "", None])
@pytest.mark.parametrize("place", ["backbone", "advantage", "stage", "rollout_shaping.missing_eos", "reward_loss.bradley_terry"])
def test_only_registered_components_are_ever_called(monkeypatch, target, place):
    monkeypatch.setattr(os, "system", called)
    monkeypatch.setattr(subprocess, "Popen", called)
    config = copy.deepcopy(default())
    node = OmegaConf.select(config, place)
    OmegaConf.set_struct(node, False)
    OmegaConf.update(config, place, {"_target_": target, "args": ["x"]}, merge=False, force_add=True)
    with pytest.raises(ConfigError, match="is not a registered component"):
        check(config)
    with pytest.raises(ConfigError, match="is not a registered component"):
        registry.build(OmegaConf.select(config, place))
    with pytest.raises(ConfigError, match="is not a registered component"):
        registry.build({"_target_": target, "args": ["x"]})


@pytest.mark.parametrize("place", ["ppo", "trainer.x", "backbone.x", "rollout_shaping.missing_eos.x"])
def test_a_nested_target_is_refused(monkeypatch, place):
    monkeypatch.setattr(os, "system", called)
    config = copy.deepcopy(default())
    OmegaConf.update(config, f"{place}._target_", "os.system", force_add=True)
    with pytest.raises(ConfigError, match="has no setting"):
        check(config)


def test_a_component_under_another_group_is_refused():
    config = copy.deepcopy(default())
    config.reward_head = {"_target_": "rlhf_lightning.advantage.gae.gae"}
    with pytest.raises(ConfigError, match=r"reward_head can't be rlhf_lightning\.advantage\.gae\.gae: that is an option of advantage"):
        check(config)


def test_the_default_configuration_is_right():
    check(composed())


def test_every_seed_follows_the_run_s():
    config = composed("seed=17")
    assert (config.task.seed, config.feedback_annotator.simulated.seed) == (17, 17)
    assert composed("seed=17", "task.seed=3").task.seed == 3


def test_groups_of_several_keep_their_order():
    assert list(composed("rollout_shaping=[missing_eos,clip_score]").rollout_shaping) == ["missing_eos", "clip_score"]
    assert list(composed("rollout_shaping=[clip_score,missing_eos]").rollout_shaping) == ["clip_score", "missing_eos"]


def test_an_option_is_looked_up_by_group_and_name():
    assert registry.option("reward_head", "mlp").target is MLPHead
    with pytest.raises(ConfigError, match=r"no option reward_head=mpl, did you mean 'mlp'\?; there are: "):
        registry.option("reward_head", "mpl")
    with pytest.raises(ConfigError, match=r"no group 'reward_heads', did you mean 'reward_head'\?"):
        registry.option("reward_heads", "mlp")


def test_components_are_in_order_and_say_what_they_are():
    everything = registry.components()
    order = [(list(registry.GROUPS).index(c.group), c.name) for c in everything]
    assert order == sorted(order)
    mlp = next(c for c in everything if (c.group, c.name) == ("reward_head", "mlp"))
    assert mlp.path == "rlhf_lightning.reward.head.mlp.MLPHead"
    assert mlp.file.endswith("rlhf_lightning/reward/head/mlp.py")
    assert mlp.summary
    assert next(c for c in everything if c.name == "gae").needs == {"values"}
