"""The census of transformers' families: a few always, all of them with `pytest -m census`; its page lists those that are installed."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.model.census import TITLES, examine
from tests.model.families import FAMILIES, Kind

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
REPRESENTATIVE: list[tuple[Kind, str]] = [
    ("causal", "gemma2"),  # soft caps and sliding windows
    ("causal", "gpt_oss"),  # attention sinks and experts
    ("causal", "bloom"),  # ALiBi
    ("causal", "mamba"),  # a recurrent state
    ("causal", "qwen2"),
    ("encoder", "fnet"),  # no masks
    ("encoder_decoder", "marian"),  # a bias of the logits
]
ALL = [(kind, family) for kind, families in FAMILIES.items() for family in families]


def listed() -> dict[Kind, dict[str, str]]:
    """The results by kind and family on the page."""
    parts = dict(zip(TITLES, re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:], strict=True))
    rows = {kind: re.findall(r"^\| (\S+) \| ([^|]+) \|", text, flags=re.MULTILINE) for kind, text in parts.items()}
    return {kind: {family: result for family, result in found if family not in ("family", "---")} for kind, found in rows.items()}


@pytest.mark.parametrize(("kind", "family"), REPRESENTATIVE)
def test_every_stage_is_plain_transformers(kind, family):
    row = examine(family, kind)
    assert row.result == "correct", row


@pytest.mark.census
@pytest.mark.parametrize(("kind", "family"), ALL)
def test_each_family_is_as_the_page_says(kind, family):
    row = examine(family, kind)
    assert row.result == listed()[kind][family], row


def test_the_page_lists_the_installed_families():
    """Write it again after an update of transformers: `python -m tests.model.census > docs/models.md`."""
    from transformers import __version__

    if f"Every family of transformers {__version__} " not in PAGE.read_text():
        pytest.skip(f"docs/models.md is of another version than {__version__}")
    assert {kind: list(families) for kind, families in listed().items()} == FAMILIES


def test_no_row_of_the_page_is_wrong():
    rows = {(kind, family): result for kind, families in listed().items() for family, result in families.items()}
    assert {row: result for row, result in rows.items() if result not in ("correct", "rejected", "not runnable")} == {}


def test_decoders_that_transformers_can_run_are_correct():
    counts = Counter(listed()["causal"].values())
    assert counts["correct"] / (counts.total() - counts["not runnable"]) >= 0.95, counts
