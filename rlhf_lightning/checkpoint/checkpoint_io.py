"""How Lightning writes a checkpoint's file: straight to its place, and an error of the disk waits until all processes can hear of it."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class DirectCheckpointIO(TorchCheckpointIO):
    """Lightning's own goes through a copy in memory and a file in TMPDIR, which may be small, on another disk, and left behind by a kill.

    Attributes:
        failure: why the last file couldn't be written. Raised in `save_checkpoint` it would leave the other processes waiting.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: OSError | None = None

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the file; an error of the disk goes to `failure`."""
        self.failure = None
        try:
            with open(path, "wb") as file:
                torch.save(checkpoint, file)
        except OSError as cause:
            self.failure = cause
        except RuntimeError as cause:
            # torch says so when a write fell short, and the error of the write itself is behind it or lost.
            behind = cause.__context__
            if not isinstance(behind, OSError) and "PytorchStreamWriter" not in str(cause):
                raise
            self.failure = behind if isinstance(behind, OSError) else OSError(f"the file could only be written in part: {cause}")
