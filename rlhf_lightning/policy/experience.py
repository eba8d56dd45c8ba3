"""Experience of one PPO iteration: generate, score, shape rewards, estimate advantages.

Shapes: B responses, T response tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from rlhf_lightning.flow import Experience, Prompts, Rollout, ScoredRollout
from rlhf_lightning.policy.metrics import HELD_OUT_SCORES, held_out_metrics, objective_metrics, response_metrics, with_checked_ranges
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.oom_retry import halve_on_oom
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.rollout.gather import Sampler, concat_rollouts, drop_unscored, expand_prompts, gather_rollouts, sample_responses
from rlhf_lightning.rollout.scoring import Scorer, Scores, WeightedScorers, concat_scores, scorer_name, scorer_source, scores_on_all_ranks
from rlhf_lightning.training.sharding import unsharded_weights

Shaping: TypeAlias = Callable[[ScoredRollout], ScoredRollout]


class KLControl(Protocol):
    """The KL coefficient and its update rule; an nn.Module, for its state is in the checkpoint."""

    def value(self) -> float: ...

    def update(self, kl: float, responses: int) -> None: ...


@dataclass
class PPOComponents:
    """The registered components of a PPO iteration, each with its settings bound.

    Attributes:
        held_out: scorers for monitoring, by the metric of their mean score.
        starts_at_reference: whether policy and reference are equal at the start; False in later rounds.
        has_correction: whether the loss has a policy_correction.
        greedy: greedy sampler, for an estimator with a greedy baseline.
        demonstrations: makes the loader of (rank, world) for the ptx loss (ppo.ptx_coef).
        stop_alarms: names of the alarms that end the training (policy/alarms.py).
        log: shows a line to the user.
    """

    sampler: Sampler
    scorer: Scorer
    shapings: Sequence[Shaping]
    advantage: Callable[[ScoredRollout], Experience]
    loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    reduction: Callable[[Tensor, Tensor], Tensor]
    value_loss: Callable[[Experience, Tensor], tuple[Tensor, dict[str, Tensor]]]
    kl_control: KLControl
    held_out: Mapping[str, Scorer] = field(default_factory=dict)
    starts_at_reference: bool = True
    has_correction: bool = False
    greedy: Sampler | None = None
    demonstrations: Callable[[int, int], DataLoader[Any]] | None = None
    stop_alarms: Sequence[str] = ()
    log: Callable[[str], None] = lambda text: None


P = TypeVar("P", bound=Prompts)


@dataclass(frozen=True)
class ExperienceMaker:
    """Makes the experience of one update (Ziegler et al. 2019, section 2.2; Huang et al. 2024).

    Attributes:
        policy: the behaviour policy: the trained one before the update.
        reference: the frozen policy that the KL is measured against.
        update: number of the update, from 1.
        reports_unscored: whether to log the first responses without a score.
        reduced_batch_sizes: batch sizes since memory ran out, by workload (policy.oom_retry); written to.
        describe_weights: makes a clause on non-finite weights for an error message.
    """

    policy: Policy
    reference: nn.Module
    components: PPOComponents
    settings: PPOSettings
    update: int = 1
    reports_unscored: bool = True
    reduced_batch_sizes: dict[str, int] = field(default_factory=dict)
    describe_weights: Callable[[], str] = str

    def __call__(self, prompts: Prompts, generator: torch.Generator, rank: int, world: int) -> tuple[Experience, dict[str, Tensor]]:
        """Make the experience of all processes, equal on each of them.

        Args:
            prompts: this process's part of the update's prompts.
            generator: in the same state on every process; seeds the responses.

        Returns:
            The responses that have a score, with advantages; and metrics of the rollout.
        """
        with unsharded_weights(self.policy):
            rollout = self.generate(expand_prompts(prompts, self.settings.responses_per_prompt, generator, rank, world))
            baseline_scores = self.greedy_scores(prompts)
        local = self.score(rollout, baseline_scores)
        scored = gather_rollouts(local, rank, world)
        experience = self.estimate_advantages(self.shape_rewards(self.drop_unscored(scored)))
        metrics = objective_metrics(experience) | response_metrics(experience)
        if (self.update - 1) % self.settings.held_out_every == 0:
            metrics |= held_out_metrics({**self.watched_scorers, **self.components.held_out}, rollout, local.scores)
        return experience, metrics | {"objective/unscorable": torch.tensor(1 - len(experience) / len(scored))}

    @property
    def watched_scorers(self) -> dict[str, Scorer]:
        """The first scorer of weight 0 in the scorer's sum, which the policy doesn't learn from."""
        scorer = self.components.scorer
        names = [name for name, weight in scorer.weights.items() if weight == 0] if isinstance(scorer, WeightedScorers) else []
        return {HELD_OUT_SCORES: scorer.scorers[names[0]]} if names and isinstance(scorer, WeightedScorers) else {}

    def generate(self, prompts: Prompts) -> Rollout:
        """Sample one response to each prompt."""
        return self._sample(prompts, self.components.sampler)

    def greedy_scores(self, prompts: Prompts) -> Tensor | None:
        """Score the greedy response to each row's prompt, [B]; None unless the estimator needs it (ReMax)."""
        if self.components.greedy is None:
            return None
        scores = self._call_scorer(self._sample(prompts, self.components.greedy)).total
        return scores.repeat_interleave(self.settings.responses_per_prompt)

    @torch.no_grad()
    def score(self, rollout: Rollout, baseline_scores: Tensor | None = None) -> ScoredRollout:
        """Score this process's responses; add log-probabilities, entropies and values."""
        scores = self._call_scorer(rollout)
        return ScoredRollout(
            **vars(rollout), **self._forward(rollout), scores=scores.total, rewards=scores.rewards(rollout.response_mask),
            kl_coef=self.components.kl_control.value(), baseline_scores=baseline_scores, component_scores=scores.components,
            score_weights=scores.weights,
        )  # fmt: skip

    def drop_unscored(self, scored: ScoredRollout) -> ScoredRollout:
        """Drop the responses without a score; log the first time that there are some."""
        name = scorer_name(self.components.scorer) + scorer_source(self.components.scorer, " ({})")
        rows, note = drop_unscored(scored, self.settings.max_unscorable, name)
        if note and self.reports_unscored:
            self.components.log(f"update {self.update}: {note}")
        return rows

    @with_checked_ranges
    def shape_rewards(self, scored: ScoredRollout) -> ScoredRollout:
        """Apply the shapings in their order."""
        for shape in self.components.shapings:
            scored = shape(scored)
        return scored

    @with_checked_ranges
    def estimate_advantages(self, scored: ScoredRollout) -> Experience:
        """Apply the advantage estimator."""
        return self.components.advantage(scored)

    @halve_on_oom("sampling")
    def _sample(self, prompts: Prompts, sampler: Sampler, *, split: int = 1) -> Rollout:
        # Each response has its own seed: the split doesn't change it.
        return concat_rollouts([sample_responses(sampler, self.policy.language_model, part) for part in split_rows(prompts, split)])

    @halve_on_oom("the scorer")
    def _call_scorer(self, rollout: Rollout, *, split: int = 1) -> Scores:
        """Scores of this process's responses."""
        decode = self.policy.language_model.decode
        scores = concat_scores([scores_on_all_ranks(self.components.scorer, part, decode) for part in split_rows(rollout, split)])
        return scores.to(rollout.prompt_ids.device)

    @halve_on_oom("scoring", lambda maker, rollout: -(-len(rollout) // min(maker.settings.num_minibatches, len(rollout))))
    def _forward(self, rollout: Rollout, *, split: int = 1) -> dict[str, Any]:
        parts = split_rows(rollout, min(self.settings.num_minibatches, len(rollout)) * split)
        policy = [self.policy(part) for part in parts]
        reference = [self.reference(part, entropy=False) for part in parts]
        return {
            "old_log_probs": torch.cat([output.log_probs for output in policy]),
            "ref_log_probs": torch.cat([output.log_probs for output in reference]),
            "entropy": torch.cat([output.entropy for output in policy]),
            "values": None if self.policy.critic is None else torch.cat([output.values for output in policy]),
        }


def split_rows(record: P, parts: int) -> list[P]:
    """Split a record into at most so many parts of nearly equal size."""
    return [record.select(rows) for rows in torch.arange(len(record)).tensor_split(max(1, min(parts, len(record))))]
