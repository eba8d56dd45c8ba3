"""Direct writes of Lightning's checkpoint file; disk errors are raised on all ranks."""

from __future__ import annotations

from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO


class DirectCheckpointIO(TorchCheckpointIO):
    """Writes straight into the target file.

    Lightning's own goes through a copy in memory and a file in TMPDIR, which may be small, on another disk, and left behind by a kill.

    Attributes:
        failure: why the last file couldn't be written. Raised in `save_checkpoint` it would leave the other ranks waiting.
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
            # torch raises this after a short write; the error of the write itself is its context or lost.
            context = cause.__context__
            if not isinstance(context, OSError) and "PytorchStreamWriter" not in str(cause):
                raise
            self.failure = context if isinstance(context, OSError) else OSError(f"the file could only be written in part: {cause}")
