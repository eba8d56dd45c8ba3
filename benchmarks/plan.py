"""Compare the range of stage=plan with the memory that trainings take.

    python benchmarks/plan.py [--cases "ppo|dpo"] [--sizes tiny,gpt2] [--rounds 2] [--plain-heap]

Each training is the real train.py in a process of its own, on the CPU; its peak is the process's maximum resident memory (result.json).
Each plan is `train.py stage=plan` with the same words and environment. --plain-heap leaves glibc's heap as it is, which keeps freed blocks,
more or less of them from run to run; without it MALLOC_MMAP_THRESHOLD_ returns them. --rounds shows the spread. The last line counts the
measured peaks in their planned range.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
MIB = 2**20
SIZES = {
    "small": ("gpt2", dict(n_layer=4, n_embd=256, n_head=4)),
    "gpt2": ("gpt2", dict(n_layer=8, n_embd=512, n_head=8)),
    "gpt2-small": ("gpt2", dict(n_layer=12, n_embd=768, n_head=12, vocab_size=50257)),
    "llama": (
        "llama",
        dict(num_hidden_layers=8, hidden_size=512, num_attention_heads=8, num_key_value_heads=4, intermediate_size=1408),
    ),
}
VOCABULARY, POSITIONS = 8192, 512
CASES = {
    "sft": ("sft", ["sft.epochs=1"]),
    "reward": ("reward", ["reward.epochs=1"]),
    "dpo": ("preference", ["preference.epochs=1", "preference.batch_size=16"]),
    "ppo": ("ppo", []),
    "ppo, separate": ("ppo", ["policy_critic=separate"]),
    "ppo, micro": ("ppo", ["ppo.micro_batch_size=4"]),
    "ppo, lora": ("ppo", ["policy_tuning=lora"]),
    "grpo": ("ppo", ["advantage=grpo", "policy_kl=loss"]),
    **{
        f"{name}, checkpointing": (name, [f"{name}.{setting}", "backbone.activation_checkpointing=true"])
        for name, setting in (("sft", "epochs=1"), ("reward", "epochs=1"), ("ppo", "epochs=1"))
    },
}


def write_models(folder: Path, size: str) -> None:
    """A policy and a classifier of random weights, and a tokenizer of made-up words."""
    import torch
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, GPT2Config, LlamaConfig

    from rlhf_lightning.backbone.tiny import byte_level_bpe

    family, shape = SIZES[size]
    tokenizer = byte_level_bpe([words(random.Random(0), 60_000)], VOCABULARY)
    ids = dict(bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    shared: dict[str, Any] = dict(vocab_size=len(tokenizer), **ids)
    if family == "gpt2":
        config: Any = GPT2Config(n_positions=POSITIONS, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, num_labels=1, **{**shared, **shape})
    else:
        config = LlamaConfig(max_position_embeddings=POSITIONS, tie_word_embeddings=True, num_labels=1, **shape, **shared)
    torch.manual_seed(0)
    for name, kind in (("policy", AutoModelForCausalLM), ("reward", AutoModelForSequenceClassification)):
        kind.from_config(config).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def words(rng: random.Random, count: int) -> str:
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in "aeiou"]
    return " ".join("".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(count))


def write_texts(folder: Path, count: int) -> None:
    rng = random.Random(1)
    rows = [
        {"prompt": words(rng, rng.randint(8, 24)), "chosen": words(rng, rng.randint(20, 90)), "rejected": words(rng, rng.randint(20, 90))}
        for _ in range(count)
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "prompts.jsonl").write_text("".join(json.dumps({"prompt": r["prompt"], "response": r["chosen"]}) + "\n" for r in rows))


def case_overrides(case: str, size: str, folder: Path) -> list[str]:
    """The overrides of a case's command, without its stage."""
    stage, options = CASES[case]
    overrides = [] if size == "tiny" else ["backbone=causal", f"backbone.path={folder / size / 'policy'}"]
    prompts = folder / "prompts.jsonl"
    overrides += ["task=files", f"task.prompts={prompts}", f"task.demonstrations={prompts}"]
    if size == "tiny":
        overrides += [f"backbone.positions={POSITIONS}"]
    if stage in ("reward", "preference"):
        overrides += ["feedback_source=jsonl", f"feedback_source.jsonl.path={folder / 'pairs.jsonl'}", "feedback_format=[pairwise]"]
    if stage == "ppo":
        scorer = folder / ("small" if size == "tiny" else size) / "reward"
        overrides += ["rollout_scorer=reward_model", f"rollout_scorer.reward_model.path={scorer}"]
        overrides += ["ppo.updates=3", "ppo.prompts_per_update=32"]
        overrides += ["ppo.responses_per_prompt=2", "ppo.epochs=1"]
    return [*overrides, *options, "evaluation.responses=64", "rollout_sampler.max_new_tokens=64", "feedback_filter=[]"]


def run(overrides: list[str], folder: Path, threads: int, plain: bool) -> dict[str, Any]:
    """Run train.py; returns its result: peak_bytes, and the seconds of its parts."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    if not plain:
        environment["MALLOC_MMAP_THRESHOLD_"] = str(MIB)
    command = [sys.executable, str(ROOT / "train.py"), *overrides, f"hydra.run.dir={folder}"]
    with (folder.parent / f"{folder.name}.txt").open("w") as log:
        process = subprocess.run(command, cwd=folder.parent, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    if process.returncode:
        raise SystemExit((folder.parent / f"{folder.name}.txt").read_text()[-3000:])
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return result


def compare(case: str, size: str, folder: Path, rounds: int, threads: int, plain: bool) -> dict[str, Any]:
    """The planned range and the measured peaks of a case, in MiB."""
    overrides = case_overrides(case, size, folder)
    stage = CASES[case][0]
    work = Path(tempfile.mkdtemp(prefix=f"{stage}-", dir=folder))
    run(["stage=plan", f"plan.job={stage}", "plan.switches=false", *overrides], work / "plan", threads, plain)
    planned = json.loads((work / "plan" / "plan.json").read_text())
    results = [run([f"stage={stage}", *overrides], work / f"run{i}", threads, plain) for i in range(rounds)]
    peaks, seconds = [result["peak_bytes"] / MIB for result in results], [result["seconds"][stage] for result in results]
    low, high = planned["peak"]["low"] / MIB, planned["peak"]["high"] / MIB
    return {
        "low": low,
        "high": high,
        "base": planned["base"]["low"] / MIB,
        "peaks": peaks,
        "seconds": seconds,
        "inside": [low <= p <= high for p in peaks],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default="sft|reward|dpo|ppo|ppo, separate|grpo", help=f"of {'|'.join(CASES)}")
    parser.add_argument("--sizes", default="tiny,small,gpt2,llama")
    parser.add_argument("--texts", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--plain-heap", action="store_true")
    args = parser.parse_args()
    inside: list[bool] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_texts(folder, args.texts)
        for size in dict.fromkeys(["small", *args.sizes.split(",")]):
            if size in SIZES:
                write_models(folder / size, size)
        print(f"{'size':<12}{'case':<24}{'at least':>9}{'at most':>9}{'base':>7}   measured, MiB and seconds of the stage")
        for size in args.sizes.split(","):
            for case in args.cases.split("|"):
                result = compare(case, size, folder, args.rounds, args.threads, args.plain_heap)
                inside += result["inside"]
                peaks = ", ".join(f"{peak:.0f} ({s:.0f} s)" for peak, s in zip(result["peaks"], result["seconds"], strict=True))
                print(f"{size:<12}{case:<24}{result['low']:9.0f}{result['high']:9.0f}{result['base']:7.0f}   {peaks}", flush=True)
    print(f"{sum(inside)} of {len(inside)} measured peaks are in their range")


if __name__ == "__main__":
    main()
