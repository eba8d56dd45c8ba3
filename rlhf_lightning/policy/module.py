"""PPO as a LightningModule: one training_step is one iteration, and reads top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn

from rlhf_lightning.backbone.language_model import LanguageModel, frozen
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Experience, Prompts, Rollout, ScoredRollout, score_on_last_token
from rlhf_lightning.policy.alarms import alarms
from rlhf_lightning.policy.checks import FirstBatch, hold_all
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.watch import held_out_metrics, response_metrics
from rlhf_lightning.rollout.sampler.sampler import Sampler
from rlhf_lightning.rollout.scorer.scorer import Scorer, checked_scores
from rlhf_lightning.tensors import kl_estimate

MAX_BAD_UPDATES = 3
FUSED = ("cpu", "cuda")
"""Devices on which PyTorch has a fused AdamW."""


class KLControl(Protocol):
    """Holds the KL coefficient and moves it after each update; an nn.Module, so that its state is in the checkpoint."""

    def value(self) -> float: ...

    def update(self, kl: float, responses: int) -> None: ...


@dataclass
class PPOParts:
    """The registered components that an iteration is assembled from, each with its settings bound.

    Attributes:
        held_out: scorers that nothing is trained on, by the name of the metric that their mean score is logged as.
        at_reference: whether training starts at the reference; False in a later round, whose reference is the first one's start.
        corrected: whether the loss corrects for what the sampler saw.
        greedy: draws the likeliest response, for an estimator that compares with its score.
        say: shows a line to the user: the self-checks, an alarm.
    """

    sampler: Sampler
    scorer: Scorer
    shapings: Sequence[Callable[[ScoredRollout], ScoredRollout]]
    advantage: Callable[[ScoredRollout], Experience]
    loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    reduction: Callable[[Tensor, Tensor], Tensor]
    value_loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    kl_control: KLControl
    held_out: Mapping[str, Scorer] = field(default_factory=dict)
    at_reference: bool = True
    corrected: bool = False
    greedy: Sampler | None = None
    say: Callable[[str], None] = lambda text: None


class PPOModule(L.LightningModule):
    """Proximal policy optimisation of a language model (Schulman et al. 2017; Ziegler et al. 2019; Huang et al. 2024).

    The reference and the scorer are frozen, outside the module's parameters and checkpoints. Dropout is off throughout (eval mode), so
    that the ratio of the first minibatch is 1 and the KL of an untouched policy is 0. `history` holds the metrics of every update.
    """

    def __init__(self, policy: Policy, reference: nn.Module, parts: PPOParts, settings: PPOSettings) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.kl_control: Any = parts.kl_control
        self.shapings = nn.ModuleList(shape for shape in parts.shapings if isinstance(shape, nn.Module))  # their state is in the checkpoint
        self.parts = parts
        self.settings = settings
        self._reference = (frozen(reference),)  # in a tuple: neither a submodule nor in the checkpoint
        self.history: list[dict[str, float]] = []
        self.bad_updates = 0

    @property
    def reference(self) -> nn.Module:
        return self._reference[0]

    @property
    def language_model(self) -> LanguageModel:
        return self.policy.language_model

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # One kernel for all of Adam's arithmetic, where there is one.
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        fused = all(parameter.device.type in FUSED for parameter in trained)
        return torch.optim.AdamW(trained, lr=self.settings.learning_rate, eps=self.settings.adam_eps, weight_decay=0.0, fused=fused)

    def on_fit_start(self) -> None:
        self.reference.to(self.device)

    def training_step(self, prompts: Prompts, batch_idx: int) -> None:
        self.policy.eval()
        self._set_learning_rate(batch_idx)
        rollout = self.parts.sampler(self.language_model, prompts.repeat(self.settings.responses_per_prompt))
        scored = self.score(rollout, self._greedy_scores(prompts))
        experience = self.parts.advantage(scored)
        self._check_first(experience)
        metrics = self.optimise(experience)
        metrics |= objective_metrics(scored, self.entropy) | response_metrics(scored)
        if len(self.history) % self.settings.holdout_every == 0:
            metrics |= held_out_metrics(self.parts.held_out, rollout)
        self._finish_update(metrics, len(rollout))

    def _check_first(self, experience: Experience) -> None:
        """The self-checks, before the first update."""
        if self.history or not self.settings.self_checks:
            return
        parts, resumed = self.parts, self.global_step > 0
        first = FirstBatch(self.policy, parts.sampler, parts.scorer, parts.at_reference and not resumed, parts.corrected)
        hold_all(first.checks(experience), parts.say, lambda held: self.trainer.strategy.reduce_boolean_decision(held, all=True))

    @torch.no_grad()
    def score(self, rollout: Rollout, baseline_scores: Tensor | None = None) -> ScoredRollout:
        """Score the responses, and take log-probabilities and values of policy and reference, in minibatches of one shape."""
        scores = checked_scores(self.parts.scorer, rollout).to(rollout.prompt_ids.device)
        policy = [self.policy(rollout.select(rows)) for rows in self._minibatches(len(rollout), shuffle=False)]
        reference = [self.reference(rollout.select(rows), entropy=False) for rows in self._minibatches(len(rollout), shuffle=False)]
        values = None if self.policy.critic is None else torch.cat([p.values for p in policy])
        self.entropy = torch.cat([p.entropy for p in policy])
        scored = ScoredRollout(
            **vars(rollout), scores=scores, rewards=score_on_last_token(scores, rollout.response_mask), values=values,
            old_log_probs=torch.cat([p.log_probs for p in policy]), ref_log_probs=torch.cat([r.log_probs for r in reference]),
            kl_coef=self.kl_control.value(), baseline_scores=baseline_scores,
        )  # fmt: skip
        for shape in self.parts.shapings:
            scored = shape(scored)
        return scored

    def _greedy_scores(self, prompts: Prompts) -> Tensor | None:
        """[B] the score of the likeliest response to each row's prompt, where the estimator asks for it."""
        if self.parts.greedy is None:
            return None
        likeliest = self.parts.greedy(self.language_model, prompts)
        scores = checked_scores(self.parts.scorer, likeliest).to(prompts.prompt_ids.device)
        return scores.repeat_interleave(self.settings.responses_per_prompt)

    def optimise(self, experience: Experience) -> dict[str, Tensor]:
        """Epochs of minibatch updates; returns their mean metrics."""
        seen: list[dict[str, Tensor]] = []
        for _ in range(self.settings.epochs):
            for rows in self._minibatches(len(experience), shuffle=True):
                seen.append(self._learn(experience.select(rows), self.entropy[rows]))
            if self._kl_passed(seen[-1]["policy/approxkl_avg"]):
                break
        metrics = {name: torch.stack([m[name] for m in seen]).mean() for name in seen[0]}
        return metrics | {"policy/minibatches": torch.tensor(float(len(seen)))}

    def _learn(self, minibatch: Experience, entropy: Tensor) -> dict[str, Tensor]:
        """One optimiser step on the gradient of a minibatch, taken from micro-batches; returns the metrics.

        Args:
            entropy: [B, T] of the behaviour policy, for the log where no bonus asks for the present one.
        """
        weights = token_weights(self.parts.reduction, minibatch.response_mask)
        share = minibatch.response_mask / minibatch.response_mask.sum().clamp(min=1)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        total: dict[str, Tensor] = {}
        whole = torch.zeros((), device=minibatch.response_mask.device)
        rows = torch.arange(len(minibatch), device=minibatch.response_mask.device)
        for part in rows.split(self.settings.micro_batch or len(rows)):
            loss, metrics = self.loss(minibatch.select(part), weights[part], share[part], entropy[part])
            self.manual_backward(loss)
            whole += loss.detach()
            total = {name: total.get(name, 0.0) + value for name, value in metrics.items()}
        self._update(whole)
        return total

    def loss(self, part: Experience, weights: Tensor, share: Tensor, entropy: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy loss, entropy bonus and value loss of a minibatch, or of the part of it that `part` is: parts add up to the whole.

        Args:
            weights: [B, T] of each token in the minibatch's loss (`token_weights`).
            share: [B, T] of each token in a mean over the minibatch's tokens.
            entropy: [B, T] of the behaviour policy.
        """
        settings = self.settings
        output = self.policy(part, entropy=settings.entropy_coef != 0)
        entropy_mean = weighted_sum(entropy if output.entropy is None else output.entropy, share)
        per_token, metrics = self.parts.loss(part, output.log_probs)
        policy_loss = weighted_sum(per_token, weights)
        loss = policy_loss - settings.entropy_coef * entropy_mean if output.entropy is not None else policy_loss
        added = {"loss/policy_avg": policy_loss, "policy/entropy_avg": entropy_mean}
        if output.values is not None and part.returns is not None:
            value_per_token, value_metrics = self.parts.value_loss(part, output.values)
            value_loss = weighted_sum(value_per_token, weights)
            loss = loss + settings.value_coef * value_loss
            metrics |= value_metrics
            added["loss/value_avg"] = value_loss
        # A component's metrics are means over the tokens it was shown.
        tokens = share.sum()
        metrics = {name: value * tokens for name, value in metrics.items()} | added
        return loss, {name: value.detach().float() for name, value in metrics.items()}

    def _update(self, loss: Tensor) -> None:
        """One optimiser step; a non-finite gradient is dropped, and stops the run when it comes again and again."""
        optimizer: Any = self.optimizers()
        norm = nn.utils.clip_grad_norm_(self.policy.parameters(), self.settings.max_grad_norm)
        if torch.isfinite(norm):
            optimizer.step()
            self.bad_updates = 0
            return
        optimizer.zero_grad()
        self.bad_updates += 1
        if self.bad_updates >= MAX_BAD_UPDATES:
            raise UserError(
                f"{self.bad_updates} updates in a row had a non-finite gradient (loss {loss.item():g}) and were not applied; "
                "lower ppo.learning_rate, clip the scores (rollout_shaping), or look for infinities in what the scorer returns"
            )

    def _minibatches(self, rows: int, shuffle: bool) -> tuple[Tensor, ...]:
        order = torch.randperm(rows) if shuffle else torch.arange(rows)
        return order.to(self.device).tensor_split(self.settings.minibatches)

    def _set_learning_rate(self, update: int) -> None:
        left = 1.0 - update / self.settings.updates if self.settings.learning_rate_schedule == "linear" else 1.0
        optimizer: Any = self.optimizers()
        for parameters in optimizer.param_groups:
            parameters["lr"] = self.settings.learning_rate * left

    def _kl_passed(self, approx_kl: Tensor) -> bool:
        """Whether to stop this iteration's epochs: any rank's KL passing the target stops all of them, else they'd wait for ever."""
        if self.settings.target_kl is None:
            return False
        passed = bool(approx_kl > 1.5 * self.settings.target_kl)
        return bool(self.trainer.strategy.reduce_boolean_decision(passed, all=False))

    def _finish_update(self, metrics: dict[str, Tensor], responses: int) -> None:
        world = self.trainer.world_size
        names = list(metrics)
        values = torch.stack([metrics[name].detach().float().to(self.device) for name in names])
        if world > 1:
            values = self.trainer.strategy.reduce(values, reduce_op="mean")
        figures = dict(zip(names, values.tolist(), strict=True))
        self.kl_control.update(figures["objective/kl"], responses * world)
        optimizer: Any = self.optimizers()
        figures["lr"] = optimizer.param_groups[0]["lr"]
        figures["episode"] = (len(self.history) + 1) * responses * world
        self._sound_alarms(figures)
        self.history.append(figures)
        for logger in self.loggers:
            logger.log_metrics(figures, step=len(self.history))

    def _sound_alarms(self, figures: dict[str, float]) -> None:
        """Add the alarms to an update's figures; say each when it first begins."""
        for name, text in alarms([*self.history, figures]).items():
            figures[f"alarm/{name}"] = float(bool(text))
            if text and not any(step.get(f"alarm/{name}") for step in self.history):
                self.parts.say(f"alarm {name} at update {len(self.history) + 1}: {text}")
            # The figures are the same on every process.
            self.trainer.should_stop |= bool(text) and self.settings.stop_on_alarm


def token_weights(reduction: Callable[[Tensor, Tensor], Tensor], mask: Tensor) -> Tensor:
    """[B, T] the weight of each token in a reduction, which is linear in the tokens' losses: its gradient."""
    with torch.enable_grad():
        losses = torch.zeros(mask.shape, device=mask.device, requires_grad=True)
        reduced = reduction(losses, mask)
        return torch.autograd.grad(reduced, losses)[0] if reduced.requires_grad else torch.zeros_like(losses)


def weighted_sum(per_token: Tensor, weights: Tensor) -> Tensor:
    """The sum over [B, T] where there is a weight; what stands elsewhere, NaN included, isn't read."""
    return (torch.where(weights != 0, per_token, torch.zeros_like(per_token)) * weights).sum()


@torch.no_grad()
def objective_metrics(scored: ScoredRollout, entropy: Tensor) -> dict[str, Tensor]:
    """The objective under TRL's names: KL and entropy summed over a response, scores before and rewards after shaping."""
    mask = scored.response_mask
    kl = kl_estimate(scored.old_log_probs, scored.ref_log_probs).mul(mask).sum(1).mean()
    rlhf_reward = scored.rewards.sum(1).mean()
    lengths = mask.sum(1).float()
    return {
        "objective/kl": kl,
        "objective/entropy": entropy.mul(mask).sum(1).mean(),
        "objective/scores": scored.scores.float().mean(),
        "objective/rlhf_reward": rlhf_reward,
        "objective/non_score_reward": rlhf_reward - scored.scores.float().mean(),
        "objective/kl_coef": torch.tensor(scored.kl_coef),
        "val/num_eos_tokens": scored.has_eos.float().sum(),
        "val/response_length": lengths.mean(),
    }
