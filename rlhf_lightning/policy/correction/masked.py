from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import AfterValidator, FiniteFloat
from torch import Tensor

from rlhf_lightning.flow import Experience
from rlhf_lightning.policy.correction._mismatch import corrected, mismatch_of, over_row
from rlhf_lightning.policy.ratio import ratio_of
from rlhf_lightning.registry import register


def _around_1(band: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= band[0] <= 1 <= band[1]:
        raise ValueError("the band must be [lowest, highest] with 0 <= lowest <= 1 <= highest: ratios in it are kept")
    return band


@register("policy_correction", "masked")
def masked(
    experience: Experience,
    *,
    band: Annotated[tuple[FiniteFloat, FiniteFloat], AfterValidator(_around_1)] = (0.5, 5.0),
    level: Literal["token", "sequence"] = "token",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Each token counts by its probability to the trainer over that to the sampler, and not at all where that is outside a band.

    IcePop (Ling team, 2025), masked importance sampling: weight p_old / p_sampled without gradient where it is within the band,
    else 0. Tokens on which the two disagree widely are noise of the kernels more than of the policy.

    Args:
        experience: old_log_probs, sampled_log_probs and response_mask [B, T].
        band: lowest and highest ratio that is kept, both kept themselves.
        level: "token" looks at each token's own ratio; "sequence" at the geometric mean over the row, and drops whole responses; the
            weights are the tokens' own ratios either way (OpenRLHF's seq-mask-tis; its band is as narrow as 0.99 to 1.001).

    Returns:
        The weights [B, T] for the policy's per-token loss, 0 outside the mask, and scalar metrics.
    """
    log_ratio = mismatch_of(experience)
    ratio = ratio_of(log_ratio)
    measured = ratio if level == "token" else ratio_of(over_row(log_ratio, experience.response_mask, mean=True))
    outside = (measured < band[0]) | (measured > band[1])
    return corrected(experience, log_ratio, torch.where(outside, torch.zeros_like(ratio), ratio), outside)
