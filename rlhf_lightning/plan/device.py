"""What a device can hold and do: a table by name, and this machine's own."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_lightning.errors import ConfigError

GIB = 2**30
SAMPLE = 1024
"""Rows and columns of the matrices that a CPU is tried on."""
COPIED = 2**26
"""Bytes that a CPU's memory is tried on."""
TRIALS = 3


@dataclass(frozen=True)
class Device:
    """A device of one process.

    Attributes:
        memory: bytes that a process can have. host: it is the processes' own memory, which all processes of a machine share.
        flops: by dtype of the products, what its maker says that it reaches on dense matrices (float32 without TF32), or what was measured.
        bandwidth: bytes a second from and to its memory.
    """

    name: str
    memory: float
    flops: dict[str, float]
    bandwidth: float
    host: bool = False

    def peak(self, precision: str) -> float:
        """FLOP/s under a setting of trainer.precision; those of float32 where the device doesn't know the dtype."""
        return self.flops.get(product_dtype(precision), self.flops["float32"])


def product_dtype(precision: str) -> str:
    """The dtype in which matrices are multiplied under a setting of trainer.precision."""
    return {"bf16": "bfloat16", "16": "float16", "64": "float64"}.get(precision.split("-")[0], "float32")


def _gpu(name: str, gib: float, float32: float, half: float, bandwidth: float, bfloat16: bool = True) -> Device:
    flops = {"float32": float32 * 1e12, "float16": half * 1e12} | ({"bfloat16": half * 1e12} if bfloat16 else {})
    return Device(name, gib * GIB, flops, bandwidth * 1e9)


TABLE = {
    device.name: device
    for device in (
        _gpu("B200", 178.4, 80, 2250, 8000),
        _gpu("H200", 139.8, 67, 989, 4800),
        _gpu("H100", 79.2, 67, 989, 3350),
        _gpu("A100-80", 79.3, 19.5, 312, 2039),
        _gpu("A100-40", 39.4, 19.5, 312, 1555),
        _gpu("L40S", 44.4, 91.6, 362, 864),
        _gpu("L4", 22.0, 30.3, 121, 300),
        _gpu("A10G", 22.0, 31.2, 70, 600),
        _gpu("V100", 31.7, 15.7, 125, 900, bfloat16=False),
        _gpu("T4", 14.6, 8.1, 65, 320, bfloat16=False),
        _gpu("RTX-4090", 23.5, 82.6, 165, 1008),
        _gpu("RTX-3090", 23.5, 35.6, 71, 936),
    )
}
"""GiB that torch sees, TFLOP/s in float32 and in half precision (float32 sums, no sparsity), GB/s: NVIDIA's data sheets, SXM where there is
one."""


def device_named(name: str, accelerator: str = "cpu") -> Device:
    """The device of that name; "here" is this machine's CPU, or its first GPU where the accelerator is one.

    Raises:
        ConfigError: a GPU here, and there is none.
    """
    if name != "here":
        return TABLE[name]
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"plan.device=here: torch sees no GPU on this machine; name one, as in plan.device=H100 ({', '.join(TABLE)})")
    return this_gpu() if accelerator == "cuda" else this_cpu()


def this_gpu() -> Device:
    """The first GPU of this machine, its memory as torch sees it; speeds of the table where its name is there, else of an A100."""
    about = torch.cuda.get_device_properties(0)
    known = gpu_named(about.name) or TABLE["A100-40"]
    return Device(about.name, float(about.total_memory), known.flops, known.bandwidth)


def gpu_named(name: str) -> Device | None:
    """The device of the table that a driver's name for it stands for ("NVIDIA H100 80GB HBM3"); None for an unknown one."""
    words = name.upper().replace("-", " ").split()
    memory = "-80" if any(word.startswith("80GB") for word in words) else "-40"
    for word in words:
        for found in (word, word + memory, f"RTX-{word}"):
            if found in TABLE:
                return TABLE[found]
    return None


@functools.cache
def this_cpu() -> Device:
    """This machine's CPU: the memory that a process may have, and how fast it multiplies and copies with the present number of threads."""
    flops = {"float32": _products_a_second(torch.float32), "bfloat16": _products_a_second(torch.bfloat16)}
    return Device("this CPU", memory_here(), flops, _bytes_a_second(), host=True)


def memory_here() -> float:
    """The machine's memory in bytes, or what its control group allows where that is less."""
    found = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    said = limit.read_text().strip() if limit.is_file() else "max"
    return min(found, float(said)) if said.isdigit() else found


def _products_a_second(dtype: torch.dtype) -> float:
    from rlhf_lightning.model.kernels import product

    matrix = torch.randn(SAMPLE, SAMPLE).to(dtype)
    with torch.no_grad():
        return 2 * SAMPLE**3 / _fastest(lambda: product(matrix, matrix))


def _bytes_a_second() -> float:
    block = torch.zeros(COPIED, dtype=torch.uint8)
    other = torch.ones_like(block)
    return 2 * COPIED / _fastest(lambda: block.copy_(other))


def _fastest(action: Callable[[], object]) -> float:
    """Seconds of the fastest of a few trials: others may use the machine."""
    spent = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        action()
        spent.append(time.perf_counter() - start)
    return max(min(spent), 1e-9)
