"""Our side of throughput.py, in a process of its own: `SPEC.json`; one JSON line at the end.

PPOModule, RewardModule and PreferenceModule in a Lightning Trainer, timed from outside.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Spec = dict[str, Any]
Made = tuple[Any, Any, Callable[[], dict[str, Any]]]
"""A module, its loader, and what is to be told after the training."""


def trained(spec: Spec) -> dict[str, Any]:
    """The seconds and tokens of every step, the peak of memory, and what else the work says."""
    import lightning as L
    from lightning.pytorch.loggers import CSVLogger

    from rlhf_lightning.optimizer.adamw import adamw
    from rlhf_lightning.runtime.run import hush_hints
    from rlhf_lightning.schedule.constant import constant
    from rlhf_lightning.training.datamodule import ShardedData
    from rlhf_lightning.training.optimizer import Optimization

    clock = CLOCKS[spec["clock"]]

    class Clock(L.Callback):
        """Seconds from the end of one step to the end of the next."""

        def __init__(self) -> None:
            self.seconds: list[float] = []

        def on_train_start(self, trainer: Any, module: Any) -> None:
            self.end = clock()

        def on_train_batch_end(self, *args: Any) -> None:
            now = clock()
            self.seconds.append(now - self.end)
            self.end = now

    hush_hints()
    L.seed_everything(0, verbose=False)
    module, loader, metrics = {"grpo": grpo, "reward": reward, "dpo": dpo}[spec["work"]](spec)
    eps = spec["adam_eps"] if spec["work"] == "grpo" else None
    module.optimization = Optimization(partial(adamw, eps=eps, weight_decay=0.0), partial(constant, warmup=0))
    timer = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, precision="32-true", logger=CSVLogger(folder), callbacks=[timer],
            gradient_clip_val=None if spec["work"] == "grpo" else spec["max_grad_norm"], enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, ShardedData(lambda rank, world: loader))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": timer.seconds, "peak_gib": peak, **metrics()}


def grpo(spec: Spec) -> Made:
    from torch.utils.data import DataLoader

    from rlhf_lightning.advantage.grpo import grpo as by_group
    from rlhf_lightning.backbone.causal import causal
    from rlhf_lightning.policy.experience import PPOComponents
    from rlhf_lightning.policy.kl.loss import LossKL
    from rlhf_lightning.policy.kl_control.fixed import FixedKL
    from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
    from rlhf_lightning.policy.model import Policy
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.policy.objective import objective
    from rlhf_lightning.policy.reduction.token_mean import token_mean
    from rlhf_lightning.policy.settings import PPOSettings
    from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
    from rlhf_lightning.rollout.sampler.native import native
    from rlhf_lightning.rollout.scorer.reward_model import RewardModelScorer

    folder = Path(spec["models"]) / spec["size"]
    policy, reference = (causal((), path=str(folder / "policy")) for _ in range(2))
    settings = PPOSettings(
        updates=spec["steps"], prompts_per_update=spec["prompts"], responses_per_prompt=spec["responses"], epochs=1,
        num_minibatches=spec["minibatches"], learning_rate=spec["learning_rate"], max_grad_norm=spec["max_grad_norm"],
    )  # fmt: skip
    loss = objective(partial(ppo_clip, clip_ratio=spec["clip"]), None, LossKL(estimator="k3", weighted=True).per_token_loss)
    parts = PPOComponents(
        sampler=partial(native, max_new_tokens=spec["tokens"]), scorer=RewardModelScorer(path=str(folder / "reward")), shapings=[],
        advantage=partial(by_group, eps=spec["std_eps"]), loss=loss, reduction=token_mean, value_loss=clipped_value_loss,
        kl_control=FixedKL(coef=spec["kl_coef"]),
    )  # fmt: skip
    module = PPOModule(Policy(policy), Policy(reference), parts, settings)
    encode = partial(policy.encode_prompts, max_new_tokens=spec["tokens"])
    loader = DataLoader(spec["prompt_texts"], batch_size=spec["prompts"], collate_fn=encode)
    responses = spec["prompts"] * spec["responses"]
    return module, loader, lambda: {"tokens": [update["val/response_length"] * responses for update in module.history]}


def reward(spec: Spec) -> Made:
    from torch.utils.data import DataLoader

    from rlhf_lightning.feedback.batch import collate
    from rlhf_lightning.feedback.judgements import standardise
    from rlhf_lightning.model.trunk import load_trunk, trunk_width
    from rlhf_lightning.reward.head.linear import LinearHead
    from rlhf_lightning.reward.loss.bradley_terry import BradleyTerry
    from rlhf_lightning.reward.model import RewardModel
    from rlhf_lightning.reward.module import RewardModule
    from rlhf_lightning.reward.net import ComposedScore
    from rlhf_lightning.reward.pooling.last import last
    from rlhf_lightning.reward.settings import RewardSettings
    from rlhf_lightning.reward.storage.warm_start import warm_start

    folder = str(Path(spec["models"]) / spec["size"] / "reward")
    trunk, tokenizer = load_trunk(folder, "decoder")
    net, _ = warm_start(folder, ComposedScore(trunk, last, LinearHead(trunk_width(trunk))), "last")
    model, tokens = RewardModel(net, tokenizer, spec["max_length"]), []
    judged = standardise(feedback_of(spec))
    module = RewardModule(model, [BradleyTerry()], RewardSettings(**supervised(spec)), spec["steps"])

    def batch(rows: list[Any]) -> Any:
        found = collate(rows, model)
        tokens.append(float(found.tokens.lengths.sum()))
        return found

    loader: Any = DataLoader(judged, batch_size=spec["pairs"], collate_fn=batch)  # type: ignore[arg-type]
    return module, loader, lambda: {"tokens": tokens, "losses": [step["reward/loss"] for step in module.history]}


def dpo(spec: Spec) -> Made:
    import numpy as np
    from torch.utils.data import DataLoader

    from rlhf_lightning.backbone.causal import causal
    from rlhf_lightning.feedback.judgements import standardise
    from rlhf_lightning.preference.examples import TextTable, batch_of, compared_examples
    from rlhf_lightning.preference.loss.dpo import DPO
    from rlhf_lightning.preference.module import PreferenceModule
    from rlhf_lightning.preference.settings import PreferenceSettings

    clock = CLOCKS[spec["clock"]]

    class Timed(PreferenceModule):
        """PreferenceModule with a clock around the reading of the reference."""

        def on_train_start(self) -> None:
            start = clock()
            super().on_train_start()
            self.reading = clock() - start

    policy, tokens = causal((), path=str(Path(spec["models"]) / spec["size"] / "policy")), []
    table = TextTable(policy.tokenizer, spec["max_length"])
    examples = compared_examples(standardise(feedback_of(spec)), table)
    settings = PreferenceSettings(**supervised(spec))
    module = Timed(policy, DPO(beta=spec["beta"]), settings, spec["steps"], table, examples.texts())

    def batch(rows: list[int]) -> Any:
        found = batch_of(examples, table, np.array(rows))
        tokens.append(float(found.tokens.lengths.sum()))
        return found

    loader: Any = DataLoader(range(len(examples)), batch_size=spec["pairs"], collate_fn=batch)  # type: ignore[arg-type]
    return module, loader, lambda: {"tokens": tokens, "losses": [step["loss"] for step in module.history], "before": module.reading}


def feedback_of(spec: Spec) -> list[Any]:
    from rlhf_lightning.flow import Feedback, Ranking

    rank = Ranking(ranks=(1, 2))
    return [Feedback(prompt=p["prompt"], responses=(p["chosen"], p["rejected"]), judgement=rank) for p in spec["pair_texts"]]


def supervised(spec: Spec) -> dict[str, Any]:
    """The settings that training of reward model and preferences share."""
    names = ("learning_rate", "max_grad_norm", "max_length")
    return {name: spec[name] for name in names} | {"epochs": 1} | {"batch_size": spec["pairs"]}


def main() -> None:
    import torch

    spec = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(spec["threads"])
    print(json.dumps(trained(spec)))


if __name__ == "__main__":
    main()
