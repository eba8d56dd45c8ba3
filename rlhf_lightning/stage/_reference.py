"""The trained weights of a policy, and its reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from rlhf_lightning.model.language_model import LanguageModel


def prepare_policy_and_reference(run: Run, policy: LanguageModel, copy: Callable[[], LanguageModel]) -> LanguageModel:
    """Apply policy_tuning; returns the reference: the policy with its adapters off, or a copy.

    Args:
        copy: loads the start a second time; not called where adapters are trained.
    """
    from rlhf_lightning.model.adapters import has_adapters

    tune(run, policy)
    return policy if has_adapters(policy.model) else copy()


def tune(run: Run, policy: LanguageModel) -> None:
    """Apply policy_tuning, and log how many weights are trained unless all are."""
    run.build("policy_tuning")(policy.model)
    counts = [(parameter.numel(), parameter.requires_grad) for parameter in policy.model.parameters()]
    every, trained = sum(count for count, _ in counts), sum(count for count, learns in counts if learns)
    half = {str(p.dtype).removeprefix("torch.") for p in policy.model.parameters() if p.requires_grad and p.element_size() < 4}
    if half:
        run.log(f"the trained weights are in {half.pop()}, where small updates are lost: add backbone.dtype=float32, or policy_tuning=lora")
    if trained < every:
        run.log(f"policy_tuning={run.component_of('policy_tuning').name}: {trained:,} of {every:,} weights are trained")


def apply_tuning_for_sft(run: Run, policy: LanguageModel) -> None:
    """Apply policy_tuning for a warm-up on demonstrations.

    A backbone at random weights is trained in full: adapters would have nothing to adapt.
    """
    backbone, tuning = run.component_of("backbone"), run.component_of("policy_tuning")
    if "corpus" in backbone.needs and "pretrained" in tuning.needs:
        run.log(f"sft: backbone={backbone.name} begins at random weights and all are trained; policy_tuning={tuning.name} comes after that")
        return
    tune(run, policy)
