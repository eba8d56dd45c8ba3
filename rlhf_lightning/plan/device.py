"""Memory and speed of a device, by name or of this machine, and the memory of this process."""

from __future__ import annotations

import functools
import os
import platform
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from rlhf_lightning.errors import ConfigError

GIB = 2**30
MATRIX_SIZE = 1024
"""Rows and columns of the matrices that measure a CPU's speed."""
COPY_BYTES = 2**26
"""Bytes of the copy that measures a CPU's bandwidth."""
TRIALS = 3


@dataclass(frozen=True)
class Device:
    """A device of one process.

    Attributes:
        memory: bytes that a process can have. host: a CPU, whose memory all processes of a machine share.
        flops: FLOP/s by dtype, on dense matrices (float32 without TF32), of the data sheet or measured.
        bandwidth: of its memory, bytes per second.
    """

    name: str
    memory: float
    flops: dict[str, float]
    bandwidth: float
    host: bool = False

    def peak(self, precision: str) -> float:
        """FLOP/s under a setting of trainer.precision; those of float32 on a device without the dtype."""
        return self.flops.get(product_dtype(precision), self.flops["float32"])


def product_dtype(precision: str) -> str:
    """The dtype of matrix products under a setting of trainer.precision."""
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
"""GiB that torch sees, TFLOP/s in float32 and half precision (float32 sums, dense), GB/s.

Source: NVIDIA's data sheets, of SXM where it exists."""


def device_named(name: str, accelerator: str = "cpu") -> Device:
    """The device of a name; "here" is this machine's CPU, or its first GPU if `accelerator` is "cuda".

    Raises:
        ConfigError: "here" is a GPU, and torch sees none.
    """
    if name != "here":
        return TABLE[name]
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"plan.device=here: torch sees no GPU on this machine; name one, as in plan.device=H100 ({', '.join(TABLE)})")
    return this_gpu() if accelerator == "cuda" else this_cpu()


def this_gpu() -> Device:
    """The first GPU of this machine: memory as torch sees it, speeds of the table, or else an A100's."""
    properties = torch.cuda.get_device_properties(0)
    speeds = gpu_named(properties.name) or TABLE["A100-40"]
    return Device(properties.name, float(properties.total_memory), speeds.flops, speeds.bandwidth)


def gpu_named(name: str) -> Device | None:
    """The device of the table by its driver's name ("NVIDIA H100 80GB HBM3"); None for an unknown one."""
    words = name.upper().replace("-", " ").split()
    memory = "-80" if any(word.startswith("80GB") for word in words) else "-40"
    for word in words:
        for key in (word, word + memory, f"RTX-{word}"):
            if key in TABLE:
                return TABLE[key]
    return None


@functools.cache
def this_cpu() -> Device:
    """This machine's CPU, its speed measured with the present number of threads."""
    flops = {"float32": _products_a_second(torch.float32), "bfloat16": _products_a_second(torch.bfloat16)}
    return Device("this CPU", memory_here(), flops, _bytes_a_second(), host=True)


def memory_here() -> float:
    """The machine's memory in bytes, or the limit of its control group if that is less."""
    physical = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else "max"
    return min(physical, float(text)) if text.isdigit() else physical


def _products_a_second(dtype: torch.dtype) -> float:
    from rlhf_lightning.model.kernels import product

    matrix = torch.randn(MATRIX_SIZE, MATRIX_SIZE).to(dtype)
    with torch.no_grad():
        return 2 * MATRIX_SIZE**3 / _fastest(lambda: product(matrix, matrix))


def _bytes_a_second() -> float:
    block = torch.zeros(COPY_BYTES, dtype=torch.uint8)
    other = torch.ones_like(block)
    return 2 * COPY_BYTES / _fastest(lambda: block.copy_(other))


def _fastest(action: Callable[[], object]) -> float:
    """Seconds of the fastest of a few trials, since other programs may run."""
    seconds = []
    for _ in range(TRIALS):
        start = time.perf_counter()
        action()
        seconds.append(time.perf_counter() - start)
    return max(min(seconds), 1e-9)


def bytes_after_imports() -> float:
    """The memory of this process after all imports of a training."""
    import lightning  # noqa: F401
    import transformers  # noqa: F401
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    import rlhf_lightning.policy.module
    import rlhf_lightning.preference.module
    import rlhf_lightning.reward.module
    import rlhf_lightning.sft.module  # noqa: F401

    return _status("VmRSS") or peak_bytes()


def keeps_freed() -> bool:
    """True where the C library keeps freed blocks of some MiB: glibc, unless the environment forbids it."""
    return platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ


def peak_bytes() -> float:
    """Peak resident memory of this process."""
    # VmHWM, because ru_maxrss is inherited across exec.
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return _status("VmHWM") or (float(size) if sys.platform == "darwin" else size * 1024.0)


def _status(name: str) -> float:
    """A line of Linux's status of this process, in bytes; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0.0)
