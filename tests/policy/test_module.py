"""PPO as a whole: nothing moves before the first update, the reference stays, bad numbers are refused, and it learns."""

from __future__ import annotations

import copy
import hashlib
import math
import os
import random
import resource
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.advantage.reinforce_pp import reinforce_pp
from rlhf_lightning.advantage.remax import remax
from rlhf_lightning.advantage.rloo import rloo
from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.errors import ConfigError, UserError
from rlhf_lightning.flow import Experience, Rollout, ScoredRollout
from rlhf_lightning.interfaces import Demonstration, TaskPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.model.token_log_probs import response_log_probs
from rlhf_lightning.policy.critic.separate import separate as separate_critic
from rlhf_lightning.policy.critic.shared import shared_critic
from rlhf_lightning.policy.experience import PPOComponents
from rlhf_lightning.policy.kl.reward import RewardKL
from rlhf_lightning.policy.kl_control.adaptive import AdaptiveKL
from rlhf_lightning.policy.kl_control.fixed import FixedKL
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.metrics import objective_metrics
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.module import PPOModule
from rlhf_lightning.policy.reduction.token_mean import token_mean
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
from rlhf_lightning.rollout.prompts import prompt_loader
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.shaping.missing_eos import missing_eos
from rlhf_lightning.rollout.shaping.normalise_score import NormaliseScore
from rlhf_lightning.schedule.anneal import anneal
from rlhf_lightning.schedule.constant import constant
from rlhf_lightning.sft.module import demonstration_loader
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.tensors import score_on_last_token
from rlhf_lightning.tracking.progress import StageProgress
from rlhf_lightning.training.datamodule import ShardedData
from rlhf_lightning.training.distributed import batch_at
from rlhf_lightning.training.optimizer import Optimization

kl = RewardKL().shape_rewards
PROMPTS = ["It", "Review of a lamp:\n", "The kettle", "a quiet fan, and"]
ROOM = 6
HALF = 130

TRL_NAMES = {
    "objective/kl", "objective/entropy", "objective/non_score_reward", "objective/rlhf_reward", "objective/scores", "policy/approxkl_avg",
    "policy/clipfrac_avg", "loss/policy_avg", "loss/value_avg", "val/clipfrac_avg", "policy/entropy_avg", "val/ratio", "val/ratio_var",
    "val/num_eos_tokens", "lr", "episode",
}  # fmt: skip
"""What TRL's PPOTrainer logs (trl/trainer/ppo_trainer.py, `train`), but for eps."""


def length(rollout: Rollout) -> Tensor:
    return rollout.response_mask.sum(1).float()


def share_of_a_half(rollout: Rollout, sign: float = 1.0) -> Tensor:
    mask = rollout.response_mask.float()
    return sign * ((rollout.response_ids < HALF).float() * mask).sum(1) / mask.sum(1)


def small_model(dropout: float = 0.0) -> LanguageModel:
    torch.manual_seed(0)
    language_model = tiny(PROMPTS, family="gpt2", layers=1, width=16, heads=2, vocabulary=260, positions=32)
    for module in language_model.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = dropout
    return language_model


def demonstrated(demonstrations: Sequence[tuple[str, str]], language_model: LanguageModel, rank: int, world: int) -> Any:
    rows = [Demonstration(*pair) for pair in demonstrations]
    return demonstration_loader(rows, language_model, SFTSettings(batch_size=2), 0, rank, world)[0]


def train(
    scorer: Callable[[Rollout], Tensor] = length,
    *,
    advantage: Any = gae,
    dropout: float = 0.0,
    seed: int = 0,
    shapings: Sequence[Any] = (kl,),
    kl_control: Any = None,
    greedy: Any = None,
    demonstrations: Sequence[tuple[str, str]] = (),
    critic: str = "shared",
    warmup: int = 0,
    watch: Sequence[L.Callback] = (),
    module_class: type[PPOModule] = PPOModule,
    prompts: Sequence[str] = PROMPTS,
    sampler: Any = None,
    log: Callable[[str], None] = lambda text: None,
    schedule: Any = anneal,
    **settings: Any,
) -> PPOModule:
    L.seed_everything(seed, verbose=False)
    given = PPOSettings(**{"updates": 2, "prompts_per_update": 4, "responses_per_prompt": 2, "epochs": 2, "num_minibatches": 2, **settings})
    language_model = small_model(dropout)
    torch.manual_seed(seed)
    parts = PPOComponents(
        sampler=sampler or partial(native, max_new_tokens=ROOM),
        scorer=scorer,
        shapings=shapings,
        advantage=advantage,
        loss=ppo_clip,
        reduction=token_mean,
        value_loss=clipped_value_loss,
        kl_control=kl_control or FixedKL(coef=0.05),
        greedy=greedy,
        demonstrations=partial(demonstrated, demonstrations, language_model) if demonstrations else None,
        log=log,
    )
    made = partial(separate_critic, warmup=warmup) if critic == "separate" else shared_critic
    policy = Policy(language_model, made(language_model, None) if advantage is gae else None)
    module = module_class(policy, Policy(small_model(dropout)), parts, given)
    module.optimization = Optimization(schedule=schedule)
    trainer = L.Trainer(
        accelerator="cpu", devices=1, max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=list(watch),
    )  # fmt: skip

    def loader(rank: int, world: int) -> Any:
        rows = list(map(TaskPrompt, prompts))
        return prompt_loader(rows, language_model, given.updates, given.prompts_per_update, ROOM, seed=seed, rank=rank, world=world)

    trainer.fit(module, ShardedData(loader))
    return module


def fingerprint(module: torch.nn.Module) -> str:
    hashed = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        hashed.update(name.encode() + value.numpy().tobytes())
    return hashed.hexdigest()


class Watching(PPOModule):
    """Remembers the ratio of every minibatch before it is learned from."""

    def loss(self, minibatch: Any, *rest: Any) -> Any:
        self.ratios: list[float] = getattr(self, "ratios", [])
        with torch.no_grad():
            output = self.policy(minibatch)
        change = (output.log_probs - minibatch.old_log_probs).exp() - 1
        self.ratios.append(change[minibatch.response_mask.bool()].abs().max().item())
        return super().loss(minibatch, *rest)


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_before_the_first_update_kl_is_0_and_the_ratio_is_1(dropout):
    """Also with dropout in the model: it is off throughout."""
    module = train(dropout=dropout, module_class=Watching)
    assert module.history[0]["objective/kl"] == 0.0
    assert module.ratios[0] < 1e-6
    assert max(module.ratios[1:4]) > 1e-6, "the policy must have moved afterwards"
    assert module.history[1]["objective/kl"] != 0.0
    first_of_second_update = module.ratios[4]
    assert first_of_second_update < 1e-6


@pytest.mark.parametrize("critic", ["shared", "separate"])
def test_the_reference_is_untouched_and_outside_the_checkpoint(critic):
    module = train(critic=critic)
    before = fingerprint(small_model().model)
    assert fingerprint(module.reference.model) == before
    assert fingerprint(module.policy.model) != before
    assert not [name for name in module.state_dict() if "reference" in name]
    inside = {id(p) for p in module.parameters()}
    assert not [p for p in module.reference.parameters() if id(p) in inside or p.requires_grad]


def test_the_kl_coefficient_is_in_the_checkpoint():
    module = train(kl_control=AdaptiveKL(coef=0.3, target=0.001, horizon=10))
    again = AdaptiveKL(coef=0.2)
    state = {name.removeprefix("kl_control."): value for name, value in module.state_dict().items() if name.startswith("kl_control.")}
    again.load_state_dict(state)
    assert again.value() == module.kl_control.value() != 0.3
    assert module.history[0]["objective/kl_coef"] == pytest.approx(0.3)


def test_the_statistics_of_a_shaping_are_in_the_checkpoint():
    module = train(shapings=[NormaliseScore(), kl])
    again = NormaliseScore()
    state = {name.removeprefix("shapings.0."): value for name, value in module.state_dict().items() if name.startswith("shapings.0.")}
    again.load_state_dict(state)
    assert again.count == 16, "eight responses of two updates"
    assert again.mean == module.shapings[0].mean > 1.0


def test_remax_compares_with_the_likeliest_response_to_the_same_prompt():
    seen: list[ScoredRollout] = []

    def watch(scored: ScoredRollout) -> Experience:
        seen.append(scored)
        return remax(scored)

    module = train(advantage=watch, greedy=partial(native, max_new_tokens=ROOM, temperature=0.0), learning_rate=1e-12)
    for scored in seen:
        pairs = scored.baseline_scores.view(-1, 2)
        assert torch.equal(pairs[:, 0], pairs[:, 1]), "two responses a prompt"
        prompts = small_model().encode_prompts(scored.prompts, ROOM)
        again = native(small_model(), prompts, max_new_tokens=ROOM, temperature=0.0)
        assert torch.equal(scored.baseline_scores, length(again))
    assert module.policy.critic is None


@pytest.mark.parametrize("score", [math.inf, -math.inf])
def test_a_score_that_is_no_number_is_refused_by_name(score):
    def broken(rollout: Rollout) -> Tensor:
        return torch.full((len(rollout),), score)

    with pytest.raises(UserError, match=r"broken returned (inf|-inf) for the response"):
        train(broken)


class Exploding(PPOModule):
    """Gives a loss without a gradient that is a number, in the minibatches of `bad`."""

    bad: Sequence[int] = ()
    seen = 0

    def loss(self, minibatch: Any, *rest: Any) -> Any:
        if self.seen in self.bad:
            self.before = fingerprint(self.policy)
        elif self.seen - 1 in self.bad:
            assert fingerprint(self.policy) == self.before, "a gradient that is no number was applied"
        loss, metrics = super().loss(minibatch, *rest)
        self.seen += 1
        return (loss * math.nan if self.seen - 1 in self.bad else loss), metrics


@pytest.mark.parametrize(("bad", "survives"), [((), True), ((1,), True), ((1, 4, 6), True), ((4, 5, 6), False)])
def test_a_gradient_that_is_no_number_is_dropped_and_three_in_a_row_stop_the_run(bad, survives):
    class Here(Exploding):
        pass

    Here.bad = bad
    if survives:
        module = train(module_class=Here, updates=3)
        assert (module.bad_updates, module.bad_in_a_row) == (len(bad), 0)
        assert [step["bad_updates"] for step in module.history] == [sum(number < 4 * update for number in bad) for update in (1, 2, 3)]
        assert all(math.isfinite(value) for step in module.history for value in step.values())
        assert all(torch.isfinite(p).all() for p in module.parameters())
    else:
        with pytest.raises(
            UserError, match=r"3 updates in a row had a loss or a gradient .* at step 2: the loss is nan.*; lower ppo.learning_rate"
        ):
            train(module_class=Here, updates=3)


@pytest.mark.parametrize(("target", "minibatches"), [(None, 8), (1e9, 8), (1e-12, 2)])
def test_target_kl_stops_the_epochs_of_an_update(target, minibatches):
    """At the end of the epoch that passes it, and anew in the next update."""
    history = train(target_kl=target, epochs=4, learning_rate=1e-2).history
    assert [metrics["policy/minibatches"] for metrics in history] == [minibatches, minibatches]


def test_the_history_has_the_names_of_trl():
    module = train(updates=3)
    assert len(module.history) == 3
    for number, metrics in enumerate(module.history, start=1):
        assert metrics.keys() >= TRL_NAMES
        assert all(math.isfinite(value) for value in metrics.values())
        assert metrics["episode"] == number * 8
    rates = [metrics["lr"] for metrics in module.history]
    assert rates == pytest.approx([2e-4, 2e-4 * 2 / 3, 2e-4 / 3])
    assert {f["lr"] for f in train(schedule=constant).history} == {2e-4}


def test_the_objective_by_hand(scored_of):
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    old, ref = torch.tensor([[-1.0, -2.0, 0.0], [-1.0, -1.0, -1.0]]), torch.tensor([[-1.5, -2.0, 0.0], [-1.0, -2.0, -1.0]])
    scored = scored_of(
        mask, scores=torch.tensor([1.0, 3.0]), rewards=torch.tensor([[-0.1, 1.0, 0.0], [0.0, -0.2, 3.0]]), old_log_probs=old,
        ref_log_probs=ref, entropy=torch.ones(2, 3), kl_coef=0.2, has_eos=torch.tensor([True, False]),
    )  # fmt: skip
    metrics = {name: value.item() for name, value in objective_metrics(scored).items()}
    assert metrics == pytest.approx(
        {
            "objective/kl": 0.75,
            "objective/entropy": 2.5,
            "objective/scores": 2.0,
            "objective/rlhf_reward": 1.85,
            "objective/non_score_reward": -0.15,
            "objective/kl_coef": 0.2,
            "val/num_eos_tokens": 1.0,
            "val/response_length": 2.5,
        }
    )


def test_a_seed_says_everything():
    one, two, other = (train(seed=seed, critic="separate") for seed in (3, 3, 4))
    assert fingerprint(one.policy) == fingerprint(two.policy)
    assert one.history == two.history
    assert fingerprint(one.policy) != fingerprint(other.policy)


@pytest.mark.parametrize(
    ("advantage", "sign"),
    [
        (gae, 1.0),
        (rloo, -1.0),
        *(pytest.param(*case, marks=pytest.mark.full) for case in [(gae, -1.0), (rloo, 1.0), (grpo, 1.0), (grpo, -1.0)]),
    ],
)
def test_it_learns_what_the_scorer_pays_for(advantage, sign):
    """A bandit: the score is the share of tokens from one half of the vocabulary, a half at the start."""
    settings = {"updates": 20, "responses_per_prompt": 16, "learning_rate": 1e-2, "schedule": constant}
    history = train(partial(share_of_a_half, sign=sign), advantage=advantage, kl_control=FixedKL(coef=0.0), **settings).history
    shares = [sign * metrics["objective/scores"] for metrics in history]
    assert 0.4 < shares[0] < 0.6
    assert shares[-1] > 0.9 if sign > 0 else shares[-1] < 0.1


def test_a_penalty_on_kl_holds_the_policy_near_its_start():
    settings = {"updates": 8, "responses_per_prompt": 8, "learning_rate": 1e-2, "schedule": constant, "advantage": rloo}
    free, held = (train(share_of_a_half, kl_control=FixedKL(coef=coef), **settings) for coef in (0.0, 1.0))
    assert held.history[-1]["objective/kl"] < 0.5 * free.history[-1]["objective/kl"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_shapings_are_applied_in_their_order(order):
    def add(scored: ScoredRollout) -> ScoredRollout:
        return replace(scored, rewards=scored.rewards + scored.response_mask)

    def double(scored: ScoredRollout) -> ScoredRollout:
        return replace(scored, rewards=scored.rewards * 2)

    seen: list[ScoredRollout] = []

    def watch(scored: ScoredRollout) -> Experience:
        seen.append(scored)
        return rloo(scored)

    train(advantage=watch, shapings=[(add, double)[i] for i in order])
    mask = seen[0].response_mask.float()
    plain = score_on_last_token(seen[0].scores, seen[0].response_mask)
    assert torch.equal(seen[0].rewards, (plain + mask) * 2 if order == (0, 1) else plain * 2 + mask)
    assert torch.equal(seen[0].scores, mask.sum(1)), "scores stay as the scorer gave them"


def test_a_cut_response_pays_before_kl_is_taken_off():
    """The default of stage=ppo: missing_eos, then the KL; at the start KL is 0, so that the reward is the score less the penalty."""
    metrics = train(shapings=[partial(missing_eos, penalty=2.0), kl]).history[0]
    cut = 8 - metrics["val/num_eos_tokens"]
    assert metrics["objective/non_score_reward"] == pytest.approx(-2.0 * cut / 8)


def test_without_a_critic_nothing_is_valued():
    module = train(advantage=rloo)
    assert module.policy.critic is None
    assert not [name for name in module.history[0] if "value" in name or name == "val/clipfrac_avg"]


def test_a_separate_critic_is_trained_too():
    module = train(critic="separate")
    fresh = copy.deepcopy(small_model().model.base_model)
    assert fingerprint(module.policy.critic.trunk) != fingerprint(fresh)


def test_prompts_that_cannot_be_shared_stop_the_run_with_their_own_message():
    """Also before the bar of the terminal stands."""
    with pytest.raises(ConfigError, match="there are no prompts to learn on"):
        train(prompts=[], watch=[StageProgress("ppo", 2, {})])


SAID = [("It", " is a lamp."), ("The kettle", " boils."), ("a quiet fan, and", " it costs little.")]


def nothing(rollout: Rollout) -> Tensor:
    return torch.zeros(len(rollout))


def test_demonstrations_beside_the_reward_are_learned_as_in_sft():
    """With nothing else to learn, ptx_coef times the mean negative log-likelihood of a minibatch's demonstrations is all."""
    settings = {"advantage": rloo, "shapings": (), "learning_rate": 3e-3, "updates": 10, "self_checks": False}
    mixed = train(nothing, demonstrations=SAID, ptx_coef=0.5, **settings)
    losses = [step["loss/ptx_avg"] for step in mixed.history]
    assert losses[-1] < 0.8 * losses[0]
    assert "loss/ptx_avg" not in train(nothing, **settings).history[0]


def test_the_gradient_of_the_demonstrations_is_that_of_sft(monkeypatch):
    seen: list[dict[str, Tensor]] = []
    monkeypatch.setattr(PPOModule, "_optimizer_step", lambda module, *rest: seen.append({n: p.grad.clone() for n, p in named(module)}))

    def named(module: PPOModule) -> Any:
        return module.language_model.model.named_parameters()

    module = train(
        nothing, advantage=rloo, shapings=(), demonstrations=SAID, ptx_coef=2.0, updates=1, epochs=1, num_minibatches=1, self_checks=False
    )
    batch = batch_at(demonstrated(SAID, module.language_model, 0, 1), 0)
    module.language_model.model.zero_grad()
    log_probs, tokens = response_log_probs(module.language_model, batch)
    (-2.0 * log_probs.sum() / tokens.sum()).backward()
    assert all(torch.allclose(seen[0][name], p.grad, atol=1e-6) for name, p in named(module))


def test_a_critic_that_learns_first_leaves_the_policy_alone():
    start = fingerprint(small_model().model)
    first = train(critic="separate", warmup=2, updates=2, demonstrations=SAID, ptx_coef=1.0)
    assert fingerprint(first.language_model.model) == start
    assert first.policy.critic.head.weight.abs().sum() > 0
    later = train(critic="separate", warmup=2, updates=3)
    assert fingerprint(later.language_model.model) != start
    assert later.history[0]["objective/kl"] == later.history[2]["objective/kl"] == 0.0


class Forgetful:
    """Scores by length, but for the third response of each batch."""

    def __init__(self, lost: Any = None) -> None:
        self.lost = lost

    def __call__(self, rollout: Rollout) -> list[float | None]:
        return [self.lost if place == 2 else float(number) for place, number in enumerate(length(rollout).tolist())]


@pytest.mark.parametrize("advantage", [gae, rloo, grpo])
def test_a_response_that_can_not_be_scored_is_left_out_and_counted(advantage):
    def run(lost: Any) -> PPOModule:
        return train(Forgetful(lost), advantage=advantage, shapings=(NormaliseScore(), kl))

    module = run(None)
    assert [step["objective/unscorable"] for step in module.history] == [1 / 8] * 2
    assert [step["episode"] for step in module.history] == [8, 16]
    assert all(math.isfinite(value) for step in module.history for value in step.values())
    assert fingerprint(module.policy) == fingerprint(
        train(Forgetful(math.nan), advantage=advantage, shapings=(NormaliseScore(), kl)).policy
    )
    assert fingerprint(module.policy) != fingerprint(run(0.0).policy)


def test_as_many_minibatches_as_responses_still_learn_when_one_can_not_be_scored():
    module = train(Forgetful(), num_minibatches=8)
    assert [step["policy/minibatches"] for step in module.history] == [14, 14]


def test_too_many_that_can_not_be_scored_stop_the_run_with_the_scorer_s_name():
    def hopeless(rollout: Rollout) -> list[float | None]:
        return [None, None, *[1.0] * (len(rollout) - 2)]

    with pytest.raises(UserError, match=r"hopeless \(.*test_module\.py:\d+\) couldn't score 2 of 8 responses .*ppo\.max_unscorable=0\.1"):
        train(hopeless)
    assert train(hopeless, max_unscorable=0.25).history[0]["objective/unscorable"] == 0.25


def test_a_scorer_that_seeds_and_draws_changes_no_bit_of_what_is_learned():
    def seeding(rollout: Rollout) -> Tensor:
        torch.manual_seed(len(rollout))
        random.seed(1)
        np.random.seed(1)
        torch.rand(3)
        rollout.response_mask.zero_()
        rollout.responses.clear()
        return scores.pop(0)

    scores: list[Tensor] = []

    def kept(rollout: Rollout) -> Tensor:
        scores.append(length(rollout))
        return scores[-1]

    plain = train(kept, updates=3, self_checks=False)
    assert fingerprint(train(seeding, updates=3, self_checks=False).policy) == fingerprint(plain.policy)


def nothing_said(language_model: LanguageModel, prompts: Any) -> Rollout:
    """Every response ends at once."""
    rollout = native(language_model, prompts, max_new_tokens=ROOM)
    first = torch.zeros_like(rollout.response_mask)
    first[:, 0] = 1
    ids = torch.full_like(rollout.response_ids, language_model.eos_ids[0])
    empty = replace(rollout, response_ids=ids, response_mask=first, has_eos=torch.ones_like(rollout.has_eos), responses=[""] * len(rollout))
    return replace(empty, sampled_log_probs=rollout.sampled_log_probs * first)


def never_ending(language_model: LanguageModel, prompts: Any) -> Rollout:
    """Every response is cut."""
    rollout = native(language_model, prompts, max_new_tokens=ROOM)
    ids = torch.where(torch.isin(rollout.response_ids, torch.tensor(language_model.eos_ids)), 5, rollout.response_ids)
    return replace(rollout, response_ids=ids, response_mask=torch.ones_like(ids), has_eos=torch.zeros_like(rollout.has_eos))


def always_0(rollout: Rollout) -> Tensor:
    return torch.zeros(len(rollout))


@pytest.mark.parametrize("sampler", [nothing_said, never_ending, partial(native, max_new_tokens=ROOM)], ids=["empty", "cut", "as drawn"])
@pytest.mark.parametrize("advantage", [gae, grpo, rloo, reinforce_pp, remax])
def test_constant_scores_of_empty_or_cut_or_any_responses_stay_finite_and_sound_an_alarm(sampler, advantage):
    """Where neither a KL penalty nor a critic moves them, weights stay as they were, bit by bit."""
    said: list[str] = []
    greedy = {"greedy": sampler} if advantage is remax else {}
    shapings = (kl,) if advantage is gae else ()
    module = train(
        always_0, advantage=advantage, sampler=sampler, shapings=shapings, updates=6, self_checks=False, log=said.append, **greedy
    )
    assert all(math.isfinite(value) for step in module.history for value in step.values())
    assert [step["alarm/constant"] for step in module.history] == [0, 0, 0, 0, 1, 1]
    assert sum("alarm constant at update 5" in text for text in said) == 1
    if advantage is not gae:
        assert fingerprint(module.language_model.model) == fingerprint(small_model().model)


class Weighed(L.Callback):
    """Memory in bytes, open files and threads of this process at the end of each update."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, int, int]] = []

    def on_train_batch_end(self, *_: Any) -> None:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
        self.rows.append((resident, len(os.listdir("/proc/self/fd")), threading.active_count()))


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux says it so")
def test_memory_open_files_and_threads_stay_flat_over_many_updates():
    """The history alone grows, by some 2 KB an update."""
    weighed = Weighed()
    small = {"prompts_per_update": 2, "epochs": 1, "num_minibatches": 1, "self_checks": False}
    train(updates=300, watch=[weighed], advantage=grpo, **small)
    memory, files, running = (np.array(column, dtype=float)[100:] for column in zip(*weighed.rows, strict=True))
    assert np.polyfit(np.arange(200), memory, 1)[0] < 20_000
    assert np.ptp(files) == np.ptp(running) == 0
