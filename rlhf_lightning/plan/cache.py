"""What the plans of one command share: what was read for the first serves the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rlhf_lightning.plan.device import Device


@dataclass
class PlanCache:
    """What the plans of a command have in common.

    Attributes:
        notes: what was assumed, for the report.
    """

    device: Device
    notes: list[str] = field(default_factory=list)
    _read: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, made once for all plans."""
        if name not in self._read:
            self._read[name] = make()
        return self._read[name]

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
