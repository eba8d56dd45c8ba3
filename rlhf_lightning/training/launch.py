"""Detect the launcher, this process's rank, and a run-folder name that all ranks share.

Lightning's own detection takes seconds to import, which `--help` can't spend.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import OmegaConf

from rlhf_lightning.config.overrides import quote_value
from rlhf_lightning.errors import ConfigError

FOLDER_KEY = "rlhf_lightning/started"
COMMAND = "RLHF_LIGHTNING_COMMAND"
"""Environment variable with the command of rank 0 and the folder of its run."""


@dataclass(frozen=True)
class Launch:
    """The launcher of this command's processes, and this process's rank.

    Attributes:
        by: torchrun, SLURM, LSF, MPI, or Lightning, which starts the other processes of a node from its first one.
        number: this process's global rank; None under Lightning, which computes it from node and local.
        node: node rank, under Lightning.
        local: local rank, under Lightning.
        world: number of processes; None if unknown.
        job: the scheduler's name of the run, equal on all processes and after a requeue; '' for none.
        has_store: torchrun's agent has a store through which the processes can agree before they train.
    """

    by: str
    number: int | None
    node: int = 0
    local: int = 0
    world: int | None = None
    job: str = ""
    has_store: bool = False

    @property
    def is_external(self) -> bool:
        """True unless Lightning starts the processes."""
        return self.by != "Lightning"

    def rank(self, devices: int = 1) -> int:
        """Global rank, with this number of devices on each node; rank 0 is rank 0 for any number."""
        return self.node * devices + self.local if self.number is None else self.number


def detect_launch(environment: Mapping[str, str] | None = None) -> Launch:
    """Detect the launcher from the environment, in Lightning's order.

    As in Lightning, SLURM is ignored in a job named bash or interactive, and MPI without mpi4py.
    """
    env: Mapping[str, str] = os.environ if environment is None else environment
    for detect in (_torchrun, _slurm, _lsf, _mpi):
        launch = detect(env)
        if launch is not None:
            return launch
    # Lightning doesn't read RANK.
    world = int(env["WORLD_SIZE"]) if "LOCAL_RANK" in env and "WORLD_SIZE" in env else None
    return Launch("Lightning", None, int(env.get("NODE_RANK", env.get("GROUP_RANK", 0))), int(env.get("LOCAL_RANK", 0)), world)


def _torchrun(env: Mapping[str, str]) -> Launch | None:
    if "TORCHELASTIC_RUN_ID" not in env:
        return None
    return Launch("torchrun", int(env["RANK"]), world=int(env["WORLD_SIZE"]), has_store=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def _slurm(env: Mapping[str, str]) -> Launch | None:
    if "SLURM_NTASKS" not in env or env.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    step = env.get("SLURM_STEP_ID", env.get("SLURM_STEPID"))  # without srun, commands of one job have no name each
    job = f"slurm_{env['SLURM_JOB_ID']}{'' if step == '0' else f'_{step}'}" if step is not None and "SLURM_JOB_ID" in env else ""
    return Launch("SLURM", int(env.get("SLURM_PROCID", 0)), world=int(env["SLURM_NTASKS"]), job=job)


def _lsf(env: Mapping[str, str]) -> Launch | None:
    if not {"LSB_JOBID", "LSB_DJOB_RANKFILE", "JSM_NAMESPACE_LOCAL_RANK", "JSM_NAMESPACE_SIZE"} <= env.keys():
        return None
    return Launch("LSF", int(env.get("JSM_NAMESPACE_RANK", 0)), world=int(env["JSM_NAMESPACE_SIZE"]))


def _mpi(env: Mapping[str, str]) -> Launch | None:
    for rank, size in (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")):
        if int(env.get(size, 1)) > 1 and importlib.util.find_spec("mpi4py") is not None:
            return Launch("MPI", int(env.get(rank, 0)), world=int(env[size]))
    return None


def check_launch(devices: int, nodes: int, environment: Mapping[str, str] | None = None) -> None:
    """Compare the started processes with the trainer's settings, since missing ones would block.

    Args:
        devices: processes on each node.

    Raises:
        ConfigError: another number of processes or nodes, a node without an address, SLURM's tasks without srun.
    """
    env: Mapping[str, str] = os.environ if environment is None else environment
    launch = detect_launch(env)
    requested = f"trainer.devices={devices} on trainer.num_nodes={nodes}"
    if launch.by == "SLURM":
        _check_slurm(env, devices, nodes)
    if launch.world is not None and launch.world != devices * nodes:
        raise ConfigError(
            f"{launch.by} started {launch.world} processes, and {requested} asks for {devices * nodes}: trainer.devices is the number on "
            "each node, trainer.num_nodes that of the nodes; start as many as the settings ask for, or set them to what is started"
        )
    if not launch.is_external:
        _check_nodes(env, launch, devices, nodes)


def _check_slurm(env: Mapping[str, str], devices: int, nodes: int) -> None:
    tasks = int(env["SLURM_NTASKS"])
    if tasks > 1 and not {"SLURM_STEP_ID", "SLURM_STEPID"} & env.keys():
        raise ConfigError(
            f"this job of SLURM has {tasks} tasks and srun didn't start this process, which would wait for the others for ever: write "
            "`srun python train.py ...`, or, for one process that starts the others of its node itself, give the job --job-name=interactive"
        )
    if tasks > 1 and "SLURM_NTASKS_PER_NODE" not in env:
        raise ConfigError(f"SLURM has --ntasks={tasks}: write --ntasks-per-node={devices} --nodes={nodes} in its place")
    for name, flag, key, requested in (
        ("SLURM_NTASKS_PER_NODE", "--ntasks-per-node", "trainer.devices", devices),
        ("SLURM_NNODES", "--nodes", "trainer.num_nodes", nodes),
    ):
        if name in env and int(env[name]) != requested:
            raise ConfigError(f"SLURM has {flag}={env[name]} and {key} is {requested}: they must be the same number")


def _check_nodes(env: Mapping[str, str], launch: Launch, devices: int, nodes: int) -> None:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in env]
    missing += ["NODE_RANK"] if not {"NODE_RANK", "GROUP_RANK"} & env.keys() else []
    if nodes > 1 and missing:
        raise ConfigError(
            f"trainer.num_nodes={nodes} needs {', '.join(missing)} in the environment of each node: the first one's address, a free port "
            "of it, and 0, 1, ... by node; or start the nodes by torchrun or srun"
        )
    for name, rank, size, key in (
        ("NODE_RANK", launch.node, nodes, "trainer.num_nodes"),
        ("LOCAL_RANK", launch.local, devices, "trainer.devices"),
    ):
        if rank >= size:
            raise ConfigError(f"the environment has {name}={rank} and {key} is {size}: ranks begin at 0; set {key}, or unset {name}")


def check_folder(folder: str, devices: int, nodes: int, environment: Mapping[str, str] | None = None) -> None:
    """Reject a folder named by the time if each process would read its own clock.

    Args:
        folder: hydra.run.dir with its interpolations unresolved.
        devices: processes on each node.

    Raises:
        ConfigError: with a folder to write.
    """
    env: Mapping[str, str] = os.environ if environment is None else environment
    launch = detect_launch(env)
    # Processes that Lightning starts inherit the folder.
    shares_folder = devices * nodes == 1 or (not launch.is_external and nodes == 1 and "LOCAL_RANK" not in env)
    reads_clock = "${now" in folder or ("${started" in folder and not launch.job and not launch.has_store)
    if reads_clock and not shares_folder:
        raise ConfigError(
            f"hydra.run.dir={folder} has the time in it, and each of the {devices * nodes} processes reads its own clock: name the folder, "
            "one that all nodes share, as in hydra.run.dir=runs/mine"
        )


@functools.cache
def run_name(pattern: str) -> str:
    """Name of a run's folder, equal on all processes: the scheduler's job, else the start time.

    Args:
        pattern: for strftime.
    """
    launch = detect_launch()
    if launch.job:
        return launch.job
    mine = time.strftime(pattern)
    if not launch.has_store or launch.world == 1:
        return mine
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    name: bytes = store.compare_set(FOLDER_KEY, "", mine)
    return name.decode()


def export_command(**parts: Any) -> None:
    """Export the command, or the run's folder, to the processes that Lightning starts from this one."""
    record = {"process": os.getpid(), **json.loads(os.environ.get(COMMAND, "{}")), **parts}
    os.environ[COMMAND] = json.dumps(record)


def inherited_overrides(words: Sequence[str]) -> list[str]:
    """The parent's exported command and folder, if Lightning started this process; else `words`.

    Lightning repeats the folder between double quotes, which break on some folder names.
    """
    launch = detect_launch()
    record = {} if launch.is_external or not launch.local else json.loads(os.environ.get(COMMAND, "{}"))
    if record.get("process") != os.getppid():
        os.environ.pop(COMMAND, None)
        return list(words)
    names_run = any(word.startswith("resume=") and word != "resume=auto" for word in record["words"])
    return record["words"] if names_run else [*record["words"], f"hydra.run.dir={quote_value(record['folder'])}"]


def rank_overrides() -> list[str]:
    """The overrides of a rank above 0, so that Hydra writes its files once."""
    return [] if detect_launch().rank() == 0 else ["hydra.output_subdir=null"]


def register() -> None:
    """Let conf/config.yaml write ${started:PATTERN}."""
    OmegaConf.register_new_resolver("started", run_name, replace=True)
