"""sandbox=none needs consent, and is told apart from a sandbox."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.isolation import self_test
from rlhf_lightning.isolation.zygote import IsolationError
from rlhf_lightning.sandbox.none import NoSandbox


def test_what_does_not_isolate_fails_the_self_test() -> None:
    with pytest.raises(IsolationError, match=r"reads files .*writes files.*starts processes"):
        self_test.check_isolation(NoSandbox(i_trust_this_code=True).isolation())


def test_none_needs_consent() -> None:
    with pytest.raises(ConfigError, match=r"sandbox\.i_trust_this_code=true"):
        NoSandbox()
