"""The trainings of a run: their endings, their evaluations and the weights that they leave."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig
from rich.console import Console

from rlhf_lightning.config.display import literal, safe_message
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.resume import CHECKPOINTS
from rlhf_lightning.runtime.stopwatch import Stopwatch
from rlhf_lightning.training.distributed import global_rank

if TYPE_CHECKING:
    import lightning as L

    from rlhf_lightning.training.ending import Ending
    from rlhf_lightning.training.nonfinite import NonFiniteGuard
    from rlhf_lightning.training.periodic_evaluation import Evaluation, PeriodicEvaluation


class Trainings(ComposedConfig):
    """Fits the modules of a run, and records how each training went.

    Attributes:
        history: metrics of each update, by training.
        endings: of each training. stop_reason: why the stage ended early, beyond its trainings (a target); empty if it did not.
        learning_rates: by section the default that was chosen, until a training logs it.
        best: step, metric and value of the weights that checkpoint.monitor kept, by training.
        evaluated: what evaluation.every measured of the weights that a training left, by training.
    """

    def __init__(self, config: DictConfig, folder: Path, console: Console) -> None:
        super().__init__(config)
        self.folder, self.console = Path(folder), console
        self.stopwatch = Stopwatch()
        self.history: dict[str, list[dict[str, float]]] = {}
        self.endings: dict[str, Ending] = {}
        self.stop_reason = ""
        self.learning_rates: dict[str, str] = {}
        self.best: dict[str, dict[str, Any]] = {}
        self.evaluated: dict[str, dict[str, Any]] = {}
        self._bar: Any = None

    @property
    def seconds(self) -> dict[str, float]:
        """The seconds of each stage, summed over the attempts of a resumed run."""
        return self.stopwatch.seconds

    @property
    def is_rank_zero(self) -> bool:
        return global_rank() == 0

    def fit(
        self,
        name: str,
        trainer: L.Trainer,
        module: L.LightningModule,
        data: L.LightningDataModule,
        evaluate: Callable[[], Evaluation] | None = None,
    ) -> None:
        """Train from the newest checkpoint of this training, if any, and save checkpoints on the way.

        Args:
            evaluate: evaluates the module on held-out data, for evaluation.every; the best weights are the module's at the end.
        """
        from rlhf_lightning.checkpoint.fit import Watchdog, fit
        from rlhf_lightning.training.nonfinite import FOLDER, BatchDump, NonFiniteGuard

        if isinstance(module, NonFiniteGuard):
            self._set_optimization(name, module)
            module.batch_dump = BatchDump(self.folder / FOLDER, name.replace(" ", "_"), self.log)
        checkpoint = self.settings("checkpoint")
        if checkpoint.stalled_after is not None:
            stacks = self.folder / f"stalled_{trainer.global_rank}.txt"
            trainer.callbacks.append(Watchdog(stacks, checkpoint.stalled_after))  # type: ignore[attr-defined]
        evaluation = self._add_evaluation(name, trainer, evaluate)
        folder = self.folder / CHECKPOINTS / name.replace(" ", "_")
        ending = fit(trainer, module, data, folder=folder, every=checkpoint.every, keep=checkpoint.keep, log=self.log)
        self.endings[name] = ending
        if ending.is_early:
            self.log(f"{name}: {ending}")
        if evaluation is not None:
            self._keep_best(name, evaluation, module)
        self.history[name] = getattr(module, "history", [])

    def _set_optimization(self, name: str, module: NonFiniteGuard) -> None:
        """Give a training its optimizer and schedule, and log a learning rate that wasn't in the command."""
        from rlhf_lightning.training.optimizer import Optimization

        module.optimization = Optimization(self.build("optimizer"), self.build("schedule"))
        rate = self.learning_rates.pop(name.split()[0], None)
        if rate is not None:
            self.log(f"{name}: {rate}")

    def _add_evaluation(self, name: str, trainer: L.Trainer, evaluate: Callable[[], Evaluation] | None) -> PeriodicEvaluation | None:
        """Add the evaluation of evaluation.every to a training."""
        from rlhf_lightning.tracking.progress import StageProgress
        from rlhf_lightning.tracking.samples import Completions, sample_rows, show_samples
        from rlhf_lightning.training.periodic_evaluation import PeriodicEvaluation

        settings, checkpoint = self.settings("evaluation"), self.settings("checkpoint")
        if settings.completions_every is not None:
            trainer.callbacks.append(Completions(settings.completions_every, settings.samples, self.console))  # type: ignore[attr-defined]
        if settings.every is None or evaluate is None:
            return None
        progress = next(callback for callback in trainer.callbacks if isinstance(callback, StageProgress))  # type: ignore[attr-defined]

        def evaluate_timed() -> Evaluation:
            self._bar = progress.bar
            try:
                with self.time_stage("evaluate"):
                    return evaluate()
            finally:
                self._bar = None

        def show(step: int, measured: Mapping[str, Any]) -> None:
            if self.is_rank_zero:
                show_samples(sample_rows(step, "held-out", measured, settings.samples), trainer.loggers, self.console)

        def log(text: str) -> None:
            self.log(f"{name}: {text}")

        evaluation = PeriodicEvaluation(settings.every, evaluate_timed, checkpoint.monitor, checkpoint.is_max, log, show)
        trainer.callbacks.append(evaluation)  # type: ignore[attr-defined]
        return evaluation

    def _keep_best(self, name: str, evaluation: PeriodicEvaluation, module: L.LightningModule) -> None:
        """Give the module its best weights, and log and record which they are."""
        is_other = evaluation.restore_best(module)
        if evaluation.of_result and (evaluation.best or evaluation.last["step"] == self.endings[name].steps):
            self.evaluated[name] = evaluation.of_result["measured"]
        if evaluation.monitor is not None and not evaluation.best:
            self.log(f"{name}: {evaluation.monitor} (checkpoint.monitor) was not measured, and the last weights are kept")
        if evaluation.best:
            best = {"step": evaluation.best["step"], "metric": evaluation.monitor, "value": evaluation.best["value"]}
            self.best[name] = best
            last = "" if is_other else ", the last ones"
            self.log(f"{name}: the weights after step {best['step']}{last} are kept: {best['metric']} {best['value']:.4g} is the best")

    @property
    def trainings(self) -> dict[str, dict[str, Any]]:
        """The ending of each training, and its best evaluation if checkpoint.monitor kept it."""
        return {name: ending.fields() | ({"best": self.best[name]} if name in self.best else {}) for name, ending in self.endings.items()}

    @property
    def end_reason(self) -> str:
        """Why the run ended early, or "finished"."""
        return self.stop_reason or next((ending.reason for ending in self.endings.values() if ending.is_early), "finished")

    @contextmanager
    def time_stage(self, stage: str) -> Iterator[None]:
        """Add the seconds of the block to those of the stage."""
        with self.stopwatch.measure(stage):
            yield

    def track(self, batches: Collection[Any], count: Callable[[Any], int] = len) -> Iterable[Any]:
        """Iterate over batches of an evaluation, with their progress on rank 0.

        Within a training its bar is below the training's.

        Args:
            count: items of a batch.
        """
        from rlhf_lightning.tracking.progress import track_batches

        if not self.is_rank_zero:
            return batches
        return track_batches(batches, "evaluate", self.console, count, self._bar)

    def log(self, text: str) -> None:
        """Print a message literally and without secrets, on rank 0 only."""
        if self.is_rank_zero:
            self.console.print(literal(safe_message(text), self.console), soft_wrap=True)
