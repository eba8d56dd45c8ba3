"""What must not change an update: padding or packing, and how many parts a minibatch is learned in. GPT-2 and Llama shapes, float32."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import lightning as L
import pytest
import torch
from torch import Tensor

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.flow import Experience, Prompts, Rollout
from rlhf_lightning.model import text_vectors
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.critic.separate import separate as separate_critic
from rlhf_lightning.policy.critic.shared import shared_critic
from rlhf_lightning.policy.experience import PPOComponents
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.module import PPOModule
from rlhf_lightning.policy.objective import token_weights
from rlhf_lightning.policy.reduction.fixed_length import fixed_length
from rlhf_lightning.policy.reduction.sequence_mean import sequence_mean
from rlhf_lightning.policy.reduction.sequence_sum import sequence_sum
from rlhf_lightning.policy.reduction.token_mean import token_mean
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
from rlhf_lightning.rollout.sampler.native import native

PROMPTS = ["It", "Review of a lamp:\n", "The kettle boils water", "a quiet fan, and it costs"]
REDUCTIONS = [token_mean, sequence_mean, sequence_sum, fixed_length]


def score(rollout: Rollout) -> Tensor:
    return rollout.response_ids[:, 0] % 7 - 3.0


def module_of(language_model: LanguageModel, separate: bool = False, reduction: Any = token_mean, **settings: Any) -> PPOModule:
    torch.manual_seed(0)
    critic = (separate_critic if separate else shared_critic)(language_model, None)
    torch.nn.init.normal_(critic.head.weight, std=0.1)
    parts = PPOComponents(partial(native, max_new_tokens=12), score, [], gae, ppo_clip, reduction, clipped_value_loss, FixedKL())
    reference = LanguageModel(copy.deepcopy(language_model.model), language_model.tokenizer)
    return PPOModule(Policy(language_model, critic), Policy(reference), parts, PPOSettings(num_minibatches=1, **settings))


@pytest.fixture
def experience(language_model) -> Experience:
    torch.manual_seed(1)
    rollout = native(language_model, language_model.encode_prompts(PROMPTS, 12).repeat(3), max_new_tokens=12)
    scored = module_of(language_model).experience_maker.score(rollout)
    # Off the policy that is trained, so that the clip has something to do.
    scored.old_log_probs = scored.old_log_probs + 0.3 * torch.randn_like(scored.old_log_probs) * scored.response_mask
    return gae(scored)


def learned(module: PPOModule, experience: Experience, micro_batch: int | None) -> tuple[float, dict[str, Tensor]]:
    """The loss and the gradient of a minibatch, from parts."""
    module.zero_grad()
    mask = experience.response_mask
    weights, share = token_weights(module.components.reduction, mask), mask / mask.sum()
    total = 0.0
    for rows in torch.arange(len(experience)).split(micro_batch or len(experience)):
        loss, _ = module.loss(experience.select(rows), weights[rows], share[rows])
        loss.backward()
        total += loss.item()
    return total, {name: p.grad.clone() for name, p in module.policy.named_parameters() if p.grad is not None}


def assert_same(one: tuple[float, dict[str, Tensor]], two: tuple[float, dict[str, Tensor]]) -> None:
    assert one[0] == pytest.approx(two[0], abs=1e-6, rel=1e-5)
    assert one[1].keys() == two[1].keys()
    for name, gradient in one[1].items():
        assert (gradient - two[1][name]).abs().max() < 1e-5 * max(1.0, gradient.abs().max().item()), name


@pytest.mark.parametrize("entropy_coef", [0.0, 0.1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("micro_batch", [1, 5, 12])
def test_a_minibatch_learned_in_parts_is_the_minibatch(language_model, experience, reduction, micro_batch, entropy_coef):
    module = module_of(language_model, reduction=reduction, entropy_coef=entropy_coef)
    assert_same(learned(module, experience, micro_batch), learned(module, experience, None))


@pytest.mark.parametrize("separate", [False, True])
def test_packed_and_padded_learn_the_same(language_model, experience, monkeypatch, separate):
    module = module_of(language_model, separate, entropy_coef=0.1)
    packed = learned(module, experience, None)
    monkeypatch.setattr(text_vectors, "supports_packing", lambda trunk: False)
    assert_same(packed, learned(module, experience, None))


def test_the_order_of_a_batch_is_nothing_to_learn_from(language_model, experience):
    module = module_of(language_model)
    order = torch.randperm(len(experience), generator=torch.Generator().manual_seed(0))
    assert_same(learned(module, experience, None), learned(module, experience.select(order), None))


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_reduction_is_the_sum_by_its_weights(reduction):
    torch.manual_seed(0)
    mask = (torch.arange(6) < torch.tensor([6, 2, 0, 1])[:, None]).long()
    losses = torch.randn(4, 6, dtype=torch.float64)
    expected = reduction(losses, mask)
    assert (token_weights(reduction, mask) * losses).sum() == pytest.approx(expected.item(), rel=1e-6)
    assert (token_weights(reduction, mask)[mask == 0] == 0).all()
    assert (token_weights(reduction, mask * 0) == 0).all()


class Watching(PPOModule):
    """Remembers whether each minibatch is learned from with the weights of now."""

    def loss(self, part: Any, *rest: Any) -> Any:
        found = self.policy(part).log_probs.detach()
        with torch.autocast("cpu", enabled=False), torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
            now = copy.deepcopy(self.policy)(part).log_probs.detach()
        self.seen = [*getattr(self, "seen", []), (found - now).abs().max().item()]
        return super().loss(part, *rest)


@pytest.mark.parametrize("micro_batch", [None, 3])
def test_under_bfloat16_every_step_sees_the_weights_of_the_step_before(tiny_of, micro_batch):
    """One autocast spans an iteration: it would keep its copies of the weights if Lightning hadn't switched its cache off."""
    language_model = tiny_of("gpt2")
    before = {name: p.clone() for name, p in language_model.model.named_parameters()}
    plain = module_of(language_model)
    settings = PPOSettings(updates=2, epochs=2, num_minibatches=2, learning_rate=1e-2, micro_batch_size=micro_batch)
    module = Watching(plain.policy, plain.reference, plain.components, settings)
    prompts: Prompts = language_model.encode_prompts(PROMPTS, 12)
    loader = torch.utils.data.DataLoader([prompts, prompts], batch_size=None)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, precision="bf16-mixed", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, loader)
    assert max(module.seen) < 1e-6
    assert any((p != before[name]).any() for name, p in language_model.model.named_parameters() if "mlp" in name)
