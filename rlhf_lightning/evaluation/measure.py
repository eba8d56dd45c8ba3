"""Measurement of a policy on held-out prompts, the same before and after training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rlhf_lightning.errors import UserError
from rlhf_lightning.evaluation.settings import EvaluationSettings
from rlhf_lightning.flow import Prompt, Rollout
from rlhf_lightning.interfaces import TaskPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Policy, reference_policy
from rlhf_lightning.rollout.prompts import column_names, encode_rows
from rlhf_lightning.rollout.sampling import Sampler, sample_responses
from rlhf_lightning.tensors import kl_estimate

MetricFunction = Callable[[Rollout], Tensor | Mapping[str, Tensor]]
"""Values [B] of a rollout's responses, or several of them by name."""


@dataclass
class Measured:
    """Responses to held-out prompts, their metrics, and the mean KL to the reference (nats per response).

    A value of NaN is of a response that can't be scored; means are over the others.
    """

    prompts: list[Prompt]
    responses: list[str]
    values: dict[str, list[float]] = field(default_factory=dict)
    kl: float | None = None

    def mean(self, metric: str) -> float:
        values = [value for value in self.values[metric] if not math.isnan(value)]
        return sum(values) / len(values) if values else math.nan


def score_doubts(measured: Measured) -> list[str]:
    """Notes on doubtful scores: responses without one, or one score for all.

    Raises:
        UserError: no response has a score.
    """
    scores = measured.values.get("score", [])
    numbers = [score for score in scores if not math.isnan(score)]
    if scores and not numbers:
        raise UserError(
            f"the scorer couldn't score any of the {len(scores)} responses (NaN or None), as {measured.responses[0][:80]!r}: mend it"
        )
    notes = []
    if len(numbers) < len(scores):
        notes.append(
            f"the scorer couldn't score {len(scores) - len(numbers)} of {len(scores)} responses (NaN or None); means are over the others"
        )
    if len(set(measured.responses)) > 1 and len(numbers) > 1 and len(set(numbers)) == 1:
        notes.append(f"the scorer gives all {len(numbers)} responses the same score ({numbers[0]:.4g}): it tells nothing apart")
    return notes


@torch.no_grad()
def measure(
    language_model: LanguageModel,
    prompts: Sequence[TaskPrompt],
    sampler: Sampler,
    metrics: Mapping[str, MetricFunction],
    settings: EvaluationSettings,
    *,
    max_new_tokens: int,
    seed: int,
    reference: LanguageModel | None = None,
) -> Measured:
    """Sample responses to the prompts in turn and compute every metric.

    A policy that is its own reference is evaluated without its adapters. The random state is set from `seed` and restored, so that two
    policies are sampled alike and nothing else is affected.
    """
    policy = Policy(language_model)
    frozen_reference = None if reference is None else reference_policy(language_model, reference)
    training = language_model.model.training
    language_model.model.eval()
    device = language_model.model.device
    sampled = list(itertools.islice(itertools.cycle(prompts), settings.responses))
    columns = column_names(prompts)
    measured = Measured([], [], {name: [] for name in metrics})
    kl = 0.0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, len(sampled), settings.batch_size):
            batch = encode_rows(language_model, sampled[start : start + settings.batch_size], max_new_tokens, columns).to(device)
            rollout = sample_responses(sampler, language_model, batch)
            measured.prompts += rollout.prompts
            measured.responses += rollout.responses
            for name, metric in metrics.items():
                values = metric(rollout)
                for key, column in values.items() if isinstance(values, Mapping) else [(name, values)]:
                    measured.values.setdefault(key, []).extend(column.tolist())
            if frozen_reference is not None:
                frozen_reference.to(device)
                kl += kl_estimate(policy(rollout).log_probs, frozen_reference(rollout).log_probs).sum().item()
    measured.kl = None if reference is None else kl / len(sampled)
    language_model.model.train(training)
    return measured
