"""Self-checks of a policy's first batch, before the first update.

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
from rlhf_lightning.rollout.gather import Sampler
from rlhf_lightning.rollout.scoring import Scorer, checked_scores
from rlhf_lightning.tensors import kl_estimate

FULL = (1e-4, 1e-3)
"""Limits on the difference of the same tokens' log-probabilities in float32: mean and maximum."""
COARSE = (5e-2, 1.0)
"""The same in bfloat16, float16 and TF32, and for a sampler with a policy_correction."""
HALVES = (torch.bfloat16, torch.float16)
ROWS = 8
"""Responses that are scored again in another batch, and replaced by other texts for the scorer."""
OFF = "ppo.self_checks=false skips the checks"


@dataclass(frozen=True)
class Check:
    """Result of a check; `failure` is cause and remedy, empty if it passed."""

    name: str
    result: str
    failure: str = ""

    def __str__(self) -> str:
        return f"self-check {self.name}: {self.result}" + (f". FAILED: {self.failure}" if self.failure else "")


def report_checks(checks: Sequence[Check], log: Callable[[str], None], all_processes: Callable[[bool], bool]) -> None:
    """Log each check, one line each, and stop if one fails.

    Args:
        all_processes: reduces a condition over all processes; called before anything is raised.

    Raises:
        UserError: with every failed check's cause, or if a check failed on another process.
    """
    for check in checks:
        log(str(check))
    failed = [check for check in checks if check.failure]
    if all_processes(not failed):
        return
    causes = "\n".join(map(str, failed)) or "a self-check failed on another process: see its message"
    raise UserError(f"the first batch isn't fit to learn from\n{causes}\n({OFF})")


@dataclass(frozen=True)
class FirstBatch:
    """The self-checks of stage=ppo on the experience of the first iteration.

    They change nothing and draw no random numbers. Cost, once: two responses alone,
    ROWS responses twice through the policy, and 3 x ROWS texts through the scorer.

    Attributes:
        at_reference: whether policy and reference are equal: their KL must be 0; else it is only logged.
        corrected: whether a policy_correction corrects for the sampler.
    """

    policy: Policy
    sampler: Sampler
    scorer: Scorer
    at_reference: bool = True
    corrected: bool = False

    def checks(self, batch: Experience) -> list[Check]:
        """Every check, in the order of the flow."""
        device, model = batch.response_mask.device, self.policy.language_model
        max_tokens, has_stop_strings = self._sampler_setting("max_new_tokens"), bool(self._sampler_setting("stop_strings"))
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            return [
                check_ends(batch, model.eos_ids, model.pad_id, max_tokens, has_stop_strings),
                self.check_sampler(batch),
                self.check_reference(batch),
                self.check_padding(batch),
                self.check_ratio(batch),
                self.check_reward(batch),
                check_numbers(batch),
            ]

    def check_sampler(self, batch: ScoredRollout) -> Check:
        """Compare the sampler's log-probabilities with the policy's (`old_log_probs`)."""
        mean, most = difference(batch.sampled_log_probs, batch.old_log_probs, batch.response_mask)
        limits = COARSE if self.corrected else self._limits()
        result = f"sampler and policy differ by {mean:.2g} on average and {most:.2g} at most"
        top_p, temperature = self._sampler_setting("top_p"), self._sampler_setting("temperature")
        cut = f"top_p={top_p:g}" if top_p is not None and top_p < 1 else "temperature=0" if temperature == 0 else ""
        if cut:
            return Check("sampler", f"{result}; no limit: with {cut} the sampler draws from another distribution than the policy's")
        why = (
            f"log-probabilities of the sampled tokens must agree to {limits[0]:g} on average and {limits[1]:g} at most: the sampler has "
            "another temperature, other weights or wrong positions; fix rollout_sampler, or if it only computes less exactly choose a "
            "policy_correction"
        )
        return Check("sampler", result, "" if within((mean, most), limits) else why)

    def check_reference(self, batch: ScoredRollout) -> Check:
        """Check that an untrained policy has a KL of 0."""
        moved = difference(batch.old_log_probs, batch.ref_log_probs, batch.response_mask)
        kl = (kl_estimate(batch.old_log_probs, batch.ref_log_probs) * batch.response_mask).sum(1).mean().item()
        if not self.at_reference:
            return Check("reference", f"KL {kl:.3g} nats a response to the reference, from which the policy had moved before")
        why = (
            "before the first update policy and reference must be the same model: their weights, adapters, dropout or temperature differ; "
            "load both from one folder and leave both in eval mode"
        )
        return Check("reference", f"KL {kl:.2g} nats a response, log ratio {moved[1]:.2g} at most", self._unless(moved, why))

    @torch.no_grad()
    def check_padding(self, batch: ScoredRollout) -> Check:
        """Check that neither padding nor order nor neighbours change a response's log-probabilities."""
        lengths = batch.prompt_mask.sum(1)
        pairs = [
            *((row, batch.select(row)) for row in (lengths.argmin()[None], lengths.argmax()[None])),
            (rows := self._rows(batch).flip(0), add_padding(batch.select(rows), self.policy.language_model.pad_id)),
        ]
        width = batch.response_mask.shape[1]
        differences = [difference(self.policy(other).log_probs[:, :width], batch.old_log_probs[row], other.response_mask[:, :width])
                 for row, other in pairs]  # fmt: skip
        worst = (max(mean for mean, _ in differences), max(most for _, most in differences))
        why = (
            "a response's log-probabilities depend on its padding or on the other responses of its batch: attention masks or positions of "
            "the model are wrong, or dropout is on"
        )
        return Check("padding", f"alone, reversed and padded, log-probabilities move by {worst[1]:.2g} at most", self._unless(worst, why))

    def check_ratio(self, batch: ScoredRollout) -> Check:
        """Check that the ratio of the first minibatch is 1."""
        rows = self._rows(batch)
        moved = difference(self.policy(batch.select(rows)).log_probs.detach(), batch.old_log_probs[rows], batch.response_mask[rows])
        why = "before the first update the ratio must be 1: dropout is on, or the policy's weights or temperature change between two passes"
        return Check("ratio", f"log ratio {moved[1]:.2g} at most before the first update", self._unless(moved, why))

    @torch.no_grad()
    def check_reward(self, batch: ScoredRollout) -> Check:
        """Check that another response to the same prompt gets another score."""
        rows = self._rows(batch)
        # With sparse rewards, a change of text changes the score of the best and the worst response.
        rows[0], rows[-1] = batch.scores.argmax(), batch.scores.argmin()
        selected = Rollout(**{field.name: getattr(batch, field.name) for field in fields(Rollout)}).select(rows)
        scores, changed, texts = batch.scores[rows].cpu(), 0, 0
        for other in other_texts(selected, self.policy.language_model):
            differs = torch.tensor([a != b for a, b in zip(selected.responses, other.responses, strict=True)])
            try:
                other_scores = checked_scores(self.scorer, other).cpu()
            except UserError as cause:
                return Check("reward", "a response cut, emptied or exchanged for another can't be scored", str(cause))
            texts += int(differs.sum())
            same = (other_scores - scores).abs() <= 1e-5 + 1e-4 * scores.abs()  # NaN isn't: the scorer has read the text
            changed += int((differs & ~same).sum())
        result = f"{changed} of {texts} responses that were cut, emptied or exchanged got another score"
        if changed or not texts:
            return Check("reward", result)
        if bool((batch.scores == batch.scores[0]).all()):
            # Sparse rewards look the same; the alarm "constant" catches a scorer that is broken.
            return Check("reward", f"{result}. WARNING: every response's score is {scores[0]:g}; with equal scores nothing is learned")
        why = f"the first scores are {scores[:3].tolist()} for any response: rollout_scorer doesn't read it"
        return Check("reward", result, why)

    def _unless(self, differences: tuple[float, float], why: str) -> str:
        return "" if within(differences, self._limits()) else why

    def _limits(self) -> tuple[float, float]:
        parameter = next(self.policy.parameters())
        kind = parameter.device.type
        coarse = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) in HALVES
        tf32 = kind == "cuda" and torch.get_float32_matmul_precision() != "highest"
        return COARSE if coarse or tf32 or parameter.dtype in HALVES else FULL

    def _rows(self, batch: Rollout) -> Tensor:
        """ROWS rows spread over the batch; equally many on every process, as a sharded model needs."""
        return torch.linspace(0, len(batch) - 1, ROWS, device=batch.response_mask.device).long()

    def _sampler_setting(self, setting: str) -> Any:
        """A setting of the sampler; None if it has none of that name."""
        parameter = inspect.signature(self.sampler).parameters.get(setting)
        return getattr(self.sampler, setting, None) if parameter is None else parameter.default


def difference(a: Tensor, b: Tensor, mask: Tensor) -> tuple[float, float]:
    """Mean and maximum of the absolute difference of two [B, T] over a mask."""
    gaps = (a - b)[mask.bool()].abs()
    return (gaps.mean().item(), gaps.max().item()) if gaps.numel() else (0.0, 0.0)


def within(differences: tuple[float, float], limits: tuple[float, float]) -> bool:
    """Compare mean and maximum with their limits; False for NaN."""
    return differences[0] <= limits[0] and differences[1] <= limits[1]


def add_padding(batch: ScoredRollout, pad_id: int, by: int = 3) -> ScoredRollout:
    """Add columns of padding left of prompts and right of responses; log-probabilities keep their shape."""
    return replace(
        batch,
        prompt_ids=pad(batch.prompt_ids, (by, 0), value=pad_id),
        prompt_mask=pad(batch.prompt_mask, (by, 0)),
        response_ids=pad(batch.response_ids, (0, by), value=pad_id),
        response_mask=pad(batch.response_mask, (0, by)),
    )


def other_texts(rollout: Rollout, language_model: Any) -> list[Rollout]:
    """The prompts with a neighbour's response, with half of their response, and with an empty one."""
    mask, ids = rollout.response_mask, rollout.response_ids
    cut = mask * (mask.cumsum(1) <= (mask.sum(1, keepdim=True) + 1) // 2)
    first = torch.zeros_like(mask)
    first[:, 0] = 1
    empty = torch.full_like(ids, language_model.pad_id)
    empty[:, 0] = language_model.eos_ids[0]
    shifted: dict[str, Any] = {
        name: value[1:] + value[:1] if isinstance(value := getattr(rollout, name), list) else value.roll(-1, 0)
        for name in ("responses", "response_ids", "response_mask", "has_eos", "sampled_log_probs")
    }
    texts = language_model.decode(ids, cut, rollout)
    halved = replace(rollout, responses=texts, response_mask=cut, has_eos=torch.zeros_like(rollout.has_eos))
    return [
        replace(rollout, **shifted),
        halved,
        replace(rollout, responses=[""] * len(rollout), response_ids=empty, response_mask=first, has_eos=torch.ones_like(rollout.has_eos)),
    ]


def check_ends(batch: Rollout, eos_ids: Sequence[int], pad_id: int, max_tokens: int | None, has_stop_strings: bool = False) -> Check:
    """Check that responses start in the first column and end at the first end or at `max_tokens`."""
    mask, device = batch.response_mask.bool(), batch.response_mask.device
    lengths = mask.sum(1)
    contiguous = mask == (torch.arange(mask.shape[1], device=device) < lengths[:, None])
    is_eos = torch.isin(batch.response_ids, torch.tensor(list(eos_ids), device=device)) & mask
    last = is_eos.gather(1, (lengths - 1).clamp(min=0)[:, None])[:, 0]
    ended = last | batch.has_eos if has_stop_strings else last
    at_limit = lengths == (mask.shape[1] if max_tokens is None else max_tokens)
    faults = {
        "have no token": lengths == 0,
        "have a hole in their mask or don't start in the first column": ~contiguous.all(1),
        "continue after an end-of-text token": is_eos.sum(1) > last.long(),
        "have a has_eos that contradicts their last token": ended != batch.has_eos,
        "end neither at an end-of-text token nor at the limit": ~ended & ~at_limit,
    }
    failures = [f"{int(rows.sum())} of {len(batch)} responses {fault}" for fault, rows in faults.items() if bool(rows.any())]
    tokens = "EOS and pad are one token, distinguished by masks" if pad_id in eos_ids else "EOS and pad are two tokens"
    ends = "EOS or a stop string" if has_stop_strings else "EOS"
    result = f"{int(batch.has_eos.sum())} of {len(batch)} responses end with {ends}, the others at the limit; {tokens}"
    return Check("ends", result, "; ".join(failures) and f"{'; '.join(failures)}: look at rollout_sampler and at the model's eos_token_id")


def check_numbers(batch: Experience) -> Check:
    """Check that rewards, values, returns and advantages are finite in the mask and have its shape."""
    mask = batch.response_mask.bool()
    parts = {"rewards": batch.rewards, "values": batch.values, "returns": batch.returns, "advantages": batch.advantages}
    present = {name: value for name, value in parts.items() if value is not None}
    makers = {"rewards": "rollout_shaping", "values": "the critic", "returns": "advantage", "advantages": "advantage"}
    for name, value in present.items():
        if value.shape != mask.shape:
            return Check("numbers", f"{name} are {list(value.shape)}", f"they must be {list(mask.shape)}: look at {makers[name]}")
        bad = ~torch.isfinite(value) & mask
        if bool(bad.any()):
            result = f"{int(bad.sum())} of {int(mask.sum())} {name} are not finite"
            return Check("numbers", result, f"look at {makers[name]}, and at the weights for NaN")
    outside = batch.advantages[~mask]
    if bool((outside != 0).any()):
        return Check("numbers", "advantages outside the response mask are not 0", "multiply them with response_mask: look at advantage")
    return Check("numbers", f"{', '.join(present)} are finite; advantages are 0 outside the mask")
