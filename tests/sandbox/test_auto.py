"""The choice of a sandbox: the first that proves itself, or an error with the reason of each."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.isolation import self_test
from rlhf_lightning.isolation.seccomp import seccomp_filter
from rlhf_lightning.isolation.zygote import Isolation, IsolationError
from rlhf_lightning.sandbox.auto import Auto
from rlhf_lightning.sandbox.landlock import Landlock

pytest.importorskip("sandlock")
REASON = "setting up uid map: Permission denied"


@pytest.fixture
def no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bwrap that fails as without user namespaces."""
    program = tmp_path / "bwrap"
    program.write_text(f"#!/bin/sh\necho 'bwrap: {REASON}' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    self_test.check_isolation.cache_clear()


def test_landlock_where_namespaces_are_forbidden(no_namespaces: None) -> None:
    assert Auto().isolation() == Landlock().isolation()


def test_no_sandbox_is_an_error_with_each_reason(no_namespaces: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(IsolationError) as error:
        Auto().isolation()
    assert REASON in str(error.value)
    assert "sandbox=landlock: sandlock is not installed" in str(error.value)
    assert "rlhf-lightning[code]" in str(error.value)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(IsolationError, match="needs Linux"):
        self_test.check_isolation(Isolation(("nothing",)))
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(ConfigError, match="riscv64"):
        seccomp_filter()
