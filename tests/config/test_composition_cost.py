"""Hydra composes less often, and what it composes is the same."""

from __future__ import annotations

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from rlhf_lightning.config.composition_cost import SweepCompositions


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
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        assert compose("config").both.z == 12
        assert compose("config", ["b=three"]).both.z == 13
