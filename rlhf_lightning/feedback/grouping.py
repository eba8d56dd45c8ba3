"""What was said about one prompt, kept together: each response is then read once for all that was said about it."""

from __future__ import annotations

import numpy as np


def prompt_groups(prompts: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows put in groups of at most `size`, each of one prompt.

    Args:
        prompts: a number for each row.

    Returns:
        the rows' order, groups as their prompts first come and in them rows in theirs; and the bounds of the groups in it.
    """
    _, first, group = np.unique(prompts, return_index=True, return_inverse=True)
    order = np.argsort(first[group], kind="stable")
    counts = np.unique(first[group], return_counts=True)[1]
    ends = counts.cumsum()
    starts = [start for end, count in zip(ends.tolist(), counts.tolist(), strict=True) for start in range(end - count, end, size)]
    return order, np.array([*starts, len(prompts)])
