"""Tiny trainings of each kind, and `python trainings.py KIND FOLDER`, which runs or resumes one and prints what it left."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch

from rlhf_lightning.advantage.gae import gae
from rlhf_lightning.advantage.grpo import grpo
from rlhf_lightning.backbone.tiny import tiny
from rlhf_lightning.checkpoint.callback import random_state
from rlhf_lightning.checkpoint.fit import fit
from rlhf_lightning.errors import UserError
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.interfaces import Demonstration, TaskPrompt
from rlhf_lightning.model.language_model import LanguageModel
from rlhf_lightning.policy.critic.shared import shared_critic
from rlhf_lightning.policy.experience import PPOComponents
from rlhf_lightning.policy.kl.reward import RewardKL
from rlhf_lightning.policy.kl_control.adaptive import AdaptiveKL
from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
from rlhf_lightning.policy.model import Policy
from rlhf_lightning.policy.module import PPOModule
from rlhf_lightning.policy.reduction.token_mean import token_mean
from rlhf_lightning.policy.settings import PPOSettings
from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
from rlhf_lightning.preference.examples import TextTable, compared_examples, preference_loader
from rlhf_lightning.preference.loss.dpo import DPO
from rlhf_lightning.preference.module import PreferenceModule
from rlhf_lightning.preference.settings import PreferenceSettings
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.module import RewardModule, feedback_loader
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last
from rlhf_lightning.reward.settings import RewardSettings
from rlhf_lightning.rollout.prompts import prompt_loader
from rlhf_lightning.rollout.sampler.native import native
from rlhf_lightning.rollout.shaping.normalise_score import NormaliseScore
from rlhf_lightning.sft.module import SFTModule, demonstration_loader
from rlhf_lightning.sft.settings import SFTSettings
from rlhf_lightning.training.datamodule import ShardedData

PROMPTS = ["It", "Review of a lamp:\n", "The kettle", "a quiet fan, and", "A", "The"]
THINGS = ["lamp", "fan", "kettle", "tent", "desk"]
EPOCHS = 2
UPDATES = 5
Made = tuple[L.LightningModule, ShardedData, int]


def small_model() -> LanguageModel:
    """With dropout, so that the random states matter where a model is in training mode."""
    torch.manual_seed(0)
    language_model = tiny(PROMPTS, family="gpt2", layers=1, width=16, heads=2, vocabulary=260, positions=64)
    for module in language_model.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    return language_model


def judgements() -> Any:
    """Groups of several prompts: three batches of an epoch, the last one smaller."""
    records = [
        Feedback(prompt=f"The {thing}:", responses=(" it is good.", " bad, bad"), judgement=Ranking(ranks=(0, 1))) for thing in THINGS
    ]
    return standardise(records)


def sft() -> Made:
    language_model, settings = small_model(), SFTSettings(batch_size=2, epochs=EPOCHS, learning_rate=1e-2)
    shown = [Demonstration(f"The {thing}", " is a good one.") for thing in THINGS]
    loader = lambda rank, world: demonstration_loader(shown, language_model, settings, 0, rank, world)[0]  # noqa: E731
    return SFTModule(language_model, settings, EPOCHS * len(loader(0, 1))), ShardedData(loader), EPOCHS


def reward() -> Made:
    language_model, settings = small_model(), RewardSettings(batch_size=2, epochs=EPOCHS, learning_rate=1e-2)
    trunk: Any = language_model.model.base_model
    trunk.train()
    model = RewardModel(ComposedScore(trunk, last, LinearHead(16)), language_model.tokenizer, 64)
    judged = judgements()
    loader = lambda rank, world: feedback_loader(judged, model, 2, 0, rank, world)  # noqa: E731
    return RewardModule(model, [BradleyTerry()], settings, EPOCHS * len(loader(0, 1))), ShardedData(loader), EPOCHS


def dpo() -> Made:
    language_model, settings = small_model(), PreferenceSettings(batch_size=2, epochs=EPOCHS, learning_rate=1e-2)
    table = TextTable(language_model.tokenizer, 64)
    examples = compared_examples(judgements(), table)
    loader = lambda rank, world: preference_loader(examples, table, 2, 0, rank, world)  # noqa: E731
    module = PreferenceModule(language_model, DPO(), settings, EPOCHS * len(loader(0, 1)), table, np.arange(len(table)))
    return module, ShardedData(loader), EPOCHS


def low_ids(rollout: Any) -> torch.Tensor:
    """Scores that differ, so that the policy moves: few of these responses end by themselves, and all others are as long."""
    mask = rollout.response_mask
    scores: torch.Tensor = ((rollout.response_ids < 130) * mask).sum(1) / mask.sum(1)
    return scores


def policy(advantage: Callable[..., Any], shapings: Sequence[Any], critic: bool) -> Made:
    language_model = small_model()
    settings = PPOSettings(
        updates=UPDATES, prompts_per_update=4, responses_per_prompt=2, num_minibatches=2, learning_rate=1e-2, self_checks=True
    )
    parts = PPOComponents(
        sampler=partial(native, max_new_tokens=5), scorer=low_ids, shapings=shapings, advantage=advantage, loss=ppo_clip,
        reduction=token_mean, value_loss=clipped_value_loss, kl_control=AdaptiveKL(coef=0.3, target=0.01, horizon=20),
    )  # fmt: skip
    module = PPOModule(
        Policy(language_model, shared_critic(language_model, None) if critic else None), Policy(small_model()), parts, settings
    )
    rows = list(map(TaskPrompt, PROMPTS))
    loader = lambda rank, world: prompt_loader(rows, language_model, UPDATES, 4, 5, seed=0, rank=rank, world=world)  # noqa: E731
    return module, ShardedData(loader), 1


KINDS: dict[str, Callable[[], Made]] = {
    "sft": sft,
    "reward": reward,
    "dpo": dpo,
    "ppo": lambda: policy(gae, [NormaliseScore(), RewardKL().shape_rewards], critic=True),
    "grpo": lambda: policy(grpo, [], critic=False),
}
STEPS = {"sft": 6, "reward": 6, "dpo": 6, "ppo": UPDATES, "grpo": UPDATES}


def trainer_of(epochs: int, *callbacks: L.Callback, devices: int = 1, clip: bool = True, **more: Any) -> L.Trainer:
    warnings.filterwarnings("ignore")
    return L.Trainer(
        accelerator="cpu", devices=devices, max_epochs=epochs, callbacks=list(callbacks), enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, gradient_clip_val=1.0 if clip else None,
        **{"logger": False, "strategy": "ddp" if devices > 1 else "auto", **more},
    )  # fmt: skip


def trained(
    kind: str, folder: Path | None, *callbacks: L.Callback, every: int = 1, keep: int = 99, log: Callable[[str], None] = print, **more: Any
) -> dict[str, str]:
    """Hashes of what a training leaves; without a folder it is Lightning's own, without checkpoints."""
    L.seed_everything(7 + int(os.environ.get("LOCAL_RANK", 0)), verbose=False)
    module, data, epochs = KINDS[kind]()
    trainer = trainer_of(epochs, *callbacks, clip=module.automatic_optimization, **more)
    if folder is None:
        trainer.fit(module, data)
    else:
        fit(trainer, module, data, folder=folder, every=every, keep=keep, log=log)
    return left_by(trainer, module)


def left_by(trainer: L.Trainer, module: Any) -> dict[str, str]:
    """The SHA-256 of every part of the state: bitwise equality, part by part."""
    schedules = [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs]
    left = {
        "weights": module.state_dict(), "optimizer": [optimizer.state_dict() for optimizer in trainer.optimizers], "schedule": schedules,
        "random": random_state(), "history": module.history, "steps": [trainer.global_step, trainer.current_epoch],
    }  # fmt: skip
    return {name: hashlib.sha256(repr(plain(part)).encode()).hexdigest() for name, part in left.items()}


def plain(value: Any) -> Any:
    """Tensors as their bytes."""
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), value.detach().contiguous().cpu().numpy().tobytes().hex()]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


class Kills(L.Callback):
    """Ends the process, or sends it a signal, within a step."""

    def __init__(self, step: int, number: int, rank: int = 0) -> None:
        self.step, self.number, self.rank = step, number, rank

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.step and trainer.global_rank == self.rank:
            os.kill(os.getpid(), self.number)


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("kind", choices=KINDS)
    words.add_argument("folder", type=Path)
    words.add_argument("--every", type=int, default=1)
    words.add_argument("--keep", type=int, default=2)
    words.add_argument("--devices", type=int, default=1)
    words.add_argument("--signal", type=int, nargs=3, metavar=("STEP", "NUMBER", "RANK"))
    given = words.parse_args()
    torch.set_num_threads(1)
    kills = [Kills(*given.signal)] if given.signal else []
    try:
        left = trained(given.kind, given.folder, *kills, every=given.every, keep=given.keep, devices=given.devices)
    except UserError as error:
        sys.exit(f"error: {error}")
    os.write(1, (json.dumps(left) + "\n").encode())  # at once: two processes share the pipe


if __name__ == "__main__":
    code: object = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    if isinstance(code, int) and torch.distributed.is_initialized():
        sys.stdout.flush()
        os._exit(code)  # as the program does (cli.program)
    sys.exit(code)  # type: ignore[arg-type]
