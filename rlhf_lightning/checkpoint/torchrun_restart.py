"""torchrun starts the processes again, and they meet where those before them met: their addresses must not be taken for the new ones."""

from __future__ import annotations

import os
import socket


def rejoin_after_restart() -> None:
    """After a restart by torchrun on one node, let the processes meet in a store of their own.

    torchrun (2.4 to at least 2.13) hands on one store over all attempts, and gloo and NCCL then look for processes that are dead, until
    they time out. The first process chooses a port and tells it to the others in that store. On several nodes their counts of restarts
    differ, and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment does the same.
    """
    attempt = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    shared = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    if not attempt or not shared or os.environ.get("GROUP_WORLD_SIZE") != "1":
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    key = f"rlhf_lightning/port_{attempt}"
    if os.environ["RANK"] == "0":
        with socket.socket() as free:
            free.bind(("", 0))
            store.set(key, str(free.getsockname()[1]))
    os.environ["MASTER_PORT"] = store.get(key).decode()
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "False"
