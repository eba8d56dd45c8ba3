"""Our policy losses, value losses, corrections, penalties and reductions against what other frameworks' own functions gave."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.correction.masked import masked_importance_weights
from rlhf_lightning.policy.correction.truncated import truncated_importance_weights
from rlhf_lightning.policy.kl.loss import LossKL
from rlhf_lightning.policy.loss.cispo import cispo
from rlhf_lightning.policy.loss.dual_clip import dual_clip
from rlhf_lightning.policy.loss.gspo import gspo
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.loss.reinforce import reinforce
from rlhf_lightning.policy.loss.sapo import sapo
from rlhf_lightning.policy.objective import objective
from rlhf_lightning.policy.reduction.fixed_length import fixed_length
from rlhf_lightning.policy.reduction.sequence_mean import sequence_mean
from rlhf_lightning.policy.reduction.sequence_sum import sequence_sum
from rlhf_lightning.policy.reduction.token_mean import token_mean
from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
from rlhf_lightning.policy.value_loss.mse import mse
from rlhf_lightning.tensors import kl_estimate, masked_mean
from tests.goldens import Case, Key, Ours, Table, account, every, no_empty_row, offered, one_later, row


# Where a peer's convention is ours.
def not_held(case: Case) -> bool:
    """No token that counts has a log-ratio above policy.ratio's LIMIT."""
    return bool(((case.x["new_logp"] - case.x["old_logp"] <= 20) | ~case.inside).all())


def not_pushed(advantages: str) -> Callable[[Case], bool]:
    """As not_held, of the tokens with a negative advantage: the clip discards the others."""

    def where(case: Case) -> bool:
        negative = case.x[advantages].view(len(case.mask), -1) < 0
        return bool(((case.x["new_logp"] - case.x["old_logp"] <= 20) | ~case.inside | ~negative).all())

    return where


def near_reference(case: Case) -> bool:
    """No token that counts is so far below its reference that k3 is held (at 20 by us) or clamped."""
    return bool(((case.x["ref_logp"] - case.x["new_logp"] <= 20) | ~case.inside).all())


# How ours is called.
def reduced(per_token: Tensor, mask: Tensor, reduction: str) -> Tensor:
    rows, steps = mask.shape
    if reduction in ("dr-grpo", "seq-mean-token-sum-norm"):  # the second, verl's, isn't divided by the number of rows
        return fixed_length(per_token, mask, length=steps) * (1 if reduction == "dr-grpo" else rows)
    return {"token-mean": token_mean, "seq-mean-token-mean": sequence_mean, "seq-mean-token-sum": sequence_sum}[reduction](per_token, mask)


def policy(
    loss: Callable[..., Any],
    reduction: str = "",
    names: str = "",
    row: bool = False,
    shared: bool = False,
    coef: str = "",
    estimator: Any = "k3",
    correction: Callable[[Case], Any] | None = None,
    **settings: Any,
) -> Callable[[Case], Ours]:
    """A policy loss with its gradient and metrics.

    names: "recorded=metric ...". row: one advantage per row. shared: the peer sends each token the mean gradient of its row.
    coef: the peer's name for the coefficient of a KL penalty in the loss, by this estimator. correction: of the sampler's mismatch.
    """

    def ours(case: Case) -> Ours:
        new = case.x["new_logp"].clone().requires_grad_()
        advantages = case.x["seq_adv"][:, None].expand_as(new) if row else case.x["advantages"]
        fields = {"sampled_log_probs": case.x["rollout_logp"], "kl_coef": case.p.get(coef, 0.0)}
        fields |= {"old_log_probs": new.detach()} if case.p.get("force_on_policy_ratio") else {}
        experience = Experience.of(case.scored(**fields), advantages)
        bound = partial(loss, **case.settings(settings))
        whole = objective(bound, correction and correction(case), LossKL(estimator=estimator).per_token_loss if coef else None)
        per_token, metrics = whole(experience, new)
        total = reduced(per_token, case.mask, reduction or case.p["agg"])
        total.backward()
        grad = masked_mean(new.grad, case.mask, dim=1)[:, None] * case.mask if shared else new.grad
        metrics |= {"loss": total.detach(), "grad": grad}
        return {out: metrics[name] for out, name in (pair.split("=") for pair in f"loss=loss grad_new_logp=grad {names}".split())}

    return ours


def per_token(loss: Callable[..., Any], **settings: Any) -> Callable[[Case], Ours]:
    """open-instruct: no mask, no reduction."""

    def ours(case: Case) -> Ours:
        new, ref = case.x["new_logp"], case.x["ref_logp"]
        experience = Experience.of(case.scored(torch.ones_like(case.mask)), case.x["advantages"])
        tokens, _ = loss(experience, new, **case.settings(settings))
        return {
            "pg_loss_tokens": (tokens, (new - case.x["old_logp"]).abs() <= 20),
            "kl": (kl_estimate(new, ref, "k3"), (new - ref).abs() <= 40),
        }

    return ours


def value_of_k3_slope_of_k2(case: Case) -> Ours:
    """NeMo-RL's KL in the loss."""
    by = {name: policy(ppo_clip, "token-mean", coef="reference_policy_kl_penalty", estimator=name, **NEMO)(case) for name in ("k2", "k3")}
    return {**by["k3"], "grad_new_logp": by["k2"]["grad_new_logp"]}


def correction_weights(case: Case) -> Any:
    """OpenRLHF's three corrections, by the type that the case names."""
    low, high = case.p["thresholds"]
    masked = partial(masked_importance_weights, clip_min=low, clip_max=high)
    kinds = {"tis": partial(truncated_importance_weights, clip_max=high), "icepop": masked}
    return kinds.get(case.p["type"], partial(masked, level="sequence"))


def value(case: Case, reduction: str = "", mask: Callable[[Tensor], Tensor] = torch.clone) -> Ours:
    new, limit = case.x["values_new"].clone().requires_grad_(), case.p.get("clip", case.p.get("value_clip"))
    experience = Experience.of(case.scored(mask(case.mask)), case.x["advantages"], case.x["returns"])
    per_token, metrics = mse(experience, new) if limit is None else clipped_value_loss(experience, new, clip_range=limit)
    loss = reduced(per_token, mask(case.mask), reduction or case.p.get("agg", "token-mean"))
    loss.backward()
    made = {"loss": loss.detach(), "grad_values_new": new.grad, "clipfrac": metrics.get("val/clipfrac_avg", torch.tensor(0.0))}
    return {name: made[name] for name in made if name in case.out}


def both(coef: str, mask: Callable[[Tensor], Tensor] = torch.clone) -> Callable[[Case], Ours]:
    """Policy and value losses added: TRL's and torchtune's PPO."""

    def ours(case: Case) -> Ours:
        actor = policy(ppo_clip, names="clipfrac=policy/clipfrac_avg", clip_ratio="clip_low", clip_ratio_high="clip_high")(case)
        critic, share = value(case, mask=mask), case.p[coef]
        made = {"loss": actor["loss"] + share * critic["loss"], "grad_values_new": share * critic["grad_values_new"]}
        made |= {"pg_loss": actor["loss"], "policy_loss": actor["loss"], "vf_loss": critic["loss"], "value_loss": critic["loss"]}
        return {name: number for name, number in (actor | made).items() if name in case.out}

    return ours


VERL = {"clip_ratio": "clip_low", "clip_ratio_high": "clip_high"}
TRL = {"row": True, "clip_ratio": "epsilon_low", "clip_ratio_high": "epsilon_high"}
NEMO = {"names": "probs_ratio=val/ratio"}
WIDE = {"clip_ratio": 0.2, "clip_ratio_high": 0.2}
ROW_MEAN = "seq-mean-token-mean"
BESIDE = frozenset({"kl_penalty", "approx_entropy", "sampling_importance_ratio"})
PPO_KL = frozenset({"ppo_kl"})
BY_TOKEN = frozenset({"clipfrac"})
CLIPPED = "policy/clipfrac_avg"

HELD = "ours holds a log-ratio at 20, theirs goes on to exp(25)"
EMPTY = "theirs counts a row without tokens as 0 in the mean over rows"


TABLE: Table = {
    ("aggregation", "verl", "agg_loss"): row(
        lambda case: {"loss": reduced(case.x["advantages"], case.mask, case.p["mode"])}, tolerance="near"
    ),
    ("policy_loss_clip", "openrlhf", "PolicyLoss(ppo)"): row(
        policy(ppo_clip, names=f"clip_ratio={CLIPPED}", **VERL), tolerance="near", beside=PPO_KL
    ),
    ("policy_loss_clip", "trl", "PPOTrainer.train[loss block]"): row(both("vf_coef", one_later)),
    ("policy_loss_clip", "torchtune", "PPOLoss"): row(
        both("value_coeff"), not_pushed("advantages"), HELD, "near", frozenset({"mean_ratio_unmasked"})
    ),
    ("policy_loss_clip_higher", "nemo_rl", "ClippedPGLossFn(clip_higher)"): row(
        policy(ppo_clip, "token-mean", clip_ratio="ratio_clip_min", clip_ratio_high="ratio_clip_max", **NEMO),
        not_held,
        HELD,
        "near",
        BESIDE,
    ),
    ("policy_loss_ppo", "nemo_rl", "ClippedPGLossFn(ppo)"): row(policy(ppo_clip, "token-mean", **NEMO), not_held, HELD, "near", BESIDE),
    ("policy_loss_seq_mean", "nemo_rl", "ClippedPGLossFn(seq_mean)"): row(
        policy(ppo_clip, ROW_MEAN, **NEMO), every(not_held, no_empty_row), f"{HELD}; {EMPTY}", "near", BESIDE
    ),
    ("policy_loss_on_policy", "nemo_rl", "ClippedPGLossFn(on_policy)"): row(
        policy(ppo_clip, "token-mean", **NEMO), tolerance="near", beside=BESIDE
    ),
    ("policy_loss_ppo_kl", "nemo_rl", "ClippedPGLossFn(ppo_kl)"): row(
        value_of_k3_slope_of_k2, every(not_held, near_reference), HELD, "near", BESIDE
    ),
    ("policy_loss_tis", "nemo_rl", "ClippedPGLossFn(tis)"): row(
        policy(
            ppo_clip,
            "token-mean",
            correction=lambda case: partial(truncated_importance_weights, clip_max=case.p["truncated_importance_sampling_ratio"]),
            names=f"{NEMO['names']} sampling_importance_ratio=policy/correction_avg",
        ),
        not_held,
        HELD,
        "near",
        BESIDE - {"sampling_importance_ratio"},
    ),
    ("policy_loss_is_correction", "openrlhf", "PolicyLoss(vllm_is)"): row(
        policy(ppo_clip, names="vllm_kl=policy/sampler_kl_avg", correction=correction_weights, **VERL), tolerance="near"
    ),
    ("policy_loss_dual_clip", "verl", "compute_policy_loss_vanilla"): row(
        policy(dual_clip, names=f"pg_clipfrac={CLIPPED} pg_clipfrac_lower=policy/clipfrac_lower_avg", clip_ratio_c="clip_c", **VERL),
        tolerance="near",
        beside=PPO_KL,
    ),
    ("policy_loss_dual_clip", "openrlhf", "PolicyLoss(ppo)"): row(
        policy(dual_clip, names=f"clip_ratio={CLIPPED}", clip_ratio_c="dual_clip", **VERL), tolerance="near", beside=PPO_KL
    ),
    ("policy_loss_dual", "nemo_rl", "ClippedPGLossFn(dual)"): row(
        policy(dual_clip, "token-mean", clip_ratio_c="ratio_clip_c", **NEMO), not_held, HELD, "near", BESIDE
    ),
    ("policy_loss_grpo_delta", "trl", "GRPOTrainer._compute_loss(grpo_delta)"): row(
        policy(dual_clip, ROW_MEAN, clip_ratio_c="delta", **TRL), no_empty_row, EMPTY, "near"
    ),
    ("policy_loss_gspo", "verl", "compute_policy_loss_gspo"): row(policy(gspo, names=f"pg_clipfrac={CLIPPED}", **VERL), tolerance="near"),
    ("policy_loss_gspo", "verl", "compute_policy_loss_gspo(seq_adv)"): row(policy(gspo, row=True, **VERL), tolerance="near"),
    ("policy_loss_gspo", "openrlhf", "PolicyLoss(gspo)"): row(policy(gspo, shared=True, **VERL), tolerance="near"),
    ("policy_loss_gspo", "openrlhf", "PolicyLoss(gspo,seq_adv)"): row(policy(gspo, row=True, **VERL), tolerance="near"),
    ("policy_loss_gspo", "nemo_rl", "ClippedPGLossFn(gspo)"): row(
        policy(gspo, ROW_MEAN, shared=True, **WIDE, **NEMO), no_empty_row, EMPTY, "near", BESIDE
    ),
    ("policy_loss_gspo", "trl", "GRPOTrainer._compute_loss(gspo)"): row(policy(gspo, ROW_MEAN, **TRL), no_empty_row, EMPTY),
    ("policy_loss_cispo", "verl", "compute_policy_loss_cispo"): row(policy(cispo, **VERL)),
    ("policy_loss_cispo", "nemo_rl", "ClippedPGLossFn(cispo)"): row(
        policy(cispo, "token-mean", **WIDE, **NEMO), not_held, HELD, "near", BESIDE
    ),
    ("policy_loss_cispo", "trl", "GRPOTrainer._compute_loss(cispo)"): row(
        policy(cispo, "token-mean", row=True, clip_ratio=1.0, clip_ratio_high=1.0), tolerance="near"
    ),
    ("policy_loss_reinforce", "nemo_rl", "ClippedPGLossFn(reinforce)"): row(
        policy(reinforce, "token-mean"), tolerance="near", beside=BESIDE | {"probs_ratio"}
    ),
    ("policy_loss_grpo", "trl", "GRPOTrainer._compute_loss(grpo)"): row(
        policy(ppo_clip, ROW_MEAN, **TRL), every(not_pushed("seq_adv"), no_empty_row), f"{HELD}; {EMPTY}", "near"
    ),
    ("policy_loss_bnpo", "trl", "GRPOTrainer._compute_loss(bnpo)"): row(
        policy(ppo_clip, "token-mean", **TRL), not_pushed("seq_adv"), HELD, "near"
    ),
    ("policy_loss_dapo", "trl", "GRPOTrainer._compute_loss(dapo)"): row(
        policy(ppo_clip, "token-mean", **TRL), not_pushed("seq_adv"), HELD, "near"
    ),
    ("policy_loss_dr_grpo", "trl", "GRPOTrainer._compute_loss(dr_grpo)"): row(
        policy(ppo_clip, "dr-grpo", **TRL), not_pushed("seq_adv"), HELD, "near"
    ),
    ("policy_loss_dapo_kl", "trl", "GRPOTrainer._compute_loss(dapo_kl)"): row(
        policy(ppo_clip, "token-mean", coef="beta", **TRL), every(not_pushed("seq_adv"), near_reference), HELD, "near"
    ),
    ("policy_loss_sapo", "trl", "GRPOTrainer._compute_loss(sapo)"): row(policy(sapo, ROW_MEAN, row=True), no_empty_row, EMPTY, "near"),
    ("policy_loss_rloo", "trl", "RLOOTrainer._compute_loss"): "not offered: the ratio of whole sequences, not length-normalised",
    ("policy_loss_tokens_dapo", "open_instruct", "compute_grpo_loss"): row(
        per_token(ppo_clip, clip_ratio="clip_lower", clip_ratio_high="clip_higher"), beside=BY_TOKEN
    ),
    ("policy_loss_tokens_cispo", "open_instruct", "compute_grpo_loss"): row(
        per_token(cispo, clip_ratio=1.0, clip_ratio_high="clip_higher"), beside=BY_TOKEN
    ),
    ("value_loss_clip", "verl", "compute_value_loss"): row(value, tolerance="near"),
    ("value_loss_clip", "openrlhf", "ValueLoss"): row(value, tolerance="near"),
    ("value_loss_clip", "nemo_rl", "MseValueLossFn"): row(value, tolerance="near"),
}


@pytest.mark.parametrize("key", offered(TABLE), ids="/".join)
def test_ours_is_theirs(key: Key, goldens: Any) -> None:
    goldens.hold(key, *TABLE[key])


def test_every_case_is_accounted_for(goldens: Any) -> None:
    account(TABLE, goldens, lambda family: family.startswith(("policy_loss", "value_loss", "aggregation")))
