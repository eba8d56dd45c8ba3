"""How this process was started, which of them all it is before they have met, and the name that they give to their run's folder."""

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
"""The environment variable with the words of the first process's command, and the folder of its run."""


@dataclass(frozen=True)
class Launch:
    """Who starts the processes of this command, and this one's place among them.

    Attributes:
        by: torchrun, SLURM, LSF, MPI, or Lightning, which starts the processes of a node from its first one.
        number: this process's among all; None where Lightning gives it, who counts on from the devices of the nodes before.
        node: this process's machine, where Lightning starts the processes.
        local: this process's place on its machine, where Lightning starts the processes.
        world: processes that were started; None where that isn't known.
        job: a name for the run that every process of it finds by itself, also after it was queued again; '' for none.
        meets: the processes can agree before they train: torchrun's agent has a store that they reach.
    """

    by: str
    number: int | None
    node: int = 0
    local: int = 0
    world: int | None = None
    job: str = ""
    meets: bool = False

    @property
    def outside(self) -> bool:
        """Whether something other than Lightning started the processes."""
        return self.by != "Lightning"

    def rank(self, devices: int = 1) -> int:
        """This process's number among all, from 0, with so many devices on each node. The first is the first whatever they are."""
        return self.node * devices + self.local if self.number is None else self.number


def this_launch(about: Mapping[str, str] | None = None) -> Launch:
    """Who started this process, by its environment, in the order in which Lightning asks.

    SLURM is passed over in a job named bash or interactive, as Lightning does, and MPI without mpi4py.
    """
    env: Mapping[str, str] = os.environ if about is None else about
    for find in (_torchrun, _slurm, _lsf, _mpi):
        found = find(env)
        if found is not None:
            return found
    # RANK is nothing that Lightning reads here.
    world = int(env["WORLD_SIZE"]) if "LOCAL_RANK" in env and "WORLD_SIZE" in env else None
    return Launch("Lightning", None, int(env.get("NODE_RANK", env.get("GROUP_RANK", 0))), int(env.get("LOCAL_RANK", 0)), world)


def _torchrun(env: Mapping[str, str]) -> Launch | None:
    if "TORCHELASTIC_RUN_ID" not in env:
        return None
    return Launch("torchrun", int(env["RANK"]), world=int(env["WORLD_SIZE"]), meets=env.get("TORCHELASTIC_USE_AGENT_STORE") == "True")


def _slurm(env: Mapping[str, str]) -> Launch | None:
    if "SLURM_NTASKS" not in env or env.get("SLURM_JOB_NAME") in ("bash", "interactive"):
        return None
    step = env.get("SLURM_STEP_ID", env.get("SLURM_STEPID"))  # without srun none: commands of one job are told apart by nothing
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


def check_launch(devices: int, nodes: int, about: Mapping[str, str] | None = None) -> None:
    """Hold what was started to what the trainer's settings ask for: where they differ, processes wait for others that never come.

    Args:
        devices: processes on each node.

    Raises:
        ConfigError: another number of processes or nodes, a node without an address, SLURM's tasks without srun.
    """
    env: Mapping[str, str] = os.environ if about is None else about
    launch = this_launch(env)
    asked = f"trainer.devices={devices} on trainer.num_nodes={nodes}"
    if launch.by == "SLURM":
        _check_slurm(env, devices, nodes)
    if launch.world is not None and launch.world != devices * nodes:
        raise ConfigError(
            f"{launch.by} started {launch.world} processes, and {asked} asks for {devices * nodes}: trainer.devices is the number on each "
            "node, trainer.num_nodes that of the nodes; start as many as the settings ask for, or set them to what is started"
        )
    if not launch.outside:
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
    for name, flag, key, asked in (
        ("SLURM_NTASKS_PER_NODE", "--ntasks-per-node", "trainer.devices", devices),
        ("SLURM_NNODES", "--nodes", "trainer.num_nodes", nodes),
    ):
        if name in env and int(env[name]) != asked:
            raise ConfigError(f"SLURM has {flag}={env[name]} and {key} is {asked}: they must be the same number")


def _check_nodes(env: Mapping[str, str], launch: Launch, devices: int, nodes: int) -> None:
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in env]
    missing += ["NODE_RANK"] if not {"NODE_RANK", "GROUP_RANK"} & env.keys() else []
    if nodes > 1 and missing:
        raise ConfigError(
            f"trainer.num_nodes={nodes} needs {', '.join(missing)} in the environment of each node: the first one's address, a free port "
            "of it, and 0, 1, ... by node; or start the nodes by torchrun or srun"
        )
    for name, found, most, key in (
        ("NODE_RANK", launch.node, nodes, "trainer.num_nodes"),
        ("LOCAL_RANK", launch.local, devices, "trainer.devices"),
    ):
        if found >= most:
            raise ConfigError(f"the environment has {name}={found} and {key} is {most}: numbers begin at 0; set {key}, or unset {name}")


def check_folder(folder: str, devices: int, nodes: int, about: Mapping[str, str] | None = None) -> None:
    """Refuse a folder named by the time, where each process would look at its own clock.

    Args:
        folder: hydra.run.dir as it was written, with its interpolations.
        devices: processes on each node.

    Raises:
        ConfigError: with what to write.
    """
    env: Mapping[str, str] = os.environ if about is None else about
    launch = this_launch(env)
    # Lightning tells the folder to the processes that it starts.
    alone = devices * nodes == 1 or (not launch.outside and nodes == 1 and "LOCAL_RANK" not in env)
    own = "${now" in folder or ("${started" in folder and not launch.job and not launch.meets)
    if own and not alone:
        raise ConfigError(
            f"hydra.run.dir={folder} has the time in it, and each of the {devices * nodes} processes reads its own clock: name the folder, "
            "one that all nodes share, as in hydra.run.dir=runs/mine"
        )


@functools.cache
def started(pattern: str) -> str:
    """What tells a run's folder from others': the scheduler's job, else the time at which the first process looked at its clock.

    Args:
        pattern: strftime's.
    """
    launch = this_launch()
    if launch.job:
        return launch.job
    mine = time.strftime(pattern)
    if not launch.meets or launch.world == 1:
        return mine
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    name: bytes = store.compare_set(FOLDER_KEY, "", mine)
    return name.decode()


def hand_on(**parts: Any) -> None:
    """Let the processes that Lightning starts from this one read its command, and its run's folder, as they are."""
    record = {"process": os.getpid(), **json.loads(os.environ.get(COMMAND, "{}")), **parts}
    os.environ[COMMAND] = json.dumps(record)


def inherited_words(words: Sequence[str]) -> list[str]:
    """The command of the process that started this one, where Lightning did, with its run's folder; else `words`.

    Lightning repeats the folder between plain double quotes, which hold few of the names that a folder may have.
    """
    launch = this_launch()
    record = {} if launch.outside or not launch.local else json.loads(os.environ.get(COMMAND, "{}"))
    if record.get("process") != os.getppid():
        os.environ.pop(COMMAND, None)
        return list(words)
    names_run = any(word.startswith("resume=") and word != "resume=auto" for word in record["words"])
    return record["words"] if names_run else [*record["words"], f"hydra.run.dir={quote_value(record['folder'])}"]


def no_files() -> list[str]:
    """What a process that isn't the first adds to its command: Hydra's files of the run are written once."""
    return [] if this_launch().rank() == 0 else ["hydra.output_subdir=null"]


def register() -> None:
    """Let conf/config.yaml write ${started:PATTERN}."""
    OmegaConf.register_new_resolver("started", started, replace=True)
