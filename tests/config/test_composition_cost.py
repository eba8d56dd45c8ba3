"""Hydra composes less often, and what it composes is the same."""

from __future__ import annotations

import pytest
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


def test_a_default_may_refer_to_an_option(command, tmp_path):
    """As `/task: ${stage}_prompts`: then the options chosen are mapped."""
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "by_stage.yaml").write_text("# @package _global_\ndefaults:\n  - /more: of_${stage}\n")
    (tmp_path / "conf" / "more").mkdir()
    (tmp_path / "conf" / "more" / "of_sft.yaml").write_text("# @package _global_\nseed: 77\n")
    outcome = command("stage=sft", "experiment=by_stage", "--config-dir", str(tmp_path / "conf"), "--cfg", "job")
    assert outcome.code == 0, outcome.error
    assert "seed: 77" in outcome.out
