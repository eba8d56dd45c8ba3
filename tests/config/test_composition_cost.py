"""Hydra composes less often, and what it composes is the same."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.types import RunMode
from omegaconf import OmegaConf

from rlhf_lightning import registry
from rlhf_lightning.config.composition_cost import SweepCompositions
from rlhf_lightning.config.presets import CONF


def composed(folder, *words):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        return compose("config", list(words), return_hydra_config=True)


@pytest.fixture
def calls():
    return []


@pytest.fixture
def compositions(calls):
    def compose(loader, **kwargs):
        calls.append(kwargs["overrides"])
        return OmegaConf.create({"overrides": kwargs["overrides"], "number": len(calls)})

    return SweepCompositions(compose)


def test_a_job_of_a_sweep_is_composed_once_and_copied(compositions, calls):
    compositions("loader", overrides=["seed=1,2"], run_mode=RunMode.MULTIRUN)
    first = compositions("loader", overrides=["seed=1"], run_mode=RunMode.RUN)
    first.number = -1
    second = compositions("loader", overrides=["seed=1"], run_mode=RunMode.RUN)
    assert second.number == 2
    assert compositions("loader", overrides=["seed=2"], run_mode=RunMode.RUN).number == 3
    assert calls == [["seed=1,2"], ["seed=1"], ["seed=2"]]


def test_a_single_run_is_composed_as_it_is(compositions, calls):
    """Hydra composes as for a sweep to learn whether the command is one, without checking its values."""
    for mode, checked in ((RunMode.MULTIRUN, False), (RunMode.RUN, True), (RunMode.RUN, True)):
        compositions("loader", overrides=["seed=1"], run_mode=mode, validate_sweep_overrides=checked)
    assert len(calls) == 3


def test_a_default_may_refer_to_options(tmp_path):
    """Then the options chosen are mapped, as Hydra does."""
    files = {"config": "defaults: [a: one, b: two, both: '${a}_${b}']", "a/one": "x: 1", "b/two": "y: 2", "b/three": "y: 3"}
    for name, text in {**files, "both/one_two": "z: 12", "both/one_three": "z: 13"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    assert composed(tmp_path).both.z == 12
    assert composed(tmp_path, "b=three").both.z == 13


def test_options_merged_at_once_are_those_merged_one_by_one(monkeypatch):
    registry.load_components()
    words = ["policy_loss=cispo", "rollout_scorer=[lexicon,length]", "+callback.ema.decay=0.5", "experiment=lora_reviews"]
    at_once = composed(CONF, *words)
    monkeypatch.setattr(
        ConfigLoaderImpl, "_compose_config_from_defaults_list", vars(ConfigLoaderImpl)["_compose_config_from_defaults_list"].args[0]
    )
    one_by_one = composed(CONF, *words)
    assert OmegaConf.to_yaml(at_once) == OmegaConf.to_yaml(one_by_one)
    assert OmegaConf.get_type(at_once.policy_loss) is OmegaConf.get_type(one_by_one.policy_loss) is not dict


def test_a_file_that_cannot_be_merged_is_named(tmp_path):
    files = {"config": "defaults: [a: one, b: two]", "a/one": "x: 1", "b/two": "# @package _global_\na: [1]"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text)
    with pytest.raises(ConfigCompositionException, match="In 'b/two'"):
        composed(tmp_path)
