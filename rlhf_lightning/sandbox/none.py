"""No isolation, for programs that one trusts."""

from __future__ import annotations

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.isolation.zygote import Isolation
from rlhf_lightning.registry import register


@register("sandbox", "none")
class NoSandbox:
    """No isolation: limits on time, memory and output alone.

    A program can read, write and send what the run can.

    Args:
        i_trust_this_code: must be true.

    Raises:
        ConfigError: it isn't.
    """

    def __init__(self, *, i_trust_this_code: bool = False) -> None:
        if not i_trust_this_code:
            raise ConfigError(
                "sandbox=none isolates nothing: set sandbox.i_trust_this_code=true to run programs with the rights of this run"
            )

    def isolation(self) -> Isolation:
        """No prefix, no confinement, no filter."""
        return Isolation(filter=False)
