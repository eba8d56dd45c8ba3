"""Run the stage of one composed configuration, from its checks to its result file."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from omegaconf import DictConfig, OmegaConf

from rlhf_lightning.checkpoint.torchrun_restart import rejoin_after_restart
from rlhf_lightning.model.card import push_folder
from rlhf_lightning.plan.device import peak_bytes
from rlhf_lightning.registry import build
from rlhf_lightning.runtime import resume, saved_config, stopwatch
from rlhf_lightning.runtime.composition import check, expand_paths
from rlhf_lightning.runtime.learning_rates import set_learning_rates
from rlhf_lightning.runtime.output_folder import output_folder
from rlhf_lightning.runtime.run import Run
from rlhf_lightning.training import launch
from rlhf_lightning.training.distributed import barrier
from rlhf_lightning.training.trainer import devices_per_node


def run_stage(config: DictConfig, node: Any) -> Run:
    """Check the configuration, run its stage and write the result. Returns the run with its objective.

    Args:
        node: the job's `hydra` node.

    Raises:
        UserError: a configuration that can't be run, or a folder that holds another run.
    """
    # Check before anything is written or loaded.
    check(config)
    expand_paths(config)
    rates = set_learning_rates(config)
    raw: Any = OmegaConf.to_container(node.run, resolve=False)
    launch.check_folder(raw["dir"], devices_per_node(config.trainer), config.trainer.num_nodes)
    run = Run(config, output_folder(node))
    run.learning_rates = rates
    if run.is_rank_zero:
        resume.prepare(config, run.folder, run.log)

    # Under resume=auto the run may be over.
    objective = resume.saved_objective(run.folder)
    if objective is not None:
        run.objective = objective
        if run.is_rank_zero:
            resume.clean_finished(run.folder)
        run.log(f"{run.folder} is already complete: {run.folder / resume.RESULT}")
        return run

    if run.is_rank_zero:
        saved_config.save(config, run.folder)
    rejoin_after_restart()
    with run.stopwatch.record(run.folder) if run.is_rank_zero else nullcontext():
        try:
            run.objective = float(build(config.stage)(run))
        finally:
            run.close()

    # The result comes first: what a resumed run needs may go only when the run is complete.
    result = {
        "objective": run.objective, "metrics": run.results, "ended": run.end_reason,
        "trainings": run.trainings, "seconds": run.seconds, "peak_bytes": peak_bytes(),
    }  # fmt: skip
    run.write_json(resume.RESULT, result)
    run.drop_checkpoints()
    if run.is_rank_zero:
        (run.folder / stopwatch.FILE).unlink(missing_ok=True)
    barrier()  # children exit with their parent, so wait for all
    publish(run)
    return run


def publish(run: Run) -> None:
    """Upload the model that the run saved last to the Hub, on rank 0, if `push` names it.

    Raises:
        UserError: the upload failed; the run is complete.
    """
    if not run.config.get("push") or not run.is_rank_zero:
        return
    if run.model_folder is None:
        run.log(f"push={run.config.push}: this stage has trained no model to upload")
    else:
        run.log(f"uploaded {run.model_folder}: {push_folder(run.model_folder, str(run.config.push))}")
