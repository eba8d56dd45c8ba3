"""Isolation by Landlock, where user namespaces are forbidden."""

from __future__ import annotations

from rlhf_lightning.isolation.zygote import Isolation
from rlhf_lightning.registry import register


@register("sandbox", "landlock")
class Landlock:
    """Reading of Python's library alone, by Landlock, and a system-call filter; no namespaces.

    By sandlock (`pip install 'rlhf-lightning[code]'`); needs Linux 5.13. A program can learn which files exist, not what is in them.
    """

    def isolation(self) -> Isolation:
        """The process confines itself."""
        return Isolation(landlock=True)
