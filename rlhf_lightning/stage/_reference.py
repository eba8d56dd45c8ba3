"""Which weights of a policy a stage trains, and what it is compared with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from rlhf_lightning.model.language_model import LanguageModel


def prepare_policy_and_reference(run: Run, policy: LanguageModel, copy: Callable[[], LanguageModel]) -> LanguageModel:
    """Let policy_tuning choose what is trained. Returns the reference: the policy itself, read with its adapters off, or a copy.

    Args:
        copy: loads the start a second time; not called where adapters are trained.
    """
    from rlhf_lightning.model.adapters import has_adapters

    tune(run, policy)
    return policy if has_adapters(policy.model) else copy()


def tune(run: Run, policy: LanguageModel) -> None:
    """Let policy_tuning choose what is trained, and say how much it is where it isn't all."""
    run.build("policy_tuning")(policy.model)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in policy.model.parameters()]
    every, trained = sum(count for count, _ in counts), sum(count for count, learns in counts if learns)
    if trained < every:
        run.log(f"policy_tuning={run.component_of('policy_tuning').name}: {trained:,} of {every:,} weights are trained")


def apply_tuning_for_sft(run: Run, policy: LanguageModel) -> None:
    """`tune` for a warm-up on demonstrations. A tuning that needs pretrained weights leaves those of a backbone that begins at random ones
    to the training: adapters beside them would have nothing to adapt."""
    backbone, tuning = run.component_of("backbone"), run.component_of("policy_tuning")
    if "corpus" in backbone.needs and "pretrained" in tuning.needs:
        run.log(f"sft: backbone={backbone.name} begins at random weights and all are trained; policy_tuning={tuning.name} comes after that")
        return
    tune(run, policy)
