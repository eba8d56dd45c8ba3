"""Our tensor arithmetic, KL shaping and advantages against what other frameworks' own functions gave on the same inputs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lightning.advantage.dr_grpo import dr_grpo
from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.advantage.opo import opo
from rlhf_lightning.advantage.reinforce import reinforce
from rlhf_lightning.advantage.reinforce_pp import reinforce_pp
from rlhf_lightning.advantage.reinforce_pp_baseline import reinforce_pp_baseline
from rlhf_lightning.advantage.remax import remax
from rlhf_lightning.advantage.rloo import rloo
from rlhf_lightning.policy.kl.reward import RewardKL
from rlhf_lightning.rollout.shaping.clip_score import clip_score
from rlhf_lightning.rollout.shaping.whiten_rewards import whiten_rewards
from rlhf_lightning.tensors import entropy_of, kl_estimate, log_probs_of, masked_mean, masked_var, masked_whiten, score_on_last_token
from tests.goldens import Case, Key, Ours, Table, account, every, no_empty_row, offered, one_later, row


# Where a peer's convention is ours.
def dense(case: Case) -> bool:
    """No hole inside a row; what lies before and after a response is masked for every peer."""
    begun, to_come = case.mask.cumsum(1) > 0, case.mask.flip(1).cumsum(1).flip(1) > 0
    return not bool((begun & to_come & ~case.inside).any())


def no_row_alone(case: Case) -> bool:
    return bool((case.x["group"].unique(return_counts=True)[1] > 1).all())


def near_reference(case: Case) -> bool:
    return bool((((case.x["old_logp"] - case.x["ref_logp"]).abs() <= 10) | ~case.inside).all())


def setting(**values: Any) -> Callable[[Case], bool]:
    """The case has one of these values of each parameter."""
    return lambda case: all(case.p[name] in allowed for name, allowed in values.items())


# How ours is called.
def logits(function: Callable[..., Tensor], output: str, *inputs: str) -> Callable[[Case], Ours]:
    return lambda case: {output: function(case.x["logits"] / case.p.get("temperature", 1.0), *(case.x[name] for name in inputs))}


def whiten(case: Case, flip: bool = False) -> Ours:
    return {"out": masked_whiten(case.x["advantages"], case.mask, case.p["shift_mean"] != flip)}


def means(case: Case) -> Ours:
    x, mask = case.x["advantages"], case.mask
    return {"mean": masked_mean(x, mask), "row": masked_mean(x, mask, dim=1), "var": masked_var(x, mask)}


def means_of_means(case: Case) -> Ours:
    x, mask = case.x["advantages"], case.mask
    return {"all": masked_mean(x, mask), "row": masked_mean(x, mask, dim=1).mean()}


def kl_within(limits: Callable[[dict[str, Any]], tuple[float, float]]) -> Callable[[Case], Ours]:
    """Our KL where the peer doesn't clamp: the log-ratio and the estimate within (limit in, limit out)."""

    def ours(case: Case) -> Ours:
        new, ref, (limit_in, limit_out) = case.x["new_logp"], case.x["ref_logp"], limits(case.p)
        estimate = kl_estimate(new, ref, case.p["estimator"].replace("abs", "k1"))
        return {"kl": (estimate, ((new - ref).abs() <= limit_in) & (estimate.abs() <= limit_out))}

    return ours


def kl_stack(case: Case) -> Ours:
    estimates = [kl_estimate(case.x["new_logp"], case.x["ref_logp"], name) for name in ("k1", "k2", "k3", "k1")]
    offered = torch.tensor([True, True, True, False])[:, None, None]  # the fourth is k1 weighted by the ratio
    return {"kl4": (torch.stack(estimates), offered.expand(4, *case.mask.shape))}


def score_with_kl(case: Case) -> Ours:
    """OpenRLHF's on its mask, torchtune's on a full one."""
    mask = case.mask if "mask" in case.uses else torch.ones_like(case.mask)
    rewards = score_on_last_token(case.x["scores"], mask)
    scored = case.scored(mask, rewards=rewards, old_log_probs=case.x["new_logp"], kl_coef=case.p["kl_coef"])
    scored = clip_score(scored, limits=tuple(case.p["clip"])) if "clip" in case.p else scored
    shaped = RewardKL().shape_rewards(scored).rewards
    estimate = kl_estimate(case.x["new_logp"], case.x["ref_logp"])
    unclamped = estimate.abs() <= 10 if "mask" in case.uses else estimate.isfinite()
    made = {"reward": (shaped, (mask > 0) & unclamped), "kl": estimate, "kl_reward": shaped - rewards}
    return {name: value for name, value in made.items() if name in case.out}


def critic(advantages: str = "advantages_raw", whiten: bool | str = False) -> Callable[[Case], Ours]:
    """gae, after the KL where the case has one; without a mask, every token counts."""

    def ours(case: Case) -> Ours:
        mask = case.mask if "mask" in case.uses else torch.ones_like(case.mask)
        scored = RewardKL().shape_rewards(case.scored(mask, kl_coef=case.p.get("kl_coef", 0.0)))
        made = gae(scored, **case.settings({"gamma": "gamma", "lam": "lam", "whiten": whiten}))
        return {advantages: (made.advantages, mask > 0), "returns": (made.returns, mask > 0)}

    return ours


def critic_without_mask(case: Case) -> Ours:
    """torchtune: the recursion knows no mask, whitening keeps the mean."""
    made = gae(case.scored(torch.ones_like(case.mask)), gamma=case.p["gamma"], lam=case.p["lam"], whiten=False)
    mask = case.mask if "mask" in case.uses else torch.ones_like(case.mask)
    whiten = masked_whiten(made.advantages, mask, shift_mean=False)
    return {"advantages_whitened_plus_mean": (whiten, mask > 0), "returns": (made.returns, mask > 0)}


def critic_packed(case: Case) -> Ours:
    made = critic()(case)
    return {f"{name}_packed": value.reshape(1, -1) for name, (value, _) in made.items()}


def critic_one_later(case: Case) -> Ours:
    mask, later = case.mask, one_later(case.mask)
    log_probs = {"old_log_probs": case.x["old_logp"] * mask, "ref_log_probs": case.x["ref_logp"] * mask}
    rewards = score_on_last_token(case.x["scores"], later)
    kl = RewardKL(estimator=case.p["kl_estimator"])
    scored = kl.shape_rewards(case.scored(later, rewards=rewards, kl_coef=case.p["kl_coef"], **log_probs))
    scored = whiten_rewards(scored) if case.p["whiten_rewards"] else scored
    made = gae(scored, gamma=case.p["gamma"], lam=case.p["lam"], whiten=False)
    advantages = masked_whiten(made.advantages, mask) * mask
    return {"rewards": scored.rewards, "advantages": advantages, "returns": (made.returns, later > 0)}


def estimate(estimator: Callable[..., Any], output: str = "advantages", **settings: Any) -> Callable[[Case], Ours]:
    return lambda case: {output: (estimator(case.scored(), **case.settings(settings)).advantages, case.inside)}


def with_or_without_itself(case: Case) -> Ours:
    """NeMo-RL: a baseline without the row itself is rloo, with it grpo or Dr. GRPO."""
    return estimate(rloo if case.p["leave_one_out"] else grpo if case.p["normalize"] else dr_grpo)(case)


def by_deviation(case: Case) -> Ours:
    return estimate(grpo if case.p["norm_by_std"] else dr_grpo)(case)


def less_greedy(case: Case) -> Ours:
    scored = case.scored()
    scored.baseline_scores = case.x["reward_baseline"]
    made = remax(scored)
    to_go = torch.where(case.inside, made.advantages + case.x["reward_baseline"][:, None], 0.0)
    return {"advantages": (made.advantages, case.inside), "returns": (to_go, case.inside)}


def weighted_rows(case: Case) -> Ours:
    """TRL's GRPO: one advantage per row of a weighted sum of two rewards, neighbours in groups of a fixed size."""
    first, second = case.p["reward_weights"]
    rewards = (first * case.x["scores"] + second * case.x["seq_adv"])[:, None]
    rows = case.scored(torch.ones_like(rewards), rewards=rewards, group=neighbours(case))
    return {"advantages": (grpo(rows, eps=case.p["eps"]) if case.p["scale_rewards"] == "group" else dr_grpo(rows)).advantages[:, 0]}


def rows_less_kl(case: Case) -> Ours:
    made = rloo(RewardKL().shape_rewards(case.scored(kl_coef=case.p["beta"], group=neighbours(case))))
    return {"advantages": masked_mean(made.advantages, case.mask, dim=1)}


def neighbours(case: Case) -> Tensor:
    return torch.arange(len(case.mask)) // case.p["num_generations"]


ALONE = "theirs keeps the raw reward of a response alone in its group, ours gives 0"
HOLES = "theirs lets the tokens of a hole discount and count as states of value 0, ours skips them"
UNPLACED = "theirs gives a row without tokens its score, ours has no token to lay it on"

TABLE: Table = {
    ("masked_mean", "nemo_rl", "masked_mean"): row(means, tolerance="near"),
    ("masked_mean", "open_instruct", "masked_mean"): row(means_of_means),
    ("masked_whiten", "verl", "masked_whiten"): row(whiten, tolerance="near"),
    ("masked_whiten", "trl", "masked_whiten"): row(whiten),
    ("masked_whiten", "torchtune", "whiten"): row(lambda case: whiten(case, flip=True), tolerance="round"),
    ("masked_whiten", "openrlhf", "masked_normalize"): "not offered: per row, with the biased variance",
    ("logprob", "verl", "logprobs_from_logits_v2"): row(logits(log_probs_of, "logp", "labels")),
    ("logprob", "trl", "selective_log_softmax"): row(logits(log_probs_of, "logp", "labels")),
    ("logprob", "openrlhf", "log_probs_from_logits"): row(logits(log_probs_of, "logp", "labels")),
    ("entropy", "verl", "entropy_from_logits"): row(logits(entropy_of, "entropy"), tolerance="near"),
    ("entropy", "trl", "entropy_from_logits"): row(logits(entropy_of, "entropy")),
    ("kl", "verl", "kl_penalty"): row(
        kl_within(lambda p: (20, 10) if p["estimator"] == "k3" else (1e9, 1e9)),
        setting(estimator=("k1", "k2", "k3")),
        "the absolute value is not offered",
    ),
    ("kl", "openrlhf", "compute_approx_kl"): row(kl_within(lambda p: (1e9, 10)), tolerance="single"),
    ("kl", "nemo_rl", "calculate_kl"): row(kl_within(lambda p: (p["input_clamp"] or 1e9, p["output_clamp"] or 1e99))),
    ("kl", "open_instruct", "estimate_kl"): row(kl_stack),
    ("kl_in_reward", "openrlhf", "compute_reward"): row(score_with_kl, tolerance="single"),
    ("kl_in_reward", "torchtune", "get_rewards_ppo"): row(score_with_kl),
    ("gae", "verl", "compute_gae_advantage_return"): row(critic("advantages_whitened", whiten=True), tolerance="near"),
    ("gae", "openrlhf", "RemoteExperienceMaker.get_advantages_and_returns"): row(critic(), dense, HOLES),
    ("gae", "nemo_rl", "GeneralizedAdvantageEstimator.compute_advantage"): row(
        critic("advantages", whiten="whiten"), near_reference, "theirs clamps the KL of a token", "near"
    ),
    ("gae", "nemo_rl", "GeneralizedAdvantageEstimator._compute_gae"): row(critic()),
    ("gae", "trl", "PPOTrainer.train[rewards+GAE block]"): row(
        critic_one_later, tolerance="round", beside=frozenset({"padding_mask", "padding_mask_p1"})
    ),
    ("gae", "torchtune", "estimate_advantages(masks=None)"): row(critic_without_mask),
    ("gae", "torchtune", "estimate_advantages(masks)"): row(critic_without_mask, tolerance="round"),
    ("gae", "open_instruct", "calculate_advantages"): row(critic()),
    ("gae_packed", "open_instruct", "calculate_advantages_packed"): row(critic_packed),
    (
        "advantage_pipeline",
        "openrlhf",
        "compute_advantages_and_returns",
    ): "not offered: a baseline of scores, then KL to go",
    ("reinforce", "openrlhf", "RemoteExperienceMaker.get_cumulative_returns"): row(
        estimate(reinforce, "returns", gamma="gamma"), dense, HOLES
    ),
    ("reinforce_pp", "verl", "compute_reinforce_plus_plus_outcome_advantage"): row(
        estimate(reinforce_pp, gamma="gamma"),
        lambda case: len(case.mask) > 1,
        "whitening one reward, theirs divides an eps by an eps",
        "near",
        frozenset({"returns"}),
    ),
    (
        "reinforce_pp",
        "nemo_rl",
        "ReinforcePlusPlusAdvantageEstimator",
    ): "not offered: the score less each token's own KL, not to go",
    ("reinforce_pp_baseline", "verl", "compute_reinforce_plus_plus_baseline_outcome_advantage"): row(
        estimate(reinforce_pp_baseline), no_row_alone, ALONE, "near"
    ),
    ("remax", "verl", "compute_remax_outcome_advantage"): row(less_greedy),
    ("grpo", "verl", "compute_grpo_outcome_advantage"): row(by_deviation, no_row_alone, ALONE),
    ("grpo", "verl", "compute_grpo_vectorized_outcome_advantage"): row(by_deviation, no_row_alone, ALONE, "single"),
    ("grpo", "nemo_rl", "GRPOAdvantageEstimator"): row(
        with_or_without_itself,
        every(no_empty_row, lambda case: not (case.p["normalize"] and case.p["leave_one_out"])),
        f"a deviation without the row itself is not offered; {UNPLACED}",
        "near",
    ),
    ("grpo", "trl", "GRPOTrainer[advantage block]"): row(
        weighted_rows,
        setting(scale_rewards=("group", "none"), aggregation=("sum_then_normalize",)),
        "the batch's deviation, and normalising several rewards before adding them, are not offered",
        "near",
    ),
    ("grpo_passk", "verl", "compute_grpo_passk_outcome_advantage"): "not offered: only the best response of a group learns",
    ("grpo_nan_rewards", "trl", "GRPOTrainer[advantage block]"): "not offered: a score that is not a number is refused",
    ("rloo", "verl", "compute_rloo_outcome_advantage"): row(estimate(rloo), no_row_alone, ALONE),
    ("rloo", "verl", "compute_rloo_vectorized_outcome_advantage"): row(estimate(rloo)),
    ("rloo", "trl", "RLOOTrainer[advantage block]"): row(
        rows_less_kl,
        every(no_empty_row, setting(normalize_advantages=(False,))),
        f"the batch's deviation is not offered; {UNPLACED}",
    ),
    ("opo", "verl", "compute_opo_outcome_advantage"): row(estimate(opo), no_row_alone, ALONE),
}
ELSEWHERE = ("policy_loss", "value_loss", "aggregation", "reward_pairwise", "dpo", "simpo")
"""Families of tests/policy/test_goldens.py, then of the reward model's room and of direct preference losses."""


@pytest.mark.parametrize("key", offered(TABLE), ids="/".join)
def test_ours_is_theirs(key: Key, goldens: Any) -> None:
    goldens.hold(key, *TABLE[key])


def test_every_case_is_accounted_for(goldens: Any) -> None:
    account(TABLE, goldens, lambda family: not family.startswith(ELSEWHERE))
