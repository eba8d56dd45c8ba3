"""TRL 1.12's side of ppo_speed.py, in a process of its own: `--models DIR --size S --iterations N --threads T
--clock wall|cpu`; one JSON line at the end.

TRL's own PPOTrainer, timed from outside: generation is `batch_generation`, scoring what follows until the advantages are whitened, and
optimisation the rest of an iteration.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(TRL_EXPERIMENTAL_SILENCE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from datasets import Dataset  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback  # noqa: E402
from transformers.utils import logging  # noqa: E402
from trl.experimental.ppo import PPOConfig, PPOTrainer  # noqa: E402
from trl.experimental.ppo import ppo_trainer as inner  # noqa: E402


class Clock(TrainerCallback):
    """The seconds of each iteration and of its phases, and the response tokens up to and with the first EOS."""

    def __init__(self, eos: int, clock: Callable[[], float]) -> None:
        self.eos, self.clock = eos, clock
        self.iterations: list[dict[str, float]] = []
        self.generate, self.whiten = inner.batch_generation, inner.masked_whiten
        inner.batch_generation, inner.masked_whiten = self._generated, self._whitened

    def _generated(self, *args: Any, **rest: Any) -> Any:
        start = self.clock()
        out = self.generate(*args, **rest)
        self.after_generation = self.clock()
        response = out[0][:, -out[1].shape[1] :]
        before = (response == self.eos).long().cumsum(1) - (response == self.eos).long()
        self.now = {"generation": self.after_generation - start, "tokens": float((before == 0).sum())}
        return out

    def _whitened(self, *args: Any, **rest: Any) -> Any:
        out = self.whiten(*args, **rest)
        self.after_scoring = self.clock()
        self.now["scoring"] = self.after_scoring - self.after_generation
        return out

    def on_train_begin(self, *args: Any, **rest: Any) -> None:
        self.start = self.clock()

    def on_step_end(self, *args: Any, **rest: Any) -> None:
        now = self.clock()
        self.iterations.append({**self.now, "optimisation": now - self.after_scoring, "seconds": now - self.start})
        self.start = now


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--size", required=True)
    parser.add_argument("--iterations", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    given = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(given.threads)
    folder = given.models / given.size
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy", padding_side="left")
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32) for _ in range(2))
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(folder / name, num_labels=1, dtype=torch.float32) for name in ("reward", "value")
    )
    prompts = json.loads((given.models / "prompts.json").read_text())
    data = Dataset.from_dict({"input_ids": prompts})
    config = PPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=64, gradient_accumulation_steps=1, num_mini_batches=4,
        num_ppo_epochs=4, total_episodes=64 * given.iterations, response_length=64, stop_token="eos", temperature=1.0,
        local_rollout_forward_batch_size=64, num_sample_generations=0, learning_rate=1e-6, bf16=False, gradient_checkpointing=False,
        report_to=[], save_strategy="no", use_cpu=True, seed=0, logging_steps=1, disable_tqdm=True, missing_eos_penalty=None,
    )  # fmt: skip
    clock = Clock(tokenizer.eos_token_id, time.process_time if given.clock == "cpu" else time.perf_counter)
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward, value_model=value,
        train_dataset=data, eval_dataset=data.select(range(4)), callbacks=[clock],
    )  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):
        trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({"iterations": clock.iterations, "peak_gib": peak}))


if __name__ == "__main__":
    main()
