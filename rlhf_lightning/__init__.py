"""Reward models and PPO from human feedback, on Lightning and Hydra.

    from rlhf_lightning import generate, load_policy, run

    result = run(["stage=sft", "sft.epochs=1"])
    policy = load_policy(result.folders["policy"])
    print(generate(policy, ["Review of a lamp:\\n"], max_new_tokens=20))

A name is imported when it is first used, so that `import rlhf_lightning` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlhf_lightning.cli.in_process import RunResult as RunResult
    from rlhf_lightning.cli.in_process import run as run
    from rlhf_lightning.flow import Comment as Comment
    from rlhf_lightning.flow import Edit as Edit
    from rlhf_lightning.flow import Experience as Experience
    from rlhf_lightning.flow import Feedback as Feedback
    from rlhf_lightning.flow import Message as Message
    from rlhf_lightning.flow import Prompts as Prompts
    from rlhf_lightning.flow import Ranking as Ranking
    from rlhf_lightning.flow import Rating as Rating
    from rlhf_lightning.flow import Rollout as Rollout
    from rlhf_lightning.flow import ScoredRollout as ScoredRollout
    from rlhf_lightning.flow import SpanLabel as SpanLabel
    from rlhf_lightning.flow import Spans as Spans
    from rlhf_lightning.flow import Thumbs as Thumbs
    from rlhf_lightning.registry import register as register
    from rlhf_lightning.reward.storage.folder import load_reward_model as load_reward_model
    from rlhf_lightning.runtime.policy import generate as generate
    from rlhf_lightning.runtime.policy import load_policy as load_policy

    __version__: str

_MODULES = {
    "cli.in_process": ("RunResult", "run"),
    "flow": (
        "Comment", "Edit", "Experience", "Feedback", "Message", "Prompts", "Ranking", "Rating", "Rollout", "ScoredRollout", "SpanLabel",
        "Spans", "Thumbs",
    ),
    "registry": ("register",),
    "reward.storage.folder": ("load_reward_model",),
    "runtime.policy": ("generate", "load_policy"),
}  # fmt: skip
_HOME = {name: module for module, names in _MODULES.items() for name in names}
__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # slow enough that a Ctrl-C could meet it

        return version("rlhf-lightning")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
