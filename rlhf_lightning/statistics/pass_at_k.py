"""pass@k: the chance that one of k programs passes."""

from __future__ import annotations

import math


def pass_at_k(count: int, passed: int, k: int) -> float:
    """Unbiased estimate of pass@k from `count` samples of which `passed` pass.

    Chen et al. 2021, equation 1.

    Raises:
        ValueError: fewer samples than k.
    """
    if not 0 <= passed <= count or not 1 <= k <= count:
        raise ValueError(f"pass@{k} of {count} samples, {passed} passed: k is at least 1 and at most the number of samples")
    return 1.0 - math.comb(count - passed, k) / math.comb(count, k)
