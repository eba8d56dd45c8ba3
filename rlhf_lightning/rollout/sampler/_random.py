"""Random numbers of sampling: each row has its seed, independent of batch and process."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf_lightning.flow import Prompts


def seeds_of(prompts: Prompts) -> Tensor:
    """Seeds [B] of the rows; from torch's generator if they have none."""
    return torch.randint(2**62, (len(prompts),)) if prompts.seeds is None else prompts.seeds.cpu()


def uniform_draws(prompts: Prompts, steps: int) -> Tensor:
    """Uniform numbers [B, steps] in [0, 1), in double precision, on the prompts' device."""
    rows = [torch.rand(steps, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds_of(prompts).tolist()]
    return torch.stack(rows).to(prompts.prompt_ids.device)
