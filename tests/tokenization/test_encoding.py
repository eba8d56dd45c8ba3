"""A message about a long text names the limit that binds."""

from __future__ import annotations

import re

import pytest

from rlhf_lightning.tokenization.encoding import UNLIMITED, length_limit


@pytest.mark.parametrize(
    ("wanted", "positions", "tokens", "remedy"),
    [
        (512, 128, 128, "all positions of the model, so that sft.max_length=512 doesn't count"),
        (128, 128, 128, "all positions of the model, so that sft.max_length=128 doesn't count"),
        (64, 128, 64, r"^raise sft.max_length=64 \(the model has 128 positions\)"),
        (64, UNLIMITED, 64, "^raise sft.max_length=64, or"),
    ],
)
def test_the_smaller_one_binds(wanted, positions, tokens, remedy):
    limit = length_limit(wanted, positions, "sft.max_length")
    assert limit.tokens == tokens
    assert re.search(remedy, limit.remedy), limit.remedy
