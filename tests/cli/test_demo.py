"""The demo's command and items."""

from __future__ import annotations

import json

import pytest

from rlhf_lightning.cli.demo import demo_args
from rlhf_lightning.errors import ConfigError


def test_it_writes_pairs_of_the_embedded_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    args = demo_args(["collect", "collect.port=0"])
    rows = [json.loads(line) for line in (tmp_path / "demo/items.jsonl").read_text().splitlines()]
    assert len(rows) == 40
    assert all(len(set(row["responses"])) == 2 for row in rows)
    assert args[0] == "stage=collect"
    assert args[-1] == "collect.port=0"


def test_another_demo_is_an_error():
    with pytest.raises(ConfigError, match="demo collect"):
        demo_args(["nothing"])
