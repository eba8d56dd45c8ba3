"""How fast an iteration of PPO is, side by side with TRL 1.12's: 64 prompts, up to 64 new tokens, 4 epochs of 4 minibatches.

    pip install --no-deps --target build/trl-1.12 trl==1.12.0 && pip install accelerate datasets
    python benchmarks/ppo_speed.py --models MODELS --trl build/trl-1.12 [--sizes S,L] [--sides trl,separate,shared,bf16] [--rounds 3]

MODELS holds prompts.json (lists of token ids) and, for each size, folders policy/, reward/ and value/ that transformers loads. Sides run
in turn, each in a process of its own, and again for each round; medians are over all iterations but the first of each process.
Ours is PPOModule in a Lightning Trainer with a CSV logger, scored by rollout_scorer=reward_model through text.

    trl         float32, separate value model
    separate    ours, the same (policy_critic=separate)
    shared      ours with the default, a value head on the policy's trunk
    bf16        shared under trainer.precision=bf16-mixed
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

PHASES = ("generation", "scoring", "optimisation")
SIDES = ("trl", "separate", "shared", "bf16")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
RESPONSE = 64
PROMPTS = 64


def ours(models: Path, size: str, side: str, iterations: int, clock: str) -> dict[str, Any]:
    """Run our side in this process: the seconds of each iteration by phase, its response tokens, and the peak of memory."""
    import lightning as L
    import torch
    from lightning.pytorch.loggers import CSVLogger
    from torch.utils.data import DataLoader

    from rlhf_lightning.advantage.gae import gae
    from rlhf_lightning.backbone.causal import causal
    from rlhf_lightning.flow import Prompts
    from rlhf_lightning.model.language_model import pad_rows
    from rlhf_lightning.policy.critic.separate import separate
    from rlhf_lightning.policy.critic.shared import shared_critic
    from rlhf_lightning.policy.experience import ExperienceMaker, PPOComponents
    from rlhf_lightning.policy.kl.reward import RewardKL
    from rlhf_lightning.policy.kl_control.fixed import FixedKL
    from rlhf_lightning.policy.loss.ppo_clip import ppo_clip
    from rlhf_lightning.policy.model import Policy
    from rlhf_lightning.policy.module import PPOModule
    from rlhf_lightning.policy.reduction.token_mean import token_mean
    from rlhf_lightning.policy.settings import PPOSettings
    from rlhf_lightning.policy.value_loss.clipped import clipped_value_loss
    from rlhf_lightning.rollout.sampler.native import native
    from rlhf_lightning.rollout.scorer.reward_model import RewardModelScorer
    from rlhf_lightning.runtime.run import hush_hints
    from rlhf_lightning.training.datamodule import ShardedData

    marks: list[float] = []

    class TimedMaker(ExperienceMaker):
        """ExperienceMaker that notes when generation ends."""

        def score(self, rollout: Any, baseline_scores: Any = None) -> Any:
            marks[:] = [CLOCKS[clock]()]
            return super().score(rollout, baseline_scores)

    class Timed(PPOModule):
        """PPOModule with a clock around its phases."""

        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.iterations: list[dict[str, float]] = []
            self.end = 0.0

        def on_train_start(self) -> None:
            self.end = CLOCKS[clock]()

        @property
        def experience_maker(self) -> ExperienceMaker:
            return TimedMaker(**vars(super().experience_maker))

        def update_policy(self, experience: Any) -> Any:
            marks.append(CLOCKS[clock]())
            self.tokens = float(experience.response_mask.sum())
            metrics = super().update_policy(experience)
            marks.append(CLOCKS[clock]())
            return metrics

        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.begin = CLOCKS[clock]()

        def on_train_batch_end(self, *args: Any) -> None:
            now = CLOCKS[clock]()
            spent = [b - a for a, b in zip([self.begin, *marks], marks, strict=False)]
            self.iterations.append({**dict(zip(PHASES, spent, strict=True)), "tokens": self.tokens, "seconds": now - self.end})
            self.end = now

    hush_hints()
    L.seed_everything(0, verbose=False)
    policy, reference = (causal((), path=str(models / size / "policy")) for _ in range(2))
    settings = PPOSettings(
        updates=iterations, prompts_per_update=PROMPTS, responses_per_prompt=1, epochs=4, num_minibatches=4, learning_rate=1e-6,
    )  # fmt: skip
    parts = PPOComponents(
        sampler=partial(native, max_new_tokens=RESPONSE), scorer=RewardModelScorer(path=str(models / size / "reward")),
        shapings=[RewardKL().shape_rewards],
        advantage=partial(gae, gamma=1.0, lam=0.95), loss=ppo_clip, reduction=token_mean, value_loss=clipped_value_loss,
        kl_control=FixedKL(),
    )  # fmt: skip
    module = Timed(Policy(policy, (separate if side == "separate" else shared_critic)(policy, None)), Policy(reference), parts, settings)
    rows = json.loads((models / "prompts.json").read_text())
    texts = policy.tokenizer.batch_decode(rows)

    def loader(rank: int, world: int) -> DataLoader[Any]:
        def batch(numbers: list[int]) -> Prompts:
            ids, mask = pad_rows([rows[i] for i in numbers], policy.pad_id, pad_left=True)
            return Prompts(prompts=[texts[i] for i in numbers], prompt_ids=ids, prompt_mask=mask, group=torch.arange(len(numbers)))

        order = torch.randperm(len(rows)).tolist()
        return DataLoader(order[: PROMPTS * iterations], batch_size=PROMPTS, collate_fn=batch)

    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu", devices=1, max_epochs=1, precision="bf16-mixed" if side == "bf16" else "32-true",
            logger=CSVLogger(folder), enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, ShardedData(loader))
    return {"iterations": module.iterations, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}


def measured(given: argparse.Namespace, size: str, side: str) -> dict[str, Any]:
    """One side in a process of its own."""
    here = Path(__file__).resolve()
    command = [sys.executable, str(here), "--only", side]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(given.threads)}
    if side == "trl":
        command = [sys.executable, str(here.with_name("ppo_speed_trl.py"))]
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(given.trl).resolve()), environment.get("PYTHONPATH", "")])
    command += ["--models", str(given.models), "--iterations", str(given.iterations), "--threads", str(given.threads)]
    command += ["--clock", given.clock]
    command += ["--size", size] if side == "trl" else ["--sizes", size]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} {size} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def table(size: str, runs: dict[str, list[dict[str, Any]]]) -> str:
    """Medians by side, and ratios to TRL's."""
    lines = [
        f"{size:<3}{'side':<10}{'s/iter':>8}{'us/token':>10}{'generation':>12}{'scoring':>9}{'optimis.':>10}{'rest':>7}{'peak GiB':>10}"
    ]
    middle: dict[str, dict[str, float]] = {}
    for side, results in runs.items():
        kept = [iteration for result in results for iteration in result["iterations"][1:]]
        own = {name: statistics.median(i[name] for i in kept) for name in (*PHASES, "seconds")}
        own["rest"] = statistics.median(i["seconds"] - sum(i[phase] for phase in PHASES) for i in kept)
        own["token"] = statistics.median(1e6 * i["seconds"] / i["tokens"] for i in kept)
        own["peak"] = max(result["peak_gib"] for result in results)
        middle[side] = own
        lines.append(
            f"   {side:<10}{own['seconds']:8.3f}{own['token']:10.0f}{own['generation']:12.3f}{own['scoring']:9.3f}"
            f"{own['optimisation']:10.3f}{own['rest']:7.3f}{own['peak']:10.2f}"
        )
    peer = middle.pop("trl", None)
    for side, own in middle.items() if peer else ():
        ratios = {name: peer[name] / own[name] for name in ("seconds", "token", *PHASES)}
        said = "  ".join(f"{name} {ratio:.2f}x" for name, ratio in ratios.items())
        lines.append(f"   {side} against trl: {said}  memory {own['peak'] / peer['peak']:.2f}x")
    if "bf16" in middle and "shared" in middle:
        lines.append(f"   bf16 against float32, shared: {middle['shared']['token'] / middle['bf16']['token']:.2f}x per token")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--trl", type=Path)
    parser.add_argument("--sizes", default="S,L")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=4, help="of each process; the first warms up")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=CLOCKS, default="wall", help="cpu: of the process, with --threads 1, where others use the machine"
    )
    parser.add_argument("--only", choices=SIDES[1:], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        import torch

        torch.set_num_threads(given.threads)
        print(json.dumps(ours(given.models, given.sizes, given.only, given.iterations, given.clock)))
        return
    sides = given.sides.split(",")
    if "trl" in sides and given.trl is None:
        parser.error("--trl says where TRL 1.12 is installed; or leave it out of --sides")
    for size in given.sizes.split(","):
        runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(given.rounds):
            for side in sides:
                runs[side].append(measured(given, size, side))
        print(table(size, runs), flush=True)


if __name__ == "__main__":
    main()
