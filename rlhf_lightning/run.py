"""One run: the composed configuration, its folder, and what stages make from them."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.registry import build, build_section, component_of, make

if TYPE_CHECKING:
    import lightning as L

    from rlhf_lightning.backbone.language_model import LanguageModel
    from rlhf_lightning.task.task import Task


class Run:
    """What a stage is given: settings, components, a Trainer, a folder and a clock.

    Under several processes every one of them runs the stage; only the first (`is_main`) writes.
    """

    def __init__(self, config: DictConfig, folder: Path, console: Console | None = None) -> None:
        self.config, self.folder = config, Path(folder)
        self.seed = int(config.seed)
        self.console = console or Console(stderr=False)
        self.seconds: dict[str, float] = {}
        self.results: dict[str, float] = {}

    @property
    def is_main(self) -> bool:
        return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))) == 0

    def settings(self, name: str) -> Any:
        """The typed section `name` of the configuration."""
        return build_section(name, self.config[name])

    def component(self, group: str, *args: Any) -> Any:
        """The chosen option of a group, made with these run-time arguments.

        Raises:
            ConfigError: none was chosen.
        """
        if not self.config.get(group):
            raise ConfigError(f"this stage needs a {group}: add `{group}=...` to the command (`rlhf-lightning components {group}`)")
        return build(self.config[group], *args)

    def components(self, group: str, *args: Any) -> dict[str, Any]:
        """The chosen options of a group that takes several, by name and in order."""
        return {str(name): build(node, *args) for name, node in (self.config.get(group) or {}).items()}

    @property
    def response_room(self) -> int:
        """The most tokens that a response may have: every sampler has the setting max_new_tokens."""
        return int(self.config.rollout_sampler.max_new_tokens)

    def needs_of(self, group: str) -> frozenset[str]:
        """What the chosen option of a group says that it needs from the run."""
        return component_of(self.config[group]).needs

    def language_model(self, path: Path | str | None = None, corpus: Sequence[str] = ()) -> LanguageModel:
        """The backbone, or the one that an earlier stage left in a folder."""
        import torch

        torch.manual_seed(self.seed)
        load = self.component("backbone") if path is None else make("backbone", "causal", {"path": str(path)})
        language_model: LanguageModel = load(corpus)
        return language_model

    def corpus(self, task: Task) -> list[str]:
        """What a tokenizer that is made on the spot is fitted to."""
        return [prompt + response for prompt, response in task.demonstrations()] or task.train_prompts()

    def trainer(self, name: str, epochs: int, steps: int, figures: dict[str, str], max_grad_norm: float | None = None) -> L.Trainer:
        """A Lightning Trainer for one stage, with its logger and progress.

        Args:
            name: of the stage, for logs and the bar.
            steps: batches in all, for the bar.
            figures: history names to labels shown beside the bar.
            max_grad_norm: Lightning's gradient clipping; a module that optimises by itself clips by itself.
        """
        import lightning as L

        from rlhf_lightning.progress import StageProgress

        hush_hints()
        L.seed_everything(self.seed + int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))), verbose=False)
        return L.Trainer(
            **OmegaConf.to_container(self.config.trainer, resolve=True),  # type: ignore[arg-type]
            max_epochs=epochs,
            logger=self.logger(name),
            callbacks=[StageProgress(name, steps, figures, self.console)],
            gradient_clip_val=max_grad_norm,
            default_root_dir=self.folder,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )

    def save(self, trainer: L.Trainer, folder: Path, write: Callable[[Path], None]) -> None:
        """Let the first process write a folder, and the others wait until it stands."""
        if trainer.is_global_zero:
            write(folder)
        trainer.strategy.barrier()

    def logger(self, name: str) -> Any:
        """The chosen logger for one stage, writing below the run's folder."""
        about = self.config.logger
        if about.kind == "none":
            return False
        from lightning.pytorch import loggers

        if about.kind == "csv":
            return loggers.CSVLogger(self.folder / "logs", name=name, version="", flush_logs_every_n_steps=10)
        if about.kind == "tensorboard":
            return loggers.TensorBoardLogger(self.folder / "logs", name=name, version="")
        if about.kind == "wandb":
            return self._wandb_logger(name)
        raise ConfigError(f"logger.kind={about.kind!r} is not one of csv, tensorboard, wandb, none")

    def _wandb_logger(self, name: str) -> Any:
        import wandb
        from lightning.pytorch.loggers import WandbLogger

        about = self.config.logger
        wandb.finish()  # one W&B run per stage, else the second stage writes into the first one's
        settings = wandb.Settings(init_timeout=about.init_timeout, silent=True)
        return WandbLogger(
            project=about.project, group=about.group or self.folder.name, name=f"{self.folder.name}/{name}", mode=about.mode,
            save_dir=self.folder, config=OmegaConf.to_container(self.config), settings=settings,
        )  # fmt: skip

    def close(self) -> None:
        """End what a logger left open, so that the next job of a sweep starts its own."""
        if self.config.logger.kind == "wandb":
            import wandb

            wandb.finish()

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - start

    def say(self, text: str) -> None:
        if self.is_main:
            self.console.print(text, highlight=False, soft_wrap=True)

    def write_json(self, name: str, content: Any) -> None:
        """A JSON file in the run's folder, whole or not at all."""
        if self.is_main:
            beside = self.folder / f".{name}.part"
            beside.write_text(json.dumps(content, indent=2, ensure_ascii=False))
            os.replace(beside, self.folder / name)


def hush_hints() -> None:
    """Lightning's hints on hardware and workers repeat at every stage; its errors and other warnings stay."""
    for source in ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda", "lightning.fabric"):
        logging.getLogger(source).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")
