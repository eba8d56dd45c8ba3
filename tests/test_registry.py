"""The registry: what becomes an option, what is refused and by which name, and that nothing unregistered is ever called."""

from __future__ import annotations

import copy
import functools
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf
from torch import nn

from rlhf_lightning import registry
from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.choices import check
from rlhf_lightning.errors import ConfigError, RegistryError
from rlhf_lightning.presets import CONF
from rlhf_lightning.reward.head.mlp import MLPHead

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """The registry as the package fills it, and as it was afterwards."""
    registry.load_components()
    Plugins.instance()  # Hydra's own put their configurations into the store once
    store, modules, path = ConfigStore.instance(), set(sys.modules), os.environ.get("PYTHONPATH")
    known = copy.copy(registry._components), copy.copy(registry._sections), copy.deepcopy(store.repo)
    folders = list(sys.modules["plugins"].__path__)
    yield
    registry._components, registry._sections, store.repo = known
    sys.modules["plugins"].__path__[:] = folders
    for name in set(sys.modules) - modules:
        if name.startswith("plugins."):
            del sys.modules[name]
    os.environ.pop("PYTHONPATH", None)
    if path is not None:
        os.environ["PYTHONPATH"] = path


@pytest.fixture
def plugin(tmp_path) -> Callable[..., list[str]]:
    """Writes a plugin file and loads the folder; returns the complaints."""

    def write(name: str, text: str) -> list[str]:
        folder = tmp_path / "plugins"
        folder.mkdir(exist_ok=True)
        heading = "from __future__ import annotations\nfrom rlhf_lightning.registry import register\n"
        (folder / f"{name}.py").write_text(heading + textwrap.dedent(text))
        return registry.load_components([folder])

    return write


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


def test_workers_of_a_sweep_find_the_plugin(plugin, tmp_path):
    plugin("worker", HEAD.format(name="ForWorkers", size=3))
    assert str(tmp_path) in os.environ["PYTHONPATH"].split(os.pathsep)
    code = "import plugins.worker; print(plugins.worker.ForWorkers.Config().size)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "plugins", capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "3", done.stderr


def test_a_broken_plugin_is_named_with_its_cause_and_the_rest_works(plugin, tmp_path):
    plugin("fine", HEAD.format(name="Fine", size=1))
    (complaint,) = plugin("broken", "import nothing_of_this_name")
    assert (
        complaint == f"plugin {tmp_path / 'plugins' / 'broken.py'} is left out: ModuleNotFoundError: No module named 'nothing_of_this_name'"
    )
    assert composed("reward_head=Fine").reward_head.size == 1


def test_a_name_that_is_taken_is_refused_naming_both_owners(plugin):
    (complaint,) = plugin("thief", HEAD.format(name="mlp", size=1))
    assert "reward_head=mlp is taken by" in complaint
    assert complaint.count("reward/head/mlp.py") == 1
    assert "plugins/thief.py must choose another name" in complaint
    assert composed("reward_head=mlp").reward_head._target_ == "rlhf_lightning.reward.head.mlp.MLPHead"


def test_the_same_object_twice_is_fine():
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
@pytest.mark.parametrize("place", ["backbone", "advantage", "stage", "rollout_shaping.kl", "reward_loss.bradley_terry"])
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


@pytest.mark.parametrize("place", ["ppo", "trainer.x", "backbone.x", "rollout_shaping.kl.x"])
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
    assert (config.task.seed, config.feedback_annotator.seed) == (17, 17)
    assert composed("seed=17", "task.seed=3").task.seed == 3


def test_groups_of_several_keep_their_order():
    assert list(composed("rollout_shaping=[kl,clip_score]").rollout_shaping) == ["kl", "clip_score"]
    assert list(composed("rollout_shaping=[clip_score,kl]").rollout_shaping) == ["clip_score", "kl"]


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
