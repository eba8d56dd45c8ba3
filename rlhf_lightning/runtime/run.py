"""One run: its configuration, folder, log, trainers and results."""

from __future__ import annotations

import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import prompt_text
from rlhf_lightning.registry import component_of
from rlhf_lightning.runtime.policy import load_policy
from rlhf_lightning.runtime.resume import CHECKPOINTS
from rlhf_lightning.runtime.trainings import Trainings
from rlhf_lightning.training.distributed import global_rank
from rlhf_lightning.training.trainer import device_kind, devices_per_node, lightning_trainer

if TYPE_CHECKING:
    import lightning as L
    import torch

    from rlhf_lightning.interfaces import Task
    from rlhf_lightning.model.language_model import LanguageModel
    from rlhf_lightning.report.report import Sample
    from rlhf_lightning.tracking.loggers import Tracker


class RunConsole(Console):
    """The terminal of a run; turned off if its reader has gone, so that the run continues."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


class Run(Trainings):
    """The argument of a stage: settings, components, trainers, a folder and a stopwatch.

    Every process runs the stage; rank 0 alone writes (`is_rank_zero`).

    Attributes:
        results: metrics of the stage by name, for result.json and the table of a sweep.
        speeds: last speeds of each training (tracking/progress.py).
        objective: the number that a sweep optimises; NaN until the stage has ended.
        model_folder: the model that was saved last.
        card: writes the card of that model with the results so far; None if it has no results of the stage.
    """

    def __init__(self, config: DictConfig, folder: Path, console: Console | None = None) -> None:
        super().__init__(config, folder, console or RunConsole(stderr=False))
        self.seed = int(config.seed)
        self.results: dict[str, float] = {}
        self.objective = math.nan
        self.speeds: dict[str, dict[str, float]] = {}
        self.tracker: Tracker | None = None
        self.model_folder: Path | None = None
        self.card: Callable[[], str] | None = None
        self._logged: set[str] = set()

    @property
    def device_kind(self) -> str:
        """The kind of device of every model that is read without a Trainer: that of trainer.accelerator."""
        return device_kind(str(self.config.trainer.get("accelerator", "auto")))

    @property
    def process_device(self) -> torch.device:
        """The device of this process, as its Trainer chooses it."""
        import torch

        if self.device_kind != "cuda":
            return torch.device(self.device_kind)
        devices, count = self.config.trainer.get("devices"), devices_per_node(self.config.trainer)
        local = global_rank(count) % count
        return torch.device("cuda", devices[local] if isinstance(devices, Sequence) and not isinstance(devices, str) else local)

    @property
    def max_response_tokens(self) -> int:
        """The most tokens of a response, from the setting max_new_tokens of every sampler."""
        return int(self.config.rollout_sampler.max_new_tokens)

    def language_model(self, path: Path | str | None = None, corpus: Sequence[str] = ()) -> LanguageModel:
        """Load the backbone, or the policy that an earlier stage saved in a folder.

        Raises:
            ConfigError: a backbone that can't generate.
        """
        import torch

        if path is None and "reading" in self.component_of("backbone").needs:
            stage, backbone = self.component_of("stage").name, self.component_of("backbone").name
            raise ConfigError(
                f"stage={stage} needs a model that generates texts, and backbone={backbone} only reads them: it is for stage=reward; "
                "choose backbone=causal, encoder_decoder or tiny here"
            )
        torch.manual_seed(self.seed)
        language_model: LanguageModel = self.build("backbone")(corpus) if path is None else load_policy(path)
        self._log_ends(language_model)
        return language_model

    def _log_ends(self, language_model: LanguageModel) -> None:
        """Log once how responses end if that is ambiguous, and special tokens in prefix and suffix."""
        from rlhf_lightning.tokenization.turns import frame_notes

        task = self.config.get("task") or {}
        frame = [str(task.get(name) or "") for name in ("prefix", "suffix")]
        for note in [*language_model.end_notes, *frame_notes(language_model.tokenizer, *frame)]:
            if note not in self._logged:
                self._logged.add(note)
                self.log(note)

    def corpus(self, task: Task) -> list[str]:
        """The texts to fit a new tokenizer to: demonstrations, or prompts without them."""
        return [demonstration.text for demonstration in task.demonstrations()] or [prompt_text(row.prompt) for row in task.train_prompts()]

    def trainer(self, name: str, epochs: int, steps: int, metrics: dict[str, str], max_grad_norm: float | None = None) -> L.Trainer:
        """Make a Lightning Trainer for one training, with its logger and progress bar.

        Args:
            name: of the training, for logs and the bar.
            steps: total batches, for the bar.
            metrics: names in the module's history to labels next to the bar.
            max_grad_norm: for Lightning's gradient clipping; a module with manual optimization clips by itself.
        """
        import lightning as L

        from rlhf_lightning.tracking.progress import StageProgress

        hush_hints()
        settings: Any = OmegaConf.to_container(self.config.trainer, resolve=True)
        L.seed_everything(self.seed + global_rank(devices_per_node(settings)), verbose=False)
        return lightning_trainer(
            settings,
            max_epochs=epochs,
            logger=self.logger(name),
            callbacks=[StageProgress(name, steps, metrics, self.console, self.speeds), *self.callbacks()],
            gradient_clip_val=max_grad_norm,
            default_root_dir=self.folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )

    def callbacks(self) -> list[L.Callback]:
        """New callbacks for one training, as chosen by the group callback.

        Raises:
            ConfigError: a component that makes something else.
        """
        import lightning as L

        built = {name: make() if isinstance(make, partial) else make for name, make in self.build_all("callback").items()}
        for name, callback in built.items():
            if not isinstance(callback, L.Callback):
                file = component_of(self.config.callback[name]).file
                raise ConfigError(f"callback={name} ({file}) makes a {type(callback).__name__}, not a lightning.pytorch.Callback")
        return list(built.values())

    def drop_checkpoints(self) -> None:
        """Delete the checkpoints of a finished run and the curves of its stopped attempts."""
        from rlhf_lightning.checkpoint.store import remove_checkpoints

        if self.is_rank_zero and not self.settings("checkpoint").keep_finished:
            remove_checkpoints(self.folder / CHECKPOINTS)
            for file in self.folder.glob("logs/*_before_*.csv"):
                file.unlink()

    def save(self, trainer: L.Trainer, folder: Path, write: Callable[[Path], None]) -> None:
        """Let rank 0 write a folder, and the others wait until it is complete."""
        self.model_folder = folder
        if trainer.is_global_zero:
            write(folder)
        trainer.strategy.barrier()

    def logger(self, name: str) -> Any:
        """The chosen logger for one training; False for none, as Lightning expects."""
        from rlhf_lightning.tracking.loggers import tracker

        self.tracker = tracker(self, name)
        return self.tracker or False

    def publish(self, samples: Sequence[Sample], page: Path, results: Mapping[str, float]) -> None:
        """Hand samples, report and results to the last training's logger, or to a new one.

        An error of the logger is logged and ignored.
        """
        kind = self.config.logger.kind
        if self.tracker is None and kind != "none" and (samples or kind != "csv"):
            self.logger(self.component_of("stage").name)
        if self.tracker is not None:
            try:
                self.tracker.publish(samples, page, results)
            except Exception as cause:
                self.log(f"the logger has no samples and no report: {type(cause).__name__}: {cause}")

    def close(self) -> None:
        """Finish a W&B run, so that the next job of a sweep starts its own."""
        if self.config.logger.kind == "wandb" and self.tracker is not None:
            from rlhf_lightning.tracking.loggers import finish_wandb

            finish_wandb()

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file into the run's folder atomically, on rank 0 only."""
        if self.is_rank_zero:
            write_atomic(self.folder / name, json.dumps(content, indent=2, ensure_ascii=False))


def hush_hints() -> None:
    """Silence Lightning's hints on hardware and workers; errors and other warnings stay."""
    modules = ("utilities.rank_zero", "accelerators.cuda", "trainer.connectors.signal_connector")
    for source in (*(f"lightning.pytorch.{name}" for name in modules), "lightning.fabric"):
        logging.getLogger(source).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode.*")  # PPO's policy is, on purpose
    warnings.filterwarnings("ignore", message=r"The number of training batches .* smaller than the logging interval.*")
