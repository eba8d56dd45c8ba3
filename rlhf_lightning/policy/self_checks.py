"""What must hold at the first batch of a policy's training, checked before anything is learned from it.

Shapes: B responses, T response tokens. Differences are of log-probabilities, in nats.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Experience, Rollout, ScoredRollout
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.rollout.sampling import Sampler
from rlhf_lightning.rollout.scoring import Scorer, checked_scores
from rlhf_lightning.tensors import kl_estimate

FULL = (1e-4, 1e-3)
"""The most that the same tokens' log-probabilities may differ by in float32: on average, and any one of them."""
COARSE = (5e-2, 1.0)
"""The same in bfloat16, float16 and TF32, and for a sampler whose difference a policy_correction takes care of."""
HALVES = (torch.bfloat16, torch.float16)
ROWS = 8
"""Responses that are scored once more in other company, and that the scorer sees other texts for."""
OFF = "ppo.self_checks=false leaves the checks out"


@dataclass(frozen=True)
class Check:
    """One thing that was checked: what was found, and where it doesn't hold the cause and what to do (else empty)."""

    name: str
    found: str
    failure: str = ""

    def __str__(self) -> str:
        return f"self-check {self.name}: {self.found}" + (f". FAILED: {self.failure}" if self.failure else "")


def report_checks(checks: Sequence[Check], log: Callable[[str], None], all_processes: Callable[[bool], bool]) -> None:
    """Say each check, one line each, and stop where one fails.

    Args:
        all_processes: whether something is true on every process; asked before anything is raised, so that none waits for another.

    Raises:
        UserError: with every failed check's cause, or where another process had one.
    """
    for check in checks:
        log(str(check))
    failed = [check for check in checks if check.failure]
    if all_processes(not failed):
        return
    said = "\n".join(map(str, failed)) or "a self-check failed on another process, whose message says which"
    raise UserError(f"the first batch isn't fit to learn from\n{said}\n({OFF})")


@dataclass(frozen=True)
class FirstBatch:
    """The self-checks of stage=ppo, on what the first iteration has just made. Nothing is changed, no random number is drawn.

    Cost, once: two responses alone, ROWS responses twice through the policy, and 3 x ROWS texts through the scorer.

    Attributes:
        at_reference: the policy hasn't moved from the reference, so that their KL must be 0; else it is only said.
        corrected: a policy_correction takes care of a sampler that isn't the policy.
    """

    policy: Policy
    sampler: Sampler
    scorer: Scorer
    at_reference: bool = True
    corrected: bool = False

    def checks(self, batch: Experience) -> list[Check]:
        """Every check, in the order of the flow."""
        device = batch.response_mask.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return [
                check_ends(batch, self.policy.language_model.eos_ids, self.policy.language_model.pad_id, self._said("max_new_tokens")),
                self.check_sampler(batch),
                self.check_reference(batch),
                self.check_company(batch),
                self.check_ratio(batch),
                self.check_reward(batch),
                check_numbers(batch),
            ]

    def check_sampler(self, batch: ScoredRollout) -> Check:
        """The sampler's log-probabilities are the policy's (`old_log_probs`), but for what it doesn't count by design."""
        mean, most = difference(batch.sampled_log_probs, batch.old_log_probs, batch.response_mask)
        limits = COARSE if self.corrected else self._limits()
        found = f"sampler and policy differ by {mean:.2g} on average and {most:.2g} at most"
        top_p, temperature = self._said("top_p"), self._said("temperature")
        cut = f"top_p={top_p:g}" if top_p is not None and top_p < 1 else "temperature=0" if temperature == 0 else ""
        if cut:
            return Check("sampler", f"{found}; not held to it: with {cut} the sampler draws from another distribution than is learned on")
        why = (
            f"log-probabilities of the tokens drawn must agree to {limits[0]:g} on average and {limits[1]:g} at most: the sampler draws at "
            "another temperature, from other weights or with wrong positions; mend rollout_sampler, or where it only computes less exactly "
            "choose a policy_correction"
        )
        return Check("sampler", found, "" if within((mean, most), limits) else why)

    def check_reference(self, batch: ScoredRollout) -> Check:
        """A policy that nothing has moved has a KL of 0."""
        moved = difference(batch.old_log_probs, batch.ref_log_probs, batch.response_mask)
        kl = (kl_estimate(batch.old_log_probs, batch.ref_log_probs) * batch.response_mask).sum(1).mean().item()
        if not self.at_reference:
            return Check("reference", f"KL {kl:.3g} nats a response to the reference, which the policy had left before")
        why = (
            "before the first update policy and reference must be the same model: their weights, adapters, dropout or temperature differ; "
            "load both from one folder and leave both in eval mode"
        )
        return Check("reference", f"KL {kl:.2g} nats a response, log ratio {moved[1]:.2g} at most", self._unless(moved, why))

    @torch.no_grad()
    def check_company(self, batch: ScoredRollout) -> Check:
        """Neither padding nor order nor neighbours change a response's log-probabilities."""
        lengths = batch.prompt_mask.sum(1)
        pairs = [
            *((row, batch.select(row)) for row in (lengths.argmin()[None], lengths.argmax()[None])),
            (rows := self._rows(batch).flip(0), padded(batch.select(rows), self.policy.language_model.pad_id)),
        ]
        width = batch.response_mask.shape[1]
        found = [difference(self.policy(other).log_probs[:, :width], batch.old_log_probs[row], other.response_mask[:, :width])
                 for row, other in pairs]  # fmt: skip
        worst = (max(mean for mean, _ in found), max(most for _, most in found))
        why = (
            "a response's log-probabilities depend on its padding or on the other responses of its batch: attention masks or positions of "
            "the model are wrong, or dropout is on"
        )
        return Check("padding", f"alone, reversed and padded, log-probabilities move by {worst[1]:.2g} at most", self._unless(worst, why))

    def check_ratio(self, batch: ScoredRollout) -> Check:
        """The ratio of the first minibatch is 1: the pass that learns sees what the pass that scored saw."""
        rows = self._rows(batch)
        moved = difference(self.policy(batch.select(rows)).log_probs.detach(), batch.old_log_probs[rows], batch.response_mask[rows])
        why = "before the first update the ratio must be 1: dropout is on, or the policy's weights or temperature change between two passes"
        return Check("ratio", f"log ratio {moved[1]:.2g} at most before the first update", self._unless(moved, why))

    @torch.no_grad()
    def check_reward(self, batch: ScoredRollout) -> Check:
        """Another response to the same prompt gets another score."""
        rows = self._rows(batch)
        # Where few responses are paid anything, the best and the worst are those that another text costs something.
        rows[0], rows[-1] = batch.scores.argmax(), batch.scores.argmin()
        known = Rollout(**{field.name: getattr(batch, field.name) for field in fields(Rollout)}).select(rows)
        scores, changed, texts = batch.scores[rows].cpu(), 0, 0
        for other in other_texts(known, self.policy.language_model):
            differs = torch.tensor([a != b for a, b in zip(known.responses, other.responses, strict=True)])
            try:
                given = checked_scores(self.scorer, other).cpu()
            except UserError as cause:
                return Check("reward", "a response cut, emptied or exchanged for another can't be scored", str(cause))
            texts += int(differs.sum())
            same = (given - scores).abs() <= 1e-5 + 1e-4 * scores.abs()  # NaN isn't: a text that can't be scored has been read
            changed += int((differs & ~same).sum())
        found = f"{changed} of {texts} responses that were cut, emptied or exchanged got another score"
        if changed or not texts:
            return Check("reward", found)
        if bool((batch.scores == batch.scores[0]).all()):
            # A task that pays rarely looks alike; the alarm "constant" watches whether it stays so.
            return Check("reward", f"{found}. WARNING: every response's score is {scores[0]:g}; while it is so, nothing is learned from it")
        why = f"the first scores are {scores[:3].tolist()} and stay so whatever the response: rollout_scorer doesn't read it"
        return Check("reward", found, why)

    def _unless(self, differences: tuple[float, float], why: str) -> str:
        return "" if within(differences, self._limits()) else why

    def _limits(self) -> tuple[float, float]:
        parameter = next(self.policy.parameters())
        kind = parameter.device.type
        coarse = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) in HALVES
        tf32 = kind == "cuda" and torch.get_float32_matmul_precision() != "highest"
        return COARSE if coarse or tf32 or parameter.dtype in HALVES else FULL

    def _rows(self, batch: Rollout) -> Tensor:
        """ROWS rows spread over the batch; as many on every process, since a sharded model's passes must be."""
        return torch.linspace(0, len(batch) - 1, ROWS, device=batch.response_mask.device).long()

    def _said(self, setting: str) -> Any:
        """A setting of the sampler; None where it has none of that name."""
        parameter = inspect.signature(self.sampler).parameters.get(setting)
        return getattr(self.sampler, setting, None) if parameter is None else parameter.default


def difference(one: Tensor, other: Tensor, mask: Tensor) -> tuple[float, float]:
    """The mean and the largest absolute difference of two [B, T] over a mask."""
    apart = (one - other)[mask.bool()].abs()
    return (apart.mean().item(), apart.max().item()) if apart.numel() else (0.0, 0.0)


def within(differences: tuple[float, float], limits: tuple[float, float]) -> bool:
    """Whether mean and maximum keep to their limits; NaN doesn't."""
    return differences[0] <= limits[0] and differences[1] <= limits[1]


def padded(batch: ScoredRollout, pad_id: int, by: int = 3) -> ScoredRollout:
    """The batch with so many columns of padding more, left of prompts and right of responses; log-probabilities stay as they are."""
    return replace(
        batch,
        prompt_ids=pad(batch.prompt_ids, (by, 0), value=pad_id),
        prompt_mask=pad(batch.prompt_mask, (by, 0)),
        response_ids=pad(batch.response_ids, (0, by), value=pad_id),
        response_mask=pad(batch.response_mask, (0, by)),
    )


def other_texts(rollout: Rollout, language_model: Any) -> list[Rollout]:
    """The same prompts with a neighbour's response, with the first half of their own, and with an empty one; texts and tokens agree."""
    mask, ids = rollout.response_mask, rollout.response_ids
    cut = mask * (mask.cumsum(1) <= (mask.sum(1, keepdim=True) + 1) // 2)
    first = torch.zeros_like(mask)
    first[:, 0] = 1
    empty = torch.full_like(ids, language_model.pad_id)
    empty[:, 0] = language_model.eos_ids[0]
    one_on: dict[str, Any] = {
        name: value[1:] + value[:1] if isinstance(value := getattr(rollout, name), list) else value.roll(-1, 0)
        for name in ("responses", "response_ids", "response_mask", "has_eos", "sampled_log_probs")
    }
    texts = language_model.decode(ids, cut, rollout)
    halved = replace(rollout, responses=texts, response_mask=cut, has_eos=torch.zeros_like(rollout.has_eos))
    return [
        replace(rollout, **one_on),
        halved,
        replace(rollout, responses=[""] * len(rollout), response_ids=empty, response_mask=first, has_eos=torch.ones_like(rollout.has_eos)),
    ]


def check_ends(batch: Rollout, eos_ids: Sequence[int], pad_id: int, room: int | None) -> Check:
    """Every response is one stretch from the first column that ends at its first EOS or at the limit of `room` tokens."""
    mask, device = batch.response_mask.bool(), batch.response_mask.device
    lengths = mask.sum(1)
    stretch = mask == (torch.arange(mask.shape[1], device=device) < lengths[:, None])
    is_eos = torch.isin(batch.response_ids, torch.tensor(list(eos_ids), device=device)) & mask
    last = is_eos.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    at_limit = lengths == (mask.shape[1] if room is None else room)
    faults = {
        "have no token": lengths == 0,
        "have a hole in their mask or don't start in the first column": ~stretch.all(1),
        "go on after an end-of-text token": is_eos.sum(1) > last.long(),
        "say of their end what their last token doesn't (has_eos)": last != batch.has_eos,
        "end neither at an end-of-text token nor at the limit": ~last & ~at_limit,
    }
    said = [f"{int(rows.sum())} of {len(batch)} responses {fault}" for fault, rows in faults.items() if bool(rows.any())]
    told = "EOS and pad are one token, told apart by masks" if pad_id in eos_ids else "EOS and pad are two tokens"
    found = f"{int(batch.has_eos.sum())} of {len(batch)} responses end by themselves, the others at the limit; {told}"
    return Check("ends", found, "; ".join(said) and f"{'; '.join(said)}: look at rollout_sampler and at the model's eos_token_id")


def check_numbers(batch: Experience) -> Check:
    """Rewards, values, returns and advantages are finite where the mask is; advantages have its shape and are 0 outside."""
    mask = batch.response_mask.bool()
    parts = {"rewards": batch.rewards, "values": batch.values, "returns": batch.returns, "advantages": batch.advantages}
    given = {name: value for name, value in parts.items() if value is not None}
    makers = {"rewards": "rollout_shaping", "values": "the critic", "returns": "advantage", "advantages": "advantage"}
    for name, value in given.items():
        if value.shape != mask.shape:
            return Check("numbers", f"{name} are {list(value.shape)}", f"they must be {list(mask.shape)}: look at {makers[name]}")
        bad = ~torch.isfinite(value) & mask
        if bool(bad.any()):
            found = f"{int(bad.sum())} of {int(mask.sum())} {name} are not finite"
            return Check("numbers", found, f"look at {makers[name]}, and at the weights for NaN")
    outside = batch.advantages[~mask]
    if bool((outside != 0).any()):
        return Check("numbers", "advantages outside the response mask are not 0", "multiply them with response_mask: look at advantage")
    return Check("numbers", f"{', '.join(given)} are finite; advantages are 0 outside the mask")
