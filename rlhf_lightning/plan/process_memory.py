"""Memory of this process: before any model, now, and at its peak."""

from __future__ import annotations

import os
import platform
import resource
import sys
from pathlib import Path


def bytes_after_imports() -> float:
    """The memory of this process after all imports of a training."""
    import lightning  # noqa: F401
    import transformers  # noqa: F401
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: F401

    import rlhf_lightning.policy.module
    import rlhf_lightning.preference.module
    import rlhf_lightning.reward.module
    import rlhf_lightning.sft.module  # noqa: F401

    return resident_bytes()


def keeps_freed() -> bool:
    """True where the C library keeps freed blocks of some MiB: glibc, unless the environment forbids it."""
    return platform.libc_ver()[0] == "glibc" and "MALLOC_MMAP_THRESHOLD_" not in os.environ


def resident_bytes() -> float:
    """Resident memory of this process now."""
    return _status("VmRSS") or peak_bytes()


def peak_bytes() -> float:
    """Peak resident memory of this process."""
    # VmHWM, because ru_maxrss is inherited across exec.
    return _status("VmHWM") or _max_rss()


def _status(name: str) -> float:
    """A line of Linux's status of this process, in bytes; 0 elsewhere."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0.0)


def _max_rss() -> float:
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(size) if sys.platform == "darwin" else size * 1024.0
