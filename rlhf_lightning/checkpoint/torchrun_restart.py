"""A new rendezvous store after a torchrun restart, instead of the addresses of dead processes."""

from __future__ import annotations

import os
import socket


def rejoin_after_restart() -> None:
    """After a restart by torchrun on one node, connect the processes through a new store.

    torchrun (2.4 to at least 2.13) shares one store over all attempts, and gloo and NCCL then look for processes that are dead, until
    they time out. Rank 0 chooses a port and publishes it in that store. On several nodes the nodes' counts of restarts differ, and
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in torchrun's environment does the same.
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
