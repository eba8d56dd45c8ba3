"""What a process has before any model, and how much it ever had."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path

FIRST_STEPS = 60 * 2**20
"""Bytes that a first training touches beyond the imports, whatever the model: code of PyTorch, Lightning and the tokenizer that is loaded
on first use, and kernels that oneDNN makes. Measured (benchmarks/plan.py)."""


def bytes_after_imports() -> float:
    """The memory of this process once everything that a training imports is imported, with what its first steps touch."""
    import lightning  # noqa: F401
    import transformers  # noqa: F401
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    import rlhf_lightning.policy.module
    import rlhf_lightning.preference.module
    import rlhf_lightning.reward.module
    import rlhf_lightning.sft.module  # noqa: F401

    return resident_bytes() + FIRST_STEPS


def keeps_freed() -> bool:
    """Whether the C library of this process keeps blocks of some MiB when they are freed: glibc, unless the environment tells it not to."""
    return platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ


def resident_bytes() -> float:
    """The memory of this process, as the system counts it."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS"))
        return float(line.split()[1]) * 1024
    return peak_bytes()


def peak_bytes() -> float:
    """The most that this process ever had."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) if sys.platform == "darwin" else most * 1024.0
