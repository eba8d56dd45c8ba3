"""The policy's samples that annotators judge, for stage=rounds and stage=preference."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING

from rlhf_lightning.rounds.artefacts import Group
from rlhf_lightning.rounds.comparison import is_judgeable
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel


def sample_groups(run: Run, task: Task, policy: LanguageModel, prompts: int, responses: int, number: int) -> list[Group]:
    """Sample responses to training prompts, which are taken in a random order that repeats.

    Samples that are empty or contain a NUL are left out, and prompts without another one: files of feedback can't store them.

    Args:
        number: of the sampling; with run.seed the seed of prompts and responses, equal on every process.
    """
    import torch

    from rlhf_lightning.stage._training import on_device

    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(run.seed * 1000 + number)
        shuffled = [row.prompt for row in task.train_prompts()]
        random.Random(run.seed * 1000 + number).shuffle(shuffled)
        sampled = list(itertools.islice(itertools.cycle(shuffled), prompts))
        policy.model.eval()
        batch = policy.encode_prompts(sampled, run.max_response_tokens).repeat(responses)
        with on_device(run.process_device, policy.model):
            texts = run.build("rollout_sampler")(policy, batch.to(run.process_device)).responses
    groups = [(prompt, tuple(filter(is_judgeable, texts[i * responses : (i + 1) * responses]))) for i, prompt in enumerate(sampled)]
    return [Group(prompt=prompt, responses=valid) for prompt, valid in groups if valid]
