"""The `ppo` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.registry import section
from rlhf_lightning.training.settings import LearningRates


@section("ppo")
@dataclass
class PPOSettings:
    """Policy optimisation.

    Details: docs/ppo_details.md#epochs-minibatches-micro-batches.

    Attributes:
        updates: iterations of experience making and policy update.
        prompts_per_update: distinct prompts of one rollout, over all processes.
        responses_per_prompt: responses sampled for each; group estimators (rloo, grpo) need at least two.
        epochs: passes over each rollout.
        num_minibatches: optimizer steps of each pass.
        micro_batch_size: responses of a forward pass in optimisation; None takes a complete minibatch. Less memory, the same gradient:
            each token keeps its weight in the reduction of the minibatch.
        learning_rate: the peak of the schedule; null: the default for the model (`default_rates`).
        critic_learning_rate: learning rate of the critic's head and trunk; null: learning_rate, or, if that is null too and the model is
            pretrained, ten times its default, as verl and OpenRLHF.
        entropy_coef: weight of the full distribution's entropy as a bonus.
        value_coef: weight of the critic's loss.
        ptx_coef: weight of the likelihood of the task's demonstrations, sft.batch_size of them per minibatch, against forgetting
            (Ouyang et al. 2022: 27.8 on a sum over tokens; here it weights a mean).
        max_grad_norm: larger gradients are scaled down to this L2 norm.
        target_kl: stop an iteration's epochs once the approximate KL to the behaviour policy passes 1.5 times this; all ranks together.
        self_checks: check the first batch before the first update, and stop if a check fails (policy.self_checks).
        held_out_scorer: folder or Hub name of a second reward model for monitoring, logged as objective/held_out_scores: if the
            score rises and they fall, the policy games the first one.
        held_out_every: updates from one held-out scoring to the next.
        max_unscorable: maximal fraction of an update's responses without a score (NaN, None), else the run stops; one is always allowed,
            all never. They are excluded from update and baselines, and logged as objective/unscorable.
        stop_on_alarm: end the training at the first alarm (policy.alarms), and save the policy as it then is.
    """

    default_rates: ClassVar = LearningRates(new=2e-4, pretrained=1e-6)
    updates: PositiveInt = 40
    prompts_per_update: PositiveInt = 24
    responses_per_prompt: PositiveInt = 4
    epochs: PositiveInt = 2
    num_minibatches: PositiveInt = 4
    micro_batch_size: PositiveInt | None = None
    learning_rate: PositiveFloat | None = None
    critic_learning_rate: PositiveFloat | None = None
    entropy_coef: float = 0.0
    value_coef: NonNegativeFloat = 0.1
    ptx_coef: NonNegativeFloat = 0.0
    max_grad_norm: PositiveFloat = 1.0
    target_kl: PositiveFloat | None = None
    self_checks: bool = True
    held_out_scorer: ModelPath | None = None
    held_out_every: PositiveInt = 1
    max_unscorable: Annotated[float, Field(ge=0, lt=1)] = 0.1
    stop_on_alarm: bool = False
