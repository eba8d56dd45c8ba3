"""PPO as a LightningModule: one training_step is one iteration, and reads top to bottom."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from rlhf_lightning.flow import Experience, Prompts, Rollout, ScoredRollout, score_on_last_token
from rlhf_lightning.model.language_model import LanguageModel, freeze
from rlhf_lightning.policy.alarms import raise_alarms
from rlhf_lightning.policy.components import PPOParts
from rlhf_lightning.policy.metrics import held_out_metrics, objective_metrics, response_metrics
from rlhf_lightning.policy.model import Policy, StartPolicy
from rlhf_lightning.policy.oom_retry import Work, retry_on_oom
from rlhf_lightning.policy.self_checks import FirstBatch, report_checks
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.token_weights import token_weights, weighted_sum
from rlhf_lightning.policy.value_ranges import check_value_ranges, value_ranges
from rlhf_lightning.rollout.drop_unscored import drop_unscored
from rlhf_lightning.rollout.gather import expand_prompts, gather_rollouts, joined
from rlhf_lightning.rollout.sampling import Sampler
from rlhf_lightning.rollout.scorer.reward_model import scorer_shared_out
from rlhf_lightning.rollout.scoring import agreed_scores, name_of
from rlhf_lightning.training.distributed import all_reduce_metrics, all_reduce_sum, batch_at, no_sync, world_size
from rlhf_lightning.training.nonfinite import NonFiniteGuard, clip
from rlhf_lightning.training.optimizer import check_steps
from rlhf_lightning.training.sharding import FullySharded, shard, whole

T = TypeVar("T")
UPDATES_OF_A_SEED = 1_000_003
"""No run has as many updates, so that no two seeds share their random numbers."""
FUSED = ("cpu", "cuda")
"""Devices on which PyTorch has a fused AdamW."""


class PPOModule(NonFiniteGuard):
    """Proximal policy optimisation of a language model (Schulman et al. 2017; Ziegler et al. 2019; Huang et al. 2024).

    The reference and the scorer are frozen, outside the module's parameters and checkpoints. Dropout is off throughout (eval mode), so
    that the ratio of the first minibatch is 1 and the KL of an untouched policy is 0. `history` holds the metrics of every update.
    """

    counters = (*NonFiniteGuard.counters, "halved")
    advice = "lower ppo.learning_rate, clip the scores (rollout_shaping), or look for infinities in what the scorer returns"
    trained, calls = "policy", ("forward", "of_texts")

    def __init__(self, policy: Policy, reference: nn.Module, parts: PPOParts, settings: PPOSettings, seed: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.kl_control: Any = parts.kl_control
        self.shapings = nn.ModuleList(shape for shape in parts.shapings if isinstance(shape, nn.Module))  # their state is in the checkpoint
        self.parts = parts
        self.settings = settings
        self.seed = seed
        self._reference = (freeze(reference),)  # in a tuple: neither a submodule nor in the checkpoint
        self.halved: dict[str, int] = {}  # by the work in which memory ran out
        self.critic_alone = False

    @property
    def reference(self) -> nn.Module:
        return StartPolicy(self.policy) if isinstance(self._reference[0], StartPolicy) else self._reference[0]

    @property
    def language_model(self) -> LanguageModel:
        return self.policy.language_model

    def configure_optimizers(self) -> torch.optim.Optimizer:
        # One kernel for all of Adam's arithmetic, where there is one.
        trained = [parameter for parameter in self.policy.parameters() if parameter.requires_grad]
        check_steps(trained, self.settings.learning_rate)
        fused = all(parameter.device.type in FUSED for parameter in trained)
        return torch.optim.AdamW(trained, lr=self.settings.learning_rate, eps=self.settings.adam_eps, weight_decay=0.0, fused=fused)

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, FullySharded) and strategy.frozen_too and not self.sharded:
            if not isinstance(self._reference[0], StartPolicy):
                self._reference = (shard(self._reference[0], strategy.device_mesh),)
            self.parts = replace(self.parts, scorer=scorer_shared_out(self.parts.scorer, strategy.device_mesh))
        super().configure_model()

    def on_fit_start(self) -> None:
        self.reference.to(self.device)
        self.demonstrations = None if self.parts.demonstrations is None else self.parts.demonstrations(*self._place)

    def training_step(self, prompts: Prompts, batch_idx: int) -> None:
        self.policy.eval()
        self._set_learning_rate(batch_idx)
        self.critic_alone = self.policy.critic is not None and batch_idx < self.policy.critic.warmup
        # The same numbers on every process and however many there are; made anew for each update, so that a resumed run draws them too.
        self.generator = torch.Generator().manual_seed(self.seed * UPDATES_OF_A_SEED + batch_idx)
        with whole(self.policy):
            rollout = self._drawn(self.parts.sampler, self._fanned_out(prompts))
            greedy_scores = self._greedy_scores(prompts)
        drawn = gather_rollouts(self.score(rollout, greedy_scores), *self._place)
        scored = self.shaped(self._scorable(drawn))
        check_value_ranges(scored, len(self.history) + 1, self.of_weights)
        experience = self.parts.advantage(scored)
        check_value_ranges(experience, len(self.history) + 1, self.of_weights)
        self._check_first(experience)
        metrics = self.optimise(experience)
        metrics |= objective_metrics(scored) | response_metrics(scored)
        if len(self.history) % self.settings.holdout_every == 0:
            metrics |= held_out_metrics(self.parts.held_out, rollout)
        metrics["objective/unscorable"] = torch.tensor(1 - len(scored) / len(drawn))
        self._finish_update(metrics, len(drawn))

    @property
    def _place(self) -> tuple[int, int]:
        """This process's rank, and how many there are."""
        return self.trainer.global_rank, self.trainer.world_size

    def _fanned_out(self, prompts: Prompts) -> Prompts:
        return expand_prompts(prompts, self.settings.responses_per_prompt, self.generator, *self._place)

    def _check_first(self, experience: Experience) -> None:
        """The self-checks, before the first update."""
        if self.history or not self.settings.self_checks:
            return
        parts, resumed = self.parts, self.global_step > 0
        first = FirstBatch(self.policy, parts.sampler, parts.scorer, parts.at_reference and not resumed, parts.corrected)
        with whole(self.policy):
            checks = first.checks(experience)
        report_checks(checks, parts.log, lambda held: self.trainer.strategy.reduce_boolean_decision(held, all=True))

    @torch.no_grad()
    def score(self, rollout: Rollout, baseline_scores: Tensor | None = None) -> ScoredRollout:
        """Score this process's responses, and take log-probabilities and values of policy and reference, in minibatches of one shape."""
        scores, minibatches = self._scores(rollout), min(self.settings.minibatches, len(rollout))

        def said(times: int) -> tuple[list[Any], list[Any]]:
            parts = [rollout.select(rows) for rows in self._split(rollout, minibatches * times)]
            return [self.policy(part) for part in parts], [self.reference(part, entropy=False) for part in parts]

        policy, reference = self._within_memory("scoring", rollout, -(-len(rollout) // minibatches), said)
        return ScoredRollout(
            **vars(rollout), scores=scores, rewards=score_on_last_token(scores, rollout.response_mask),
            values=None if self.policy.critic is None else torch.cat([p.values for p in policy]),
            old_log_probs=torch.cat([p.log_probs for p in policy]), ref_log_probs=torch.cat([r.log_probs for r in reference]),
            entropy=torch.cat([p.entropy for p in policy]), kl_coef=self.kl_control.value(), baseline_scores=baseline_scores,
        )  # fmt: skip

    def _scores(self, rollout: Rollout) -> Tensor:
        """[B] of this process's responses, from the scorer."""

        def found(times: int) -> Tensor:
            return torch.cat([agreed_scores(self.parts.scorer, rollout.select(rows)) for rows in self._split(rollout, times)])

        return self._within_memory("the scorer", rollout, len(rollout), found).to(rollout.prompt_ids.device)

    def _drawn(self, sampler: Sampler, prompts: Prompts) -> Rollout:
        """A response to each prompt; drawn in parts they are the same, for each has a seed of its own."""

        def drawn(times: int) -> Rollout:
            return joined([sampler(self.language_model, prompts.select(rows)) for rows in self._split(prompts, times)])

        return self._within_memory("sampling", prompts, len(prompts), drawn)

    def _split(self, record: Prompts, parts: int) -> tuple[Tensor, ...]:
        return torch.arange(len(record), device=self.device).tensor_split(max(1, min(parts, len(record))))

    def _within_memory(self, name: str, record: Prompts, rows: int, attempt: Callable[[int], T]) -> T:
        return retry_on_oom(Work(name, record, rows), self.halved, attempt, self.policy, self.parts.log)

    def _scorable(self, scored: ScoredRollout) -> ScoredRollout:
        """The responses that have a score; what is left out is said once."""
        rows, said = drop_unscored(scored, self.settings.max_unscorable, name_of(self.parts.scorer))
        if said and not any(step.get("objective/unscorable") for step in self.history):
            self.parts.log(f"update {len(self.history) + 1}: {said}")
        return rows

    def shaped(self, scored: ScoredRollout) -> ScoredRollout:
        for shape in self.parts.shapings:
            scored = shape(scored)
        return scored

    def _greedy_scores(self, prompts: Prompts) -> Tensor | None:
        """[B] the score of the likeliest response to each row's prompt, where the estimator asks for it."""
        if self.parts.greedy is None:
            return None
        scores = self._scores(self._drawn(self.parts.greedy, prompts))
        return scores.repeat_interleave(self.settings.responses_per_prompt)

    def optimise(self, experience: Experience) -> dict[str, Tensor]:
        """Epochs of minibatch updates on the responses of all processes; returns their mean metrics."""
        seen: list[dict[str, Tensor]] = []
        applied: list[dict[str, Tensor]] = []
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(experience), generator=self.generator).to(self.device)
            for rows in order.tensor_split(min(self.settings.minibatches, len(order))):
                seen.append(self._learn(experience.select(rows)))
                applied += seen[-1:] if self.applied else []
            if self._kl_passed(seen[-1]["policy/approxkl_avg"]):
                break
        metrics = {name: torch.stack([m[name] for m in applied or seen]).mean() for name in seen[0]}
        return all_reduce_metrics(metrics) | {"policy/minibatches": torch.tensor(float(len(seen)))}

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
        at_a_time = min(self.settings.micro_batch or len(own), len(own))
        loss, metrics = self._within_memory(
            "optimisation", own, at_a_time, lambda times: self._take_gradient(own, weights, share, -(-at_a_time // times))
        )
        self._update(loss, own)
        return metrics

    def _take_gradient(self, own: Experience, weights: Tensor, share: Tensor, at_a_time: int) -> tuple[Tensor, dict[str, Tensor]]:
        """Leave the gradient of this process's part of a minibatch in the parameters; returns its loss and metrics."""
        world = self._place[1]
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()  # the module's own would miss the shares of what is whole just now
        total = self._imitate()
        whole_loss = torch.zeros((), device=self.device)
        parts = torch.arange(len(own), device=self.device).split(at_a_time)
        for part in parts:
            loss, metrics = self.loss(own.select(part), weights[part], share[part])
            with nullcontext() if part is parts[-1] else no_sync(self.trainer.strategy.model):
                self.manual_backward(loss * world)  # the gradients of the processes are averaged
            whole_loss += loss.detach()
            total |= {name: total.get(name, 0.0) + value for name, value in metrics.items()}
        return whole_loss, total

    def _imitate(self) -> dict[str, Tensor]:
        """Add the gradient of ppo.ptx_coef times the mean negative log-likelihood of a batch of demonstrations (Ouyang et al. 2022, eq. 2;
        the ptx loss of Zheng et al. 2023). Returns this process's part of it."""
        if self.demonstrations is None or self.critic_alone:
            return {}
        said, tokens = self.policy.sequence_log_probs(batch_at(self.demonstrations, self.global_step).to(self.device))
        loss = -said.sum() / all_reduce_sum(tokens.sum().to(said)).clamp(min=1)
        with no_sync(self.trainer.strategy.model):
            self.manual_backward(self.settings.ptx_coef * loss * world_size())
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

    def _update(self, loss: Tensor, minibatch: Experience) -> None:
        """One optimiser step, where loss and gradient are finite."""
        optimizer: Any = self.optimizers()
        if self.critic_alone:
            self.language_model.model.zero_grad()  # Adam passes over what has no gradient, and counts no step of it
        norm = self.checked_grad_norm(loss)
        if norm is None:
            self.drop(loss, minibatch)
        else:
            clip(self.policy.parameters(), self.settings.max_grad_norm, norm)
            optimizer.step()

    def texts_of(self, batch: Experience) -> list[Any]:
        columns = zip(batch.prompts, batch.responses, batch.scores.tolist(), strict=True)
        return [{"prompt": prompt, "response": response, "score": score} for prompt, response, score in columns]

    @torch.no_grad()
    def batch_metrics(self, batch: Experience) -> dict[str, Any]:
        at_a_time = self.halved.get("optimisation", self.settings.micro_batch or len(batch))
        parts = torch.arange(len(batch), device=self.device).split(at_a_time)
        return value_ranges(batch, torch.cat([self.policy(batch.select(rows), entropy=False).log_probs for rows in parts]))

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
        return bool(all_reduce_sum(approx_kl) > 1.5 * self.settings.target_kl)

    def _finish_update(self, metrics: dict[str, Tensor], responses: int) -> None:
        values = torch.stack([value.detach().float().to(self.device) for value in metrics.values()])
        scalars = dict(zip(metrics, values.tolist(), strict=True))
        self.kl_control.update(scalars["objective/kl"], responses)
        optimizer: Any = self.optimizers()
        scalars["lr"] = optimizer.param_groups[0]["lr"]
        scalars["episode"] = (len(self.history) + 1) * responses
        # The metrics are the same on every process.
        self.trainer.should_stop |= raise_alarms(self.history, scalars, self.parts.log) and self.settings.stop_on_alarm
        self.history.append(scalars)
        self.log_step()
