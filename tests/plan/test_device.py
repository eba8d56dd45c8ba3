"""The table of devices, and this one."""

from __future__ import annotations

from typing import get_args

import pytest

from rlhf_lightning.plan.device import TABLE, device_named, gpu_named, product_dtype
from rlhf_lightning.plan.settings import DeviceName


def test_every_name_has_its_row():
    assert set(get_args(DeviceName)) == {"here", *TABLE}
    assert device_named("H100") is TABLE["H100"]


@pytest.mark.parametrize(
    ("driver", "name"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"), ("NVIDIA H200", "H200"), ("NVIDIA A100-SXM4-80GB", "A100-80"),
        ("NVIDIA A100-SXM4-40GB", "A100-40"), ("Tesla T4", "T4"), ("Tesla V100-SXM2-32GB", "V100"), ("NVIDIA L4", "L4"),
        ("NVIDIA GeForce RTX 4090", "RTX-4090"), ("NVIDIA L40S", "L40S"), ("NVIDIA A10G", "A10G"),
    ],
)  # fmt: skip
def test_a_driver_s_name(driver, name):
    found = gpu_named(driver)
    assert found is not None
    assert found.name == name


def test_an_unknown_device_is_none():
    assert gpu_named("NVIDIA GeForce GTX 1080") is None


@pytest.mark.parametrize(("precision", "dtype"), [("32-true", "float32"), ("bf16-mixed", "bfloat16"), ("16-mixed", "float16")])
def test_the_dtype_of_products(precision, dtype):
    assert product_dtype(precision) == dtype
    assert TABLE["H100"].peak(precision) == TABLE["H100"].flops[dtype]


def test_a_device_without_bfloat16_falls_back():
    assert TABLE["T4"].peak("bf16-mixed") == TABLE["T4"].flops["float32"]


def test_this_machine_has_memory_and_multiplies():
    here = device_named("here")
    assert here.host
    assert here.memory > 2**28
    assert min(here.flops["float32"], here.bandwidth) > 1e6
