"""Our preference losses against what other frameworks' own functions gave on the same inputs.

TABLE accounts for every recorded case of the families "dpo" and "simpo": how ours is called, for which cases it must be equal, and
`because` of what the others differ. docs/conventions.md says the same in prose.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_lightning.preference.loss.dpo import DPO
from rlhf_lightning.preference.loss.ipo import IPO
from rlhf_lightning.preference.loss.simpo import SimPO
from rlhf_lightning.preference.record import Answers, Compared
from rlhf_lightning.tensors import log_probs_of

Case = Any
ONE = torch.tensor(1)
OFFERED = {"sigmoid", "sigmoid_norm", "robust", "hinge", "ipo"}


def compared(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor | None, ref_rejected: Tensor | None, tokens: Tensor = ONE) -> Compared:
    counts = tokens.expand(chosen.shape)
    return Compared(Answers(chosen, counts, ref_chosen), Answers(rejected, counts, ref_rejected))


def of_rows(case: Case) -> tuple[Tensor, Tensor, Compared]:
    """The recorded sums of log-probabilities: chosen and rejected, ready for gradients, and the pairs."""
    chosen, rejected = (case.x[name].clone().requires_grad_() for name in ("pol_c", "pol_r"))
    return chosen, rejected, compared(chosen, rejected, case.x["ref_c"], case.x["ref_r"])


def openrlhf(case: Case) -> dict[str, Tensor]:
    beta = case.p["beta"]
    loss: Any = IPO(beta=beta) if case.p["ipo"] else DPO(beta=beta, label_smoothing=case.p["label_smoothing"])
    chosen, rejected, pairs = of_rows(case)
    value = loss(pairs).mean()
    value.backward()
    return {
        "loss": value.detach(), "chosen_rewards": loss.rewards(pairs.chosen).detach(),
        "rejected_rewards": loss.rewards(pairs.rejected).detach(), "grad_pol_c": chosen.grad, "grad_pol_r": rejected.grad,
    }  # fmt: skip


def per_pair(make: Callable[[Case], Any], grads: bool) -> Callable[[Case], dict[str, Tensor]]:
    def ours(case: Case) -> dict[str, Tensor]:
        loss = make(case)
        chosen, rejected, pairs = of_rows(case)
        values = loss(pairs)
        values.mean().backward()
        found = {
            "per_pair_loss": values.detach(),
            "chosen_rewards": loss.rewards(pairs.chosen).detach(),
            "rejected_rewards": loss.rewards(pairs.rejected).detach(),
        }
        return found | ({"grad_of_mean_pol_c": chosen.grad, "grad_of_mean_pol_r": rejected.grad} if grads else {})

    return ours


def nemo(case: Case) -> dict[str, Tensor]:
    """Token-level inputs: the new log-probabilities are the chosen rows, the old ones the rejected rows, of one mask."""
    loss = DPO(beta=case.p["beta"], length_normalised=case.p["average_log_probs"])
    chosen, rejected = (case.x[name].clone().requires_grad_() for name in ("new_logp", "old_logp"))
    sums = [(row * case.mask).sum(1) for row in (chosen, rejected, case.x["ref_logp"], case.x["ref_logp"])]
    pairs = compared(*sums, tokens=case.mask.sum(1))
    value = loss(pairs).mean()
    value.backward()
    right = (loss.rewards(pairs.chosen) > loss.rewards(pairs.rejected)).double().mean()
    return {"loss": value.detach(), "grad_chosen": chosen.grad, "grad_rejected": rejected.grad, "accuracy": right}


def trl(inputs: Callable[[Case], dict[str, Tensor]]) -> Callable[[Case], dict[str, Tensor]]:
    """From logits: the chosen rows stand above the rejected ones, each position predicts the next label."""

    def ours(case: Case) -> dict[str, Tensor]:
        kind, beta = case.p["loss_type"], case.p["beta"]
        loss: Any = {
            "ipo": lambda: IPO(beta=beta, length_normalised=True),
            "hinge": lambda: DPO(beta=beta, variant="hinge"),
            "robust": lambda: DPO(beta=beta, variant="robust", label_smoothing=case.p["label_smoothing"]),
            "sigmoid_norm": lambda: DPO(beta=beta, length_normalised=True),
        }.get(kind, lambda: DPO(beta=beta))()
        x = inputs(case)
        logits = x["dpo_logits"].clone().requires_grad_()
        mask = torch.cat([case.mask, case.mask])
        sums = [(log_probs_of(z[:, :-1], x["dpo_labels"][:, 1:].long()) * mask).sum(1) for z in (logits, x["dpo_ref_logits"])]
        (chosen, rejected), (ref_chosen, ref_rejected) = (one.chunk(2) for one in sums)
        value = loss(compared(chosen, rejected, ref_chosen, ref_rejected, case.mask.sum(1))).mean()
        value.backward()
        grad = logits.grad
        assert grad is not None
        return {"loss": value.detach(), "grad_logits_sum_abs": grad.abs().sum(), "grad_logits_first_row": grad[0]}

    return ours


def no_empty_row(case: Case) -> bool:
    return bool(case.inside.any(dim=1).all())


def offered(case: Case) -> bool:
    return case.p["loss_type"] in OFFERED


def test_openrlhf(goldens):
    goldens.hold(("dpo", "openrlhf", "DPOLoss"), openrlhf)


def smoothed(case: Case) -> DPO:
    return DPO(beta=case.p["beta"], label_smoothing=case.p["label_smoothing"])


@pytest.mark.parametrize(("peer", "function", "grads"), [("torchtune", "DPOLoss", True), ("open_instruct", "dpo_loss", False)])
def test_torchtune_and_open_instruct(goldens, peer, function, grads):
    goldens.hold(("dpo", peer, function), per_pair(smoothed, grads))


def test_open_instruct_s_simpo(goldens):
    def simpo(case: Case) -> SimPO:
        return SimPO(beta=case.p["beta"], gamma=case.p["beta"] * case.p["gamma_beta_ratio"])

    goldens.hold(("simpo", "open_instruct", "simpo_loss"), per_pair(simpo, grads=False))


def test_nemo_rl(goldens):
    goldens.hold(("dpo", "nemo_rl", "DPOLossFn"), nemo, tolerance="near")


def test_trl(goldens):
    key = ("dpo", "trl", "DPOTrainer._compute_loss")
    sets = {f"{raw['id']} {raw['params']}": raw["input_set"] for raw in goldens.cases[key]}
    goldens.hold(key, trl(lambda case: goldens.inputs(f"{sets[case.name]}/dpo")), where=offered, because="loss types that aren't offered")


def test_every_case_of_these_families_is_accounted_for(goldens):
    held = {(family, peer) for family, peer, _ in goldens.cases if family in ("dpo", "simpo")}
    assert held == {("dpo", peer) for peer in ("openrlhf", "torchtune", "open_instruct", "nemo_rl", "trl")} | {("simpo", "open_instruct")}
