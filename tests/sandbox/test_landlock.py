"""No hostile program passes or leaves anything with sandbox=landlock."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sandbox.attack import check_attacks

pytest.importorskip("sandlock")


def test_no_attack_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    check_attacks("landlock", tmp_path, capsys, monkeypatch)
