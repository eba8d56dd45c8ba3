"""PPO as a LightningModule: one training_step is one iteration, and reads top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rlhf_lightning.backbone.language_model import LanguageModel, frozen
from rlhf_lightning.backbone.response_log_probs import response_log_probs
from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Experience, Prompts, Rollout, ScoredRollout, score_on_last_token
from rlhf_lightning.policy.alarms import alarms
from rlhf_lightning.policy.checks import FirstBatch, hold_all
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.token_weights import token_weights, weighted_sum
from rlhf_lightning.policy.watch import held_out_metrics, objective_metrics, response_metrics
from rlhf_lightning.processes import batch_at, process_count, summed, summed_by_name, unsynchronised
from rlhf_lightning.rollout.processes import fanned_out, of_all_processes
from rlhf_lightning.rollout.sampler.sampler import Sampler
from rlhf_lightning.rollout.scorer.scorer import Scorer, checked_scores

MAX_BAD_UPDATES = 3
UPDATES_OF_A_SEED = 1_000_003
"""No run has as many updates, so that no two seeds share their random numbers."""
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
        demonstrations: makes the loader of this rank, of so many, of what the policy must not unlearn (ppo.ptx_coef).
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
    demonstrations: Callable[[int, int], DataLoader[Any]] | None = None
    say: Callable[[str], None] = lambda text: None


class PPOModule(L.LightningModule):
    """Proximal policy optimisation of a language model (Schulman et al. 2017; Ziegler et al. 2019; Huang et al. 2024).

    The reference and the scorer are frozen, outside the module's parameters and checkpoints. Dropout is off throughout (eval mode), so
    that the ratio of the first minibatch is 1 and the KL of an untouched policy is 0. `history` holds the metrics of every update.
    """

    counters = ("history", "bad_updates")

    def __init__(self, policy: Policy, reference: nn.Module, parts: PPOParts, settings: PPOSettings, seed: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.kl_control: Any = parts.kl_control
        self.shapings = nn.ModuleList(shape for shape in parts.shapings if isinstance(shape, nn.Module))  # their state is in the checkpoint
        self.parts = parts
        self.settings = settings
        self.seed = seed
        self._reference = (frozen(reference),)  # in a tuple: neither a submodule nor in the checkpoint
        self.history: list[dict[str, float]] = []
        self.bad_updates = 0
        self.critic_alone = False

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
        self.demonstrations = None if self.parts.demonstrations is None else self.parts.demonstrations(*self._place)

    def training_step(self, prompts: Prompts, batch_idx: int) -> None:
        self.policy.eval()
        self._set_learning_rate(batch_idx)
        self.critic_alone = self.policy.critic is not None and batch_idx < self.policy.critic.warmup
        # The same numbers on every process and however many there are; made anew for each update, so that a resumed run draws them too.
        self.generator = torch.Generator().manual_seed(self.seed * UPDATES_OF_A_SEED + batch_idx)
        rollout = self.parts.sampler(self.language_model, self._fanned_out(prompts))
        scored = self.shaped(of_all_processes(self.score(rollout, self._greedy_scores(prompts)), *self._place))
        experience = self.parts.advantage(scored)
        self._check_first(experience)
        metrics = self.optimise(experience)
        metrics |= objective_metrics(scored) | response_metrics(scored)
        if len(self.history) % self.settings.holdout_every == 0:
            # As many responses on each process.
            found = held_out_metrics(self.parts.held_out, rollout)
            metrics |= summed_by_name({name: mean.to(self.device) / process_count() for name, mean in found.items()})
        self._finish_update(metrics, len(scored))

    @property
    def _place(self) -> tuple[int, int]:
        """This process's rank, and how many there are."""
        return self.trainer.global_rank, self.trainer.world_size

    def _fanned_out(self, prompts: Prompts) -> Prompts:
        return fanned_out(prompts, self.settings.responses_per_prompt, self.generator, *self._place)

    def _check_first(self, experience: Experience) -> None:
        """The self-checks, before the first update."""
        if self.history or not self.settings.self_checks:
            return
        parts, resumed = self.parts, self.global_step > 0
        first = FirstBatch(self.policy, parts.sampler, parts.scorer, parts.at_reference and not resumed, parts.corrected)
        hold_all(first.checks(experience), parts.say, lambda held: self.trainer.strategy.reduce_boolean_decision(held, all=True))

    @torch.no_grad()
    def score(self, rollout: Rollout, baseline_scores: Tensor | None = None) -> ScoredRollout:
        """Score this process's responses, and take log-probabilities and values of policy and reference, in minibatches of one shape."""
        scores = checked_scores(self.parts.scorer, rollout).to(rollout.prompt_ids.device)
        parts = torch.arange(len(rollout), device=self.device).tensor_split(self.settings.minibatches)
        policy = [self.policy(rollout.select(rows)) for rows in parts]
        reference = [self.reference(rollout.select(rows), entropy=False) for rows in parts]
        return ScoredRollout(
            **vars(rollout), scores=scores, rewards=score_on_last_token(scores, rollout.response_mask),
            values=None if self.policy.critic is None else torch.cat([p.values for p in policy]),
            old_log_probs=torch.cat([p.log_probs for p in policy]), ref_log_probs=torch.cat([r.log_probs for r in reference]),
            entropy=torch.cat([p.entropy for p in policy]), kl_coef=self.kl_control.value(), baseline_scores=baseline_scores,
        )  # fmt: skip

    def shaped(self, scored: ScoredRollout) -> ScoredRollout:
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
        """Epochs of minibatch updates on the responses of all processes; returns their mean metrics."""
        seen: list[dict[str, Tensor]] = []
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(experience), generator=self.generator).to(self.device)
            for rows in order.tensor_split(self.settings.minibatches):
                seen.append(self._learn(experience.select(rows)))
            if self._kl_passed(seen[-1]["policy/approxkl_avg"]):
                break
        metrics = {name: torch.stack([m[name] for m in seen]).mean() for name in seen[0]}
        return summed_by_name(metrics) | {"policy/minibatches": torch.tensor(float(len(seen)))}

    def _learn(self, minibatch: Experience) -> dict[str, Tensor]:
        """One optimiser step on the gradient of a minibatch, which the processes share and take from micro-batches.

        Returns:
            This process's part of the metrics; the parts add up.
        """
        rank, world = self._place
        places = torch.arange(rank, len(minibatch) + -len(minibatch) % world, world, device=self.device)
        # A sharded model's processes must take as many steps as one another: who has no response left takes one that weighs nothing.
        rows, spare = places % len(minibatch), (places >= len(minibatch))[:, None]
        weights = token_weights(self.parts.reduction, minibatch.response_mask)[rows].masked_fill(spare, 0.0)
        share = (minibatch.response_mask / minibatch.response_mask.sum().clamp(min=1))[rows].masked_fill(spare, 0.0)
        own = minibatch.select(rows)
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        total = self._imitate()
        whole = torch.zeros((), device=self.device)
        parts = torch.arange(len(own), device=self.device).split(self.settings.micro_batch or len(own))
        for part in parts:
            loss, metrics = self.loss(own.select(part), weights[part], share[part])
            with nullcontext() if part is parts[-1] else unsynchronised(self.trainer.strategy.model):
                self.manual_backward(loss * world)  # the gradients of the processes are averaged
            whole += loss.detach()
            total |= {name: total.get(name, 0.0) + value for name, value in metrics.items()}
        self._update(whole)
        return total

    def _imitate(self) -> dict[str, Tensor]:
        """Add the gradient of ppo.ptx_coef times the mean negative log-likelihood of a batch of demonstrations (Ouyang et al. 2022, eq. 2;
        the ptx loss of Zheng et al. 2023). Returns this process's part of it."""
        if self.demonstrations is None or self.critic_alone:
            return {}
        said, tokens = response_log_probs(self.language_model, batch_at(self.demonstrations, self.global_step).to(self.device))
        loss = -said.sum() / summed(tokens.sum().to(said)).clamp(min=1)
        with unsynchronised(self.trainer.strategy.model):
            self.manual_backward(self.settings.ptx_coef * loss * process_count())
        return {"loss/ptx_avg": loss.detach()}

    def loss(self, part: Experience, weights: Tensor, share: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy loss, entropy bonus and value loss of a minibatch, or of the part of it that `part` is: parts add up to the whole.

        Args:
            weights: [B, T] of each token in the minibatch's loss (`token_weights`).
            share: [B, T] of each token in a mean over the minibatch's tokens.
        """
        settings = self.settings
        output = self.policy(part, entropy=settings.entropy_coef != 0)
        # Of the behaviour policy where no bonus asks for the present one.
        entropy_mean = weighted_sum(part.entropy if output.entropy is None else output.entropy, share)
        per_token, metrics = self.parts.loss(part, output.log_probs)
        policy_loss = weighted_sum(per_token, weights)
        loss = policy_loss - settings.entropy_coef * entropy_mean if output.entropy is not None else policy_loss
        if self.critic_alone:
            loss = 0.0 * loss
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
        if self.critic_alone:
            self.language_model.model.zero_grad()  # Adam passes over what has no gradient, and counts no step of it
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

    def _set_learning_rate(self, update: int) -> None:
        left = 1.0 - update / self.settings.updates if self.settings.learning_rate_schedule == "linear" else 1.0
        optimizer: Any = self.optimizers()
        for parameters in optimizer.param_groups:
            parameters["lr"] = self.settings.learning_rate * left

    def _kl_passed(self, approx_kl: Tensor) -> bool:
        """Whether the last minibatch's KL stops this iteration's epochs, on all processes together.

        Args:
            approx_kl: this process's part of it.
        """
        if self.settings.target_kl is None:
            return False
        return bool(summed(approx_kl) > 1.5 * self.settings.target_kl)

    def _finish_update(self, metrics: dict[str, Tensor], responses: int) -> None:
        values = torch.stack([value.detach().float().to(self.device) for value in metrics.values()])
        figures = dict(zip(metrics, values.tolist(), strict=True))
        self.kl_control.update(figures["objective/kl"], responses)
        optimizer: Any = self.optimizers()
        figures["lr"] = optimizer.param_groups[0]["lr"]
        figures["episode"] = (len(self.history) + 1) * responses
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
