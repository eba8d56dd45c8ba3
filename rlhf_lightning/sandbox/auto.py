"""The strongest isolation that works on this machine."""

from __future__ import annotations

from rlhf_lightning.isolation.self_test import check_isolation
from rlhf_lightning.isolation.zygote import Isolation, IsolationError
from rlhf_lightning.registry import register
from rlhf_lightning.sandbox.bubblewrap import Bubblewrap
from rlhf_lightning.sandbox.landlock import Landlock


@register("sandbox", "auto")
class Auto:
    """bubblewrap, else landlock: the first one that passes its self-test."""

    def isolation(self) -> Isolation:
        """Test the options in order. Raises IsolationError with the reason of each."""
        reasons = []
        for name, option in (("bubblewrap", Bubblewrap()), ("landlock", Landlock())):
            try:
                isolation = option.isolation()
                check_isolation(isolation)
            except IsolationError as error:
                reasons.append(f"  sandbox={name}: {error}")
            else:
                return isolation
        raise IsolationError("\n".join(["untrusted programs can't be isolated on this machine, so none is run:", *reasons]))
