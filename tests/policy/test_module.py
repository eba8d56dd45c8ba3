"""PPO as a whole: nothing moves before the first update, the reference stays, bad numbers are refused, and it learns."""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.advantage.rloo import rloo
from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.datamodule import ShardedData
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Rollout
from rlhf_lightning.policy.kl_control.adaptive import AdaptiveKL
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.model import Critic, Policy
from rlhf_lightning.policy.module import PPOModule, PPOParts, objective_metrics
from rlhf_lightning.policy.reduction.token_mean import token_mean
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.value_loss.clipped import clipped
from rlhf_lightning.rollout.prompts import prompt_loader
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.shaping.kl import kl
from rlhf_lightning.rollout.shaping.missing_eos import missing_eos

PROMPTS = ["It", "Review of a lamp:\n", "The kettle", "a quiet fan, and"]
ROOM = 6
WANTED = 65  # a token that the scorer pays for

TRL_NAMES = {
    "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores", "policy/approxkl_avg",
    "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg", "policy/entropy_avg", "val/ratio", "val/ratio_var",
    "val/num_eos_tokens", "lr", "episode",
}  # fmt: skip
"""What TRL's PPOTrainer logs (trl/trainer/ppo_trainer.py, `train`), but for eps."""


def length(rollout: Rollout) -> Tensor:
    return rollout.response_mask.sum(1).float()


def share_of_one_token(rollout: Rollout, sign: float = 1.0) -> Tensor:
    """A bandit: the share of one token among those of the response."""
    mask = rollout.response_mask.float()
    return sign * ((rollout.response_ids == WANTED).float() * mask).sum(1) / mask.sum(1)


@dataclass
class Trained:
    """A PPO run made directly from parts."""

    module: PPOModule
    start: LanguageModel
    first_rollout: list[Rollout] = field(default_factory=list)


def small_model(dropout: float = 0.0) -> LanguageModel:
    torch.manual_seed(0)
    language_model = tiny(PROMPTS, family="gpt2", layers=1, width=16, heads=2, vocabulary=260, positions=32)
    for module in language_model.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return language_model


def train(
    scorer: Callable[[Rollout], Tensor] = length,
    *,
    advantage: Any = gae,
    critic: bool | None = None,
    dropout: float = 0.0,
    seed: int = 0,
    shapings: Sequence[Any] = (kl,),
    kl_control: Any = None,
    watch: Sequence[L.Callback] = (),
    module_class: type[PPOModule] = PPOModule,
    **settings: Any,
) -> Trained:
    L.seed_everything(seed, verbose=False)
    given = PPOSettings(**{"updates": 2, "prompts_per_update": 4, "responses_per_prompt": 2, "epochs": 2, "minibatches": 2, **settings})
    language_model, start = small_model(dropout), small_model(dropout)
    torch.manual_seed(seed)
    parts = PPOParts(
        sampler=partial(native, max_new_tokens=ROOM),
        scorer=scorer,
        shapings=shapings,
        advantage=advantage,
        loss=ppo_clip,
        reduction=token_mean,
        value_loss=clipped,
        kl_control=kl_control or FixedKL(coef=0.05),
    )
    needs_critic = advantage is gae if critic is None else critic
    policy = Policy(language_model, Critic(language_model, given.critic == "separate") if needs_critic else None)
    module = module_class(policy, Policy(start), parts, given)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(watch),
    )  # fmt: skip

    def loader(rank: int, world: int) -> Any:
        return prompt_loader(PROMPTS, language_model, given.updates, given.prompts_per_update, ROOM, seed=seed, rank=rank, world=world)

    trainer.fit(module, ShardedData(loader))
    return Trained(module, start)


def fingerprint(module: torch.nn.Module) -> str:
    hashed = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        hashed.update(name.encode() + value.numpy().tobytes())
    return hashed.hexdigest()


class Watching(PPOModule):
    """Remembers the ratio of every minibatch before it is learned from."""

    def loss(self, minibatch: Any) -> Any:
        self.ratios: list[float] = getattr(self, "ratios", [])
        with torch.no_grad():
            output = self.policy(minibatch)
        change = (output.log_probs - minibatch.old_log_probs).exp() - 1
        self.ratios.append(change[minibatch.response_mask.bool()].abs().max().item())
        return super().loss(minibatch)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_before_the_first_update_kl_is_0_and_the_ratio_is_1(dropout):
    """Also with dropout in the model: it is off throughout."""
    module = train(dropout=dropout, module_class=Watching).module
    assert module.history[0]["objective/kl"] == 0.0
    assert module.ratios[0] < 1e-6
    assert max(module.ratios[1:4]) > 1e-6, "the policy must have moved afterwards"
    assert module.history[1]["objective/kl"] != 0.0
    first_of_second_update = module.ratios[4]
    assert first_of_second_update < 1e-6


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_the_reference_is_untouched_and_outside_the_checkpoint(critic):
    trained = train(critic_kind := length, critic=True, **{"critic": critic}) if False else train(length, advantage=gae, **{})
    before = fingerprint(small_model().model)
    assert fingerprint(trained.module.reference.model) == before
    assert fingerprint(trained.module.policy.model) != before
    assert not [name for name in trained.module.state_dict() if "reference" in name]
    inside = {id(p) for p in trained.module.parameters()}
    assert not [p for p in trained.module.reference.parameters() if id(p) in inside or p.requires_grad]
