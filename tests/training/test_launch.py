"""Who started a process, which one it is, and the folder that they all name, by the environment alone."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.training import launch
from rlhf_lightning.training.launch import check_folder, check_launch, detect_launch, rank_overrides, run_name

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_USE_AGENT_STORE": "True", "RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1",
    "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1",
}  # fmt: skip
SLURM = {
    "SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "2", "SLURM_PROCID": "3", "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1", "SLURM_JOB_ID": "4711", "SLURM_STEP_ID": "0", "SLURM_JOB_NAME": "train",
}  # fmt: skip
LSF = {
    "LSB_JOBID": "9", "LSB_DJOB_RANKFILE": "f", "JSM_NAMESPACE_LOCAL_RANK": "1", "JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "3",
}  # fmt: skip
BY_HAND = {"NODE_RANK": "1", "MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
OF_A_LAUNCHER = {*TORCHRUN, *SLURM, *LSF, *BY_HAND}


@pytest.fixture
def here(monkeypatch):
    """Sets this process's environment, and nothing of a launcher beside it."""

    def put(env: dict[str, str]) -> None:
        for name in OF_A_LAUNCHER:
            monkeypatch.delenv(name, raising=False)
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        run_name.cache_clear()

    yield put
    run_name.cache_clear()


@pytest.mark.parametrize(
    ("env", "by", "rank"),
    [
        ({}, "Lightning", 0),
        ({"LOCAL_RANK": "1"}, "Lightning", 1),
        (BY_HAND, "Lightning", 2),
        ({**BY_HAND, "LOCAL_RANK": "1"}, "Lightning", 3),
        ({"GROUP_RANK": "1", "LOCAL_RANK": "0"}, "Lightning", 2),
        ({"RANK": "1"}, "Lightning", 0),
        (TORCHRUN, "torchrun", 3),
        (SLURM, "SLURM", 3),
        ({**SLURM, **TORCHRUN, "RANK": "0"}, "torchrun", 0),
        ({**SLURM, "SLURM_JOB_NAME": "bash"}, "Lightning", 0),
        ({**SLURM, "SLURM_JOB_NAME": "interactive", "LOCAL_RANK": "1"}, "Lightning", 1),
        ({"SLURM_PROCID": "1"}, "Lightning", 0),
        (LSF, "LSF", 3),
    ],
)
def test_who_started_it_and_which_one_it_is(env, by, rank, here):
    """As Lightning's own environments say, of which the first that finds itself counts."""
    from lightning.fabric.plugins.environments import LightningEnvironment, LSFEnvironment, SLURMEnvironment, TorchElasticEnvironment

    found = detect_launch(env)
    assert (found.by, found.rank(devices=2)) == (by, rank)
    assert (found.rank() == 0) is (rank == 0), "who is the first doesn't depend on the number of devices"
    here(env)
    assert detect_launch() == found
    kinds = {"torchrun": TorchElasticEnvironment, "SLURM": SLURMEnvironment, "LSF": LSFEnvironment, "Lightning": LightningEnvironment}
    assert next(name for name, kind in kinds.items() if kind.detect()) == by
    if by in ("torchrun", "SLURM"):
        assert kinds[by]().global_rank() == found.rank()
        assert kinds[by]().world_size() == found.world
    if by == "Lightning":
        theirs = LightningEnvironment()
        assert theirs.node_rank() * 2 + theirs.local_rank() == rank
    assert rank_overrides() == ([] if rank == 0 else ["hydra.output_subdir=null"])


def test_mpi_counts_where_lightning_can_ask_it(monkeypatch):
    env = {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}
    for there, by in ((None, "Lightning"), (object(), "MPI")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, there=there: there)
        assert detect_launch(env).by == by
    assert detect_launch(env).rank() == 1
    assert detect_launch({**env, "OMPI_COMM_WORLD_SIZE": "1"}).by == "Lightning"


@pytest.mark.parametrize(
    ("env", "devices", "nodes"),
    [
        ({}, 1, 1), ({}, 4, 1), (BY_HAND, 2, 2), (TORCHRUN, 2, 2), (TORCHRUN, 4, 1), (SLURM, 2, 2), (LSF, 2, 2),
        ({"NODE_RANK": "0"}, 2, 1), ({"WORLD_SIZE": "8"}, 2, 1), ({"LOCAL_RANK": "1", "WORLD_SIZE": "2", "NODE_RANK": "0"}, 2, 1),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_ID": "1"}, 1, 1), ({**SLURM, "SLURM_JOB_NAME": "bash"}, 3, 1),
    ],
)  # fmt: skip
def test_the_launched_processes_are_those_requested(env, devices, nodes):
    check_launch(devices, nodes, env)


@pytest.mark.parametrize(
    ("env", "devices", "nodes", "said"),
    [
        (TORCHRUN, 1, 1, "torchrun started 4 processes, and trainer.devices=1 on trainer.num_nodes=1 asks for 1"),
        (LSF, 2, 1, "LSF started 4 processes"),
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "4"}, 2, 1, "started 4 processes"),
        (SLURM, 1, 2, "SLURM has --ntasks-per-node=2 and trainer.devices is 1"),
        (SLURM, 2, 1, "SLURM has --nodes=2 and trainer.num_nodes is 1"),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_ID": "0"}, 2, 1, "SLURM started 1 processes"),
        ({**SLURM, "SLURM_NTASKS": "3"}, 2, 2, "SLURM started 3 processes"),
        ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_ID"}, 2, 2, "`srun python train.py ...`"),
        ({name: value for name, value in SLURM.items() if "PER_NODE" not in name}, 2, 2, "--ntasks-per-node=2 --nodes=2"),
        ({}, 1, 2, "trainer.num_nodes=2 needs MASTER_ADDR, MASTER_PORT, NODE_RANK"),
        ({**BY_HAND, "NODE_RANK": "2"}, 1, 2, "NODE_RANK=2 and trainer.num_nodes is 2"),
        (BY_HAND, 2, 1, "NODE_RANK=1 and trainer.num_nodes is 1"),
        ({"LOCAL_RANK": "1"}, 1, 1, "LOCAL_RANK=1 and trainer.devices is 1"),
    ],
)
def test_where_they_differ_it_is_reported_at_once(env, devices, nodes, said):
    with pytest.raises(ConfigError) as caught:
        check_launch(devices, nodes, env)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("folder", "env", "devices", "nodes", "fine"),
    [
        ("runs/mine", TORCHRUN, 2, 2, True),
        ("runs/${started:%H}", {}, 1, 1, True),
        ("runs/${now:%H}", {}, 4, 1, True),
        ("runs/${now:%H}", {"NODE_RANK": "0"}, 4, 1, True),
        ("runs/${started:%H}", TORCHRUN, 2, 2, True),
        ("runs/${now:%H}", TORCHRUN, 2, 2, False),
        ("runs/${started:%H}", {**TORCHRUN, "TORCHELASTIC_USE_AGENT_STORE": "False"}, 2, 2, False),
        ("runs/${started:%H}", SLURM, 2, 2, True),
        ("runs/${now:%H}", SLURM, 2, 2, False),
        ("runs/${now:%H}", {"SLURM_NTASKS": "1"}, 1, 1, True),
        ("runs/${started:%H}", LSF, 2, 2, False),
        ("runs/${started:%H}", BY_HAND, 1, 2, False),
        ("runs/${started:%H}", {"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, 2, 1, False),
        ("runs/mine", BY_HAND, 1, 2, True),
    ],
)
def test_a_folder_that_each_process_would_name_by_its_own_clock_is_refused(folder, env, devices, nodes, fine):
    if fine:
        check_folder(folder, devices, nodes, env)
        return
    with pytest.raises(ConfigError, match=r"has the time in it, .*hydra\.run\.dir=runs/mine"):
        check_folder(folder, devices, nodes, env)


@pytest.mark.parametrize(
    ("env", "name"),
    [
        (SLURM, "slurm_4711"),
        ({**SLURM, "SLURM_STEP_ID": "2"}, "slurm_4711_2"),
        ({"SLURM_NTASKS": "1", "SLURM_JOB_ID": "7"}, "%H by the clock"),
        ({}, "%H by the clock"),
    ],
)
def test_a_run_is_named_by_its_job_or_by_its_time(env, name, here, monkeypatch):
    here(env)
    monkeypatch.setattr(launch, "time", SimpleNamespace(strftime=lambda pattern: f"{pattern} by the clock"))
    assert run_name("%H") == name


def test_processes_of_torchrun_take_the_name_of_the_first_that_asks(here, monkeypatch):
    from torch.distributed import TCPStore

    agent = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    here({**TORCHRUN, "MASTER_PORT": str(agent.port)})
    names = []
    for clock in ("first", "second"):
        monkeypatch.setattr(launch, "time", SimpleNamespace(strftime=lambda pattern, clock=clock: clock))
        names.append(run_name("%H"))
        run_name.cache_clear()
    assert names == ["first", "first"]
