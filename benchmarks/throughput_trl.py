"""TRL 1.16's side of throughput.py, in a process of its own: `SPEC.json`; one JSON line at the end.

TRL's own GRPOTrainer, RewardTrainer and DPOTrainer, timed from outside.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import resource
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1")
warnings.filterwarnings("ignore")

import torch  # noqa: E402
from datasets import Dataset, disable_progress_bars  # noqa: E402
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback  # noqa: E402
from transformers.utils import logging  # noqa: E402
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, RewardConfig, RewardTrainer  # noqa: E402

Spec = dict[str, Any]


class Clock(TrainerCallback):
    """Seconds from the end of one step to the end of the next; the loss and the tokens that TRL logs for each."""

    def __init__(self, clock: Any, every: int) -> None:
        self.clock, self.every = clock, every
        self.seconds: list[float] = []
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, *args: Any, **rest: Any) -> None:
        self.end = self.clock()

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        if "loss" in logs:
            self.logs.append(dict(logs))
            # The log comes after on_step_end, and ours is in the step, too.
            if state.global_step % self.every == 0:
                now = self.clock()
                self.seconds.append(now - self.end)
                self.end = now


def common(spec: Spec, steps: int) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(), "max_steps": steps, "learning_rate": spec["learning_rate"], "lr_scheduler_type": "constant",
        "weight_decay": 0.0, "adam_beta1": 0.9, "adam_epsilon": spec["adam_eps"], "max_grad_norm": spec["max_grad_norm"],
        "gradient_accumulation_steps": 1, "bf16": False, "gradient_checkpointing": False, "report_to": [], "save_strategy": "no",
        "use_cpu": True, "seed": 0, "logging_steps": 1, "disable_tqdm": True, "dataloader_pin_memory": False,
    }  # fmt: skip


def grpo(spec: Spec, folder: Path, tokenizer: Any, clock: Clock) -> Any:
    policy = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    reward = AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1, dtype=torch.float32)
    batch = spec["prompts"] * spec["responses"] // spec["minibatches"]
    config = GRPOConfig(
        **common(spec, spec["steps"] * spec["minibatches"]), per_device_train_batch_size=batch, steps_per_generation=spec["minibatches"],
        num_generations=spec["responses"], max_completion_length=spec["tokens"], beta=spec["kl_coef"], num_iterations=1,
        epsilon=spec["clip"], loss_type="bnpo", scale_rewards="group", temperature=1.0, shuffle_dataset=False, adam_beta2=0.999,
    )  # fmt: skip
    data = Dataset.from_dict({"prompt": spec["prompt_texts"]})
    return GRPOTrainer(
        model=policy, reward_funcs=reward, args=config, train_dataset=data, processing_class=tokenizer,
        reward_processing_classes=AutoTokenizer.from_pretrained(folder / "reward"), callbacks=[clock],
    )  # fmt: skip


def reward(spec: Spec, folder: Path, tokenizer: Any, clock: Clock) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(folder / "reward", num_labels=1, dtype=torch.float32)
    config = RewardConfig(
        **common(spec, spec["steps"]), per_device_train_batch_size=spec["pairs"], max_length=spec["max_length"], adam_beta2=0.95,
        train_sampling_strategy="sequential",
    )  # fmt: skip
    data = Dataset.from_list(spec["pair_texts"])
    return RewardTrainer(model=model, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[clock])


def dpo(spec: Spec, folder: Path, tokenizer: Any, clock: Clock) -> Any:
    class Timed(DPOTrainer):
        """DPOTrainer with a clock around the reading of the reference, and a count of tokens."""

        def _precompute_ref_logps(self, *args: Any) -> Any:
            start = clock.clock()
            found = super()._precompute_ref_logps(*args)
            self.reading = clock.clock() - start
            return found

    policy = AutoModelForCausalLM.from_pretrained(folder / "policy", dtype=torch.float32)
    config = DPOConfig(
        **common(spec, spec["steps"]), per_device_train_batch_size=spec["pairs"], max_length=spec["max_length"], beta=spec["beta"],
        loss_type=["sigmoid"], precompute_ref_log_probs=True, adam_beta2=0.95, train_sampling_strategy="sequential",
    )  # fmt: skip
    data = Dataset.from_list(spec["pair_texts"])
    return Timed(model=policy, args=config, train_dataset=data, processing_class=tokenizer, callbacks=[clock])


def main() -> None:
    spec = json.loads(Path(sys.argv[1]).read_text())
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    disable_progress_bars()
    torch.set_num_threads(spec["threads"])
    folder, work = Path(spec["models"]) / spec["size"], spec["work"]
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")
    clock = Clock(time.process_time if spec["clock"] == "cpu" else time.perf_counter, spec["minibatches"] if work == "grpo" else 1)
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = {"grpo": grpo, "reward": reward, "dpo": dpo}[work](spec, folder, tokenizer, clock)
        trainer.train()
    found: dict[str, Any] = {"seconds": clock.seconds, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if work == "grpo":
        lengths = [log["completions/mean_length"] for log in clock.logs if "completions/mean_length" in log]
        found["tokens"] = [length * spec["prompts"] * spec["responses"] for length in lengths[:: len(lengths) // spec["steps"]]]
    else:
        total = [0.0, *(log["num_tokens"] for log in clock.logs)]
        found["tokens"] = [after - before for before, after in itertools.pairwise(total)]
        found["losses"] = [log["loss"] for log in clock.logs]
    if work == "dpo":
        found["before"] = trainer.reading
    print(json.dumps(found))


if __name__ == "__main__":
    main()
