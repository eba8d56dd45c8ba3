"""What a process has before any model, and how much it ever had."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path

FIRST_STEPS = 60 * 2**20
"""Bytes that a first training touches beyond the imports, whatever the model: code of PyTorch, Lightning and the tokenizer that is loaded
on first use, and kernels that oneDNN makes. Estimated."""


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
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> float:
    """The most that this process ever had."""
    # Of Linux's two counts the other one begins with what the starter of the process had.
    return _status("VmHWM") or _most_ever()


def _status(name: str) -> float:
    """A line of Linux's count of this process, in bytes; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def _most_ever() -> float:
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most) if sys.platform == "darwin" else most * 1024.0
