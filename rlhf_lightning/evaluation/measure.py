"""Measurement of a policy on held-out prompts, the same before, during and after training."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import UserError
from rlhf_lightning.evaluation.settings import EvaluationSettings
from rlhf_lightning.flow import Prompt, Rollout
from rlhf_lightning.interfaces import TaskPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.model import Policy, reference_policy
from rlhf_lightning.rollout.gather import Sampler, sample_responses
from rlhf_lightning.rollout.prompts import column_names, encode_rows
from rlhf_lightning.tensors import kl_estimate
from rlhf_lightning.training.distributed import all_gather, global_rank, raise_on_all_ranks, world_size
from rlhf_lightning.training.periodic_evaluation import preserved_modes

MetricFunction = Callable[[Rollout], Tensor | Mapping[str, Tensor]]
"""Values [B] of a rollout's responses, or several of them by name."""
Batches = Iterable["PromptBatch"]


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

    def means(self) -> dict[str, float]:
        """The mean of each metric, and the KL if it was measured."""
        means = {name: self.mean(name) for name in self.values}
        return means if self.kl is None else means | {"kl": self.kl}


@dataclass(frozen=True)
class PromptBatch:
    """Prompts that are answered together, the seeds of their responses, and all prompts' columns."""

    prompts: Sequence[TaskPrompt]
    seeds: Tensor
    columns: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.prompts)


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
    track: Callable[[Sequence[PromptBatch]], Batches] = iter,
) -> Measured:
    """Measure a language model; its reference may be itself, which is evaluated without its adapters.

    The other arguments are those of `measure_policy`.
    """
    frozen = None if reference is None else reference_policy(language_model, reference)
    if frozen is not None:
        frozen.to(language_model.model.device)
    batches = prompt_batches(prompts, settings.count(language_model.model), settings.batch_size, seed)
    return measure_policy(Policy(language_model), frozen, batches, sampler, metrics, max_new_tokens=max_new_tokens, track=track)


def prompt_batches(prompts: Sequence[TaskPrompt], responses: int, batch_size: int, seed: int) -> list[PromptBatch]:
    """Batches of the prompts in turn, `responses` in all."""
    generator, columns = torch.Generator().manual_seed(seed), column_names(prompts)
    sampled = list(itertools.islice(itertools.cycle(prompts), responses))
    parts = [sampled[start : start + batch_size] for start in range(0, responses, batch_size)]
    return [PromptBatch(part, torch.randint(2**62, (len(part),), generator=generator), columns) for part in parts]


@torch.no_grad()
def measure_policy(
    policy: Policy,
    reference: nn.Module | None,
    batches: Sequence[PromptBatch],
    sampler: Sampler,
    metrics: Mapping[str, MetricFunction],
    *,
    max_new_tokens: int,
    track: Callable[[Sequence[PromptBatch]], Batches] = iter,
) -> Measured:
    """Sample a response to each prompt and compute every metric. Collective: call it on every rank.

    Each process answers every world-th batch, and all have the same result. Each response has its seed, and torch's random state is
    restored, so that two policies are sampled alike and nothing else is affected.

    Args:
        reference: that the KL is measured from; None measures none.
        track: yields a process's batches while it shows their progress.
    """
    world = world_size()
    rank = global_rank() if world > 1 else 0
    # As many batches on each rank, which share sharded models; those after the last are repeats of it and not counted.
    mine = [batches[min(i, len(batches) - 1)] for i in range(rank, len(batches) + -len(batches) % world, world)]
    with torch.random.fork_rng(), preserved_modes(policy):
        policy.eval()
        parts = [_measure_batch(policy, reference, batch, sampler, metrics, max_new_tokens) for batch in track(mine)]
    # In the order of the batches.
    gathered = all_gather(parts, world)
    measured = Measured([], [])
    kl = 0.0
    for i in range(len(batches)):
        part = gathered[i % world][i // world]
        measured.prompts += part.prompts
        measured.responses += part.responses
        for name, column in part.values.items():
            measured.values.setdefault(name, []).extend(column)
        kl += part.kl or 0.0
    measured.kl = None if reference is None else kl / len(measured.prompts)
    return measured


def _measure_batch(
    policy: Policy,
    reference: nn.Module | None,
    batch: PromptBatch,
    sampler: Sampler,
    metrics: Mapping[str, MetricFunction],
    max_new_tokens: int,
) -> Measured:
    """The responses to one batch, their metrics, and the sum of their KL."""
    language_model = policy.language_model
    torch.manual_seed(int(batch.seeds[0]) % 2**63)
    prompts = dataclasses.replace(encode_rows(language_model, batch.prompts, max_new_tokens, batch.columns), seeds=batch.seeds)
    rollout = sample_responses(sampler, language_model, prompts.to(language_model.model.device))
    values: dict[str, list[float]] = {}
    for name, metric in metrics.items():
        values |= raise_on_all_ranks(partial(_values, name, metric, rollout))
    kl = None
    if reference is not None:
        log_probs = policy(rollout, entropy=False, values=False).log_probs
        kl = kl_estimate(log_probs, reference(rollout, entropy=False).log_probs).sum().item()
    return Measured(rollout.prompts, rollout.responses, values, kl)


def _values(name: str, metric: MetricFunction, rollout: Rollout) -> dict[str, list[float]]:
    values = metric(rollout)
    return {key: column.tolist() for key, column in (values if isinstance(values, Mapping) else {name: values}).items()}
