"""Markup by hand."""

from __future__ import annotations

import pytest

from rlhf_lightning.reward.feature.markup import Markup


def of(response: str) -> dict[str, float]:
    return dict(zip(Markup.names, Markup()("", response), strict=True))


def test_by_hand():
    found = of("# Title\n- one\n* two\n1. three\n**bold**\n```\nf(x)\n```")
    assert found["bullets"] == pytest.approx(2 / 8)
    assert found["numbered lines"] == found["headings"] == pytest.approx(1 / 8)
    assert (found["emphasis"], found["links"], found["code fences"]) == (1, 0, 1)
    assert found["code characters"] == pytest.approx(9 / 50)


def test_plain_prose_has_none():
    assert set(of("A sentence. Another one - with a dash.").values()) == {0}
    assert of("see https://example.org")["links"] == 1
