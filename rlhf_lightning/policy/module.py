"""PPO as a LightningModule: a training_step is one iteration, experience making and policy update."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_lightning.flow import Experience, Prompts, prompt_text
from rlhf_lightning.model.language_model import LanguageModel, freeze
from rlhf_lightning.optimization.parameters import OptimizationDefaults, ParameterGroup, TrainedParameters, trained_parameters
from rlhf_lightning.policy.alarms import raise_alarms
from rlhf_lightning.policy.experience import ExperienceMaker, PPOComponents
from rlhf_lightning.policy.metrics import value_ranges
from rlhf_lightning.policy.model import Policy, StartPolicy
from rlhf_lightning.policy.objective import token_weights, weighted_sum
from rlhf_lightning.policy.oom_retry import halve_on_oom
from rlhf_lightning.policy.self_checks import FirstBatch, report_checks
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.rollout.scorer.reward_model import shard_scorer
from rlhf_lightning.training.distributed import all_reduce_metrics, all_reduce_sum, batch_at, no_sync, world_size
from rlhf_lightning.training.nonfinite import NonFiniteGuard, clip
from rlhf_lightning.training.sharding import FullySharded, shard, unsharded_weights

MAX_UPDATES = 1_000_003
"""More than any run has, for distinct random numbers of distinct seeds."""
FUSED_DEVICES = ("cpu", "cuda")
"""Devices with a fused AdamW."""


class PPOModule(NonFiniteGuard):
    """Proximal policy optimisation of a language model.

    Schulman et al. 2017; Ziegler et al. 2019; Huang et al. 2024. The reference and the scorer are frozen, outside the module's parameters
    and checkpoints. Dropout is off throughout (eval mode): the ratio of the first minibatch is 1, and the KL of an untouched policy 0.
    `history` holds the metrics of every update.

    Details: docs/ppo_details.md#dropout-off, docs/ppo_details.md#early-stop-of-an-iteration-on-kl.
    """

    optimization_defaults = OptimizationDefaults(betas=(0.9, 0.999), eps=1e-5, weight_decay=0.0, warmup=0.0)
    counters = (*NonFiniteGuard.counters, "reduced_batch_sizes")
    advice = "lower ppo.learning_rate, clip the scores (rollout_shaping), or look for infinities in the scores"
    trained, calls = "policy", ("forward", "sequence_log_probs")

    def __init__(self, policy: Policy, reference: nn.Module, components: PPOComponents, settings: PPOSettings, seed: int = 0) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.policy = policy
        self.kl_control: Any = components.kl_control
        self.shapings = nn.ModuleList(shape for shape in components.shapings if isinstance(shape, nn.Module))  # for the checkpoint
        self.components = components
        self.settings = settings
        self.seed = seed
        self._reference = (freeze(reference),)  # in a tuple: neither a submodule nor in the checkpoint
        self.reduced_batch_sizes: dict[str, int] = {}
        self.critic_warmup = False
        self.stop_reason = ""
        self.completions: dict[str, Any] = {}

    def training_step(self, prompts: Prompts, batch_idx: int) -> None:
        """Make experience, then optimise the surrogate objective (Schulman et al. 2017, algorithm 1)."""
        self.begin_update(batch_idx)
        experience, rollout_metrics = self.make_experience(prompts)
        self.check_first_batch(experience)
        self.completions = {
            "prompts": [prompt_text(prompt) for prompt in experience.prompts],
            "responses": experience.responses,
            "values": {"score": experience.scores.tolist()},
        }
        update_metrics = self.update_policy(experience)
        self.finish_update(update_metrics | rollout_metrics, self.trainer.world_size * len(prompts) * self.settings.responses_per_prompt)

    def begin_update(self, update: int) -> None:
        """Set eval mode, critic warm-up and the random generator."""
        self.policy.eval()
        self.critic_warmup = self.policy.critic is not None and update < self.policy.critic.warmup
        # Seeded per update: identical on every rank and after a resume.
        self.generator = torch.Generator().manual_seed(self.seed * MAX_UPDATES + update)

    def make_experience(self, prompts: Prompts) -> tuple[Experience, dict[str, Tensor]]:
        """Generate, score, shape rewards and estimate advantages; returns metrics too (policy.experience)."""
        return self.experience_maker(prompts, self.generator, self.trainer.global_rank, self.trainer.world_size)

    @property
    def experience_maker(self) -> ExperienceMaker:
        return ExperienceMaker(
            self.policy,
            self.reference,
            self.components,
            self.settings,
            update=len(self.history) + 1,
            reports_unscored=not any(metrics.get("objective/unscorable") for metrics in self.history),
            reduced_batch_sizes=self.reduced_batch_sizes,
            describe_weights=self.non_finite_weights,
        )

    def check_first_batch(self, experience: Experience) -> None:
        """Run the self-checks before the first update. Raises UserError if one fails."""
        if self.history or not self.settings.self_checks:
            return
        components, resumed = self.components, self.global_step > 0
        starts_at_reference = components.starts_at_reference and not resumed
        first = FirstBatch(self.policy, components.sampler, components.scorer, starts_at_reference, components.has_correction)
        with unsharded_weights(self.policy):
            checks = first.checks(experience)
        report_checks(checks, components.log, lambda passed: self.trainer.strategy.reduce_boolean_decision(passed, all=True))

    def update_policy(self, experience: Experience) -> dict[str, Tensor]:
        """Optimise the surrogate objective in epochs of minibatches; returns mean metrics."""
        steps: list[dict[str, Tensor]] = []
        applied: list[dict[str, Tensor]] = []
        for _ in range(self.settings.epochs):
            order = torch.randperm(len(experience), generator=self.generator).to(self.device)
            for rows in order.tensor_split(min(self.settings.num_minibatches, len(order))):
                steps.append(self._minibatch_step(experience.select(rows)))
                applied += steps[-1:] if self.applied else []
            if self._exceeds_target_kl(steps[-1]["policy/approxkl_avg"]):
                break
        metrics = {name: torch.stack([step[name] for step in applied or steps]).mean() for name in steps[0]}
        return all_reduce_metrics(metrics) | {"policy/minibatches": torch.tensor(float(len(steps)))}

    def _minibatch_step(self, minibatch: Experience) -> dict[str, Tensor]:
        """Take one optimiser step on a minibatch; returns this process's summands of the metrics."""
        # Every rank_th row; padded, because ranks of a sharded model must take equally many forward passes.
        rank, world = self.trainer.global_rank, self.trainer.world_size
        indices = torch.arange(rank, len(minibatch) + -len(minibatch) % world, world, device=self.device)
        rows, is_padding = indices % len(minibatch), (indices >= len(minibatch))[:, None]
        # Weights in the minibatch of all ranks, for gradients and metrics that add up over ranks and micro-batches.
        weights = token_weights(self.components.reduction, minibatch.response_mask)[rows].masked_fill(is_padding, 0.0)
        fractions = minibatch.response_mask / minibatch.response_mask.sum().clamp(min=1)
        local = minibatch.select(rows)
        loss, metrics = self._accumulate_gradient(local, weights, fractions[rows].masked_fill(is_padding, 0.0))
        self._optimizer_step(loss, local)
        return metrics

    def micro_batch_size(self, minibatch: Experience) -> int:
        """Rows of a forward pass in optimisation."""
        return min(self.settings.micro_batch_size or len(minibatch), len(minibatch))

    @halve_on_oom("optimisation", micro_batch_size)
    def _accumulate_gradient(
        self, minibatch: Experience, weights: Tensor, fractions: Tensor, *, split: int = 1
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Compute a minibatch's gradient in micro-batches; returns its loss and summands of the metrics."""
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()  # the module's zero_grad would miss the shards of unsharded parameters
        metrics = self._ptx_backward()
        total_loss = torch.zeros((), device=self.device)
        micro_batches = torch.arange(len(minibatch), device=self.device).split(-(-self.micro_batch_size(minibatch) // split))
        for rows in micro_batches:
            loss, summands = self.loss(minibatch.select(rows), weights[rows], fractions[rows])
            with nullcontext() if rows is micro_batches[-1] else no_sync(self.trainer.strategy.model):
                self.manual_backward(loss * self.trainer.world_size)  # gradients are averaged over the ranks
            total_loss += loss.detach()
            metrics |= {name: metrics.get(name, 0.0) + value for name, value in summands.items()}
        return total_loss, metrics

    def _ptx_backward(self) -> dict[str, Tensor]:
        """Add the gradient of ptx_coef times the mean negative log-likelihood of demonstrations.

        Ouyang et al. 2022, eq. 2; Zheng et al. 2023. Returns this process's summand of the loss.
        """
        if self.demonstrations is None or self.critic_warmup:
            return {}
        log_probs, tokens = self.policy.sequence_log_probs(batch_at(self.demonstrations, self.global_step).to(self.device))
        loss = -log_probs.sum() / all_reduce_sum(tokens.sum().to(log_probs)).clamp(min=1)
        with no_sync(self.trainer.strategy.model):
            self.manual_backward(self.settings.ptx_coef * loss * world_size())
        return {"loss/ptx_avg": loss.detach()}

    def loss(self, micro_batch: Experience, weights: Tensor, fractions: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Policy loss, entropy bonus and value loss (Schulman et al. 2017, eq. 9).

        The losses of micro-batches add up to that of their minibatch.

        Args:
            weights: [B, T] of each token in the minibatch's loss (`token_weights`).
            fractions: [B, T] of each token in a mean over the minibatch's tokens.
        """
        settings = self.settings
        output = self.policy(micro_batch, entropy=settings.entropy_coef != 0)
        # Without an entropy bonus, report the behaviour policy's entropy.
        entropy_mean = weighted_sum(micro_batch.entropy if output.entropy is None else output.entropy, fractions)
        per_token, metrics = self.components.loss(micro_batch, output.log_probs)
        policy_loss = weighted_sum(per_token, weights)
        loss = policy_loss - settings.entropy_coef * entropy_mean if output.entropy is not None else policy_loss
        if self.critic_warmup:
            loss = 0.0 * loss
        sums = {"loss/policy_avg": policy_loss, "policy/entropy_avg": entropy_mean}
        if output.values is not None and micro_batch.returns is not None:
            value_per_token, value_metrics = self.components.value_loss(micro_batch, output.values)
            value_loss = weighted_sum(value_per_token, weights)
            loss = loss + settings.value_coef * value_loss
            metrics |= value_metrics
            sums["loss/value_avg"] = value_loss
        # A component's metrics are means over the micro-batch's tokens.
        metrics = {name: value * fractions.sum() for name, value in metrics.items()} | sums
        return loss, {name: value.detach().float() for name, value in metrics.items()}

    def _optimizer_step(self, loss: Tensor, minibatch: Experience) -> None:
        """Clip the gradient and step, if loss and gradient are finite on all ranks."""
        optimizer: Any = self.optimizers()
        if self.critic_warmup:
            self.language_model.model.zero_grad()  # Adam skips parameters without a gradient, and doesn't count the step
        norm = self.checked_grad_norm(loss)
        if norm is None:
            self.skip_update(loss, minibatch)
        else:
            clip(self.policy.parameters(), self.settings.max_grad_norm, norm)
            optimizer.step()

    def _exceeds_target_kl(self, approx_kl: Tensor) -> bool:
        """Check the last minibatch's KL against ppo.target_kl, on all ranks together.

        Args:
            approx_kl: this process's summand.
        """
        if self.settings.target_kl is None:
            return False
        return bool(all_reduce_sum(approx_kl) > 1.5 * self.settings.target_kl)

    def finish_update(self, metrics: dict[str, Tensor], responses: int) -> None:
        """Update the KL coefficient, check the alarms and log the metrics (equal on every rank)."""
        values = torch.stack([value.detach().float().to(self.device) for value in metrics.values()])
        scalars = dict(zip(metrics, values.tolist(), strict=True))
        self.kl_control.update(scalars["objective/kl"], responses)
        optimizer: Any = self.optimizers()
        scalars["lr"] = optimizer.param_groups[0]["lr"]
        schedule: Any = self.lr_schedulers()
        schedule.step()
        scalars["episode"] = (len(self.history) + 1) * responses
        raised = raise_alarms(self.history, scalars, self.components.log)
        if raised and (self.settings.stop_on_alarm or not raised.isdisjoint(self.components.stop_alarms)):
            self.trainer.should_stop, self.stop_reason = True, "alarm"
        self.history.append(scalars)
        self.log_step()

    @property
    def reference(self) -> nn.Module:
        return StartPolicy(self.policy) if isinstance(self._reference[0], StartPolicy) else self._reference[0]

    @property
    def language_model(self) -> LanguageModel:
        return self.policy.language_model

    def configure_optimizers(self) -> Any:
        settings, critic = self.settings, self.policy.critic
        rate = settings.learning_rate or settings.default_rates.new
        critic_rate = settings.critic_learning_rate or rate
        alone = [] if critic is None or critic_rate == rate else list(critic.parameters())
        groups = [ParameterGroup("policy", trained_parameters(self.policy, exclude=alone), rate)]
        if critic is not None and alone:
            groups.append(ParameterGroup("critic", trained_parameters(critic), critic_rate))
        is_fused = all(member.parameter.device.type in FUSED_DEVICES for group in groups for member in group.members)
        return self.optimization.configure(TrainedParameters(groups, self.optimization_defaults, is_fused), settings.updates)

    def configure_model(self) -> None:
        strategy = self.trainer.strategy
        if isinstance(strategy, FullySharded) and strategy.shard_frozen and not self.is_sharded:
            if not isinstance(self._reference[0], StartPolicy):
                self._reference = (shard(self._reference[0], strategy.device_mesh),)
            self.components = replace(self.components, scorer=shard_scorer(self.components.scorer, strategy.device_mesh))
        super().configure_model()

    def on_fit_start(self) -> None:
        self.reference.to(self.device)
        make_loader = self.components.demonstrations
        self.demonstrations = None if make_loader is None else make_loader(self.trainer.global_rank, self.trainer.world_size)

    def texts_of(self, batch: Experience) -> list[Any]:
        columns = zip(batch.prompts, batch.responses, batch.scores.tolist(), strict=True)
        return [{"prompt": prompt_text(prompt), "response": response, "score": score} for prompt, response, score in columns]

    @torch.no_grad()
    def batch_metrics(self, batch: Experience) -> dict[str, Any]:
        batch_size = self.reduced_batch_sizes.get("optimisation", self.micro_batch_size(batch))
        parts = torch.arange(len(batch), device=self.device).split(batch_size)
        return value_ranges(batch, torch.cat([self.policy(batch.select(rows), entropy=False).log_probs for rows in parts]))
