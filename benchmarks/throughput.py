"""Throughput of GRPO, reward-model and DPO training, side by side with TRL 1.16's on the same work, in float32.

    pip install --no-deps --target build/trl-1.16 'trl==1.16.*' && pip install accelerate datasets
    python benchmarks/throughput.py --models MODELS --trl build/trl-1.16 [--works grpo,reward,dpo] [--sizes S,L] [--rounds 2]

MODELS holds prompts.json and pairs.json (token ids, read as texts here) and, for each size, folders policy/ and reward/ that transformers
loads. Sides run in turn, each in a process of its own, and again for each round; medians are over all steps but the first WARM_UP of each
process. Batches, their order, AdamW's settings, gradient clipping and the constant learning rate are the same; both log every step.

    grpo     16 prompts, 4 responses each of up to 64 tokens, scored by a reward model; 4 minibatches once; the KL (k3) in the loss.
             A step is a whole iteration, and its tokens those of the responses
    reward   32 pairs a step, Bradley-Terry. Tokens are those of prompts and responses
    dpo      the same pairs; the reference's log-probabilities are taken before the first step on both sides, and timed apart ("s before")

Ours are PPOModule, RewardModule and PreferenceModule in a Lightning Trainer with a CSV logger. TRL runs without gradient checkpointing,
which is its default and would cost it a fifth, and with precompute_ref_log_probs; 1.16 has its padding_free switched off.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

WORKS = ("grpo", "reward", "dpo")
SIDES = ("trl", "ours")
WARM_UP = {"grpo": 1, "reward": 2, "dpo": 2}
STEPS = {"grpo": 4, "reward": 6, "dpo": 6}
WORK = {
    "prompts": 16, "responses": 4, "tokens": 64, "minibatches": 4, "kl_coef": 0.04, "clip": 0.2, "std_eps": 1e-4, "pairs": 32,
    "beta": 0.1, "learning_rate": 1e-5, "max_grad_norm": 1.0, "adam_eps": 1e-8, "max_length": 512,
}  # fmt: skip
"""What both sides are given."""

Spec = dict[str, Any]


def texts_of(models: Path, spec: Spec) -> dict[str, Any]:
    """Prompts, and pairs whose responses begin with a space: prompt and response have the same ids apart and together."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(models / spec["size"] / "policy")
    prompts = json.loads((models / "prompts.json").read_text())[: spec["prompts"] * spec["steps"]]
    pairs = json.loads((models / "pairs.json").read_text())[: spec["pairs"] * spec["steps"]]

    def text(ids: list[int]) -> str:
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()

    return {
        "prompt_texts": [text(row) for row in prompts],
        "pair_texts": [
            {"prompt": text(pair["prompt"]), "chosen": " " + text(pair["chosen"]), "rejected": " " + text(pair["rejected"])}
            for pair in pairs
        ],
    }


def measured(given: argparse.Namespace, work: str, size: str, side: str) -> dict[str, Any]:
    """One side in a process of its own."""
    here = Path(__file__).resolve()
    steps = given.steps or STEPS[work]
    spec = {**WORK, "work": work, "size": size, "models": str(given.models.resolve()), "steps": steps, "clock": given.clock,
            "threads": given.threads}  # fmt: skip
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(given.threads)}
    command = [sys.executable, str(here.with_name(f"throughput_{side}.py"))]
    if side == "trl":
        environment["PYTHONPATH"] = os.pathsep.join([str(given.trl.resolve()), environment.get("PYTHONPATH", "")])
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({**spec, **texts_of(given.models, spec)}, file)
        file.flush()
        done = subprocess.run([*command, file.name], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{work} {size} {side} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def rows(work: str, size: str, runs: dict[str, list[dict[str, Any]]]) -> list[str]:
    """The table's rows of a work: medians by side, and how many times TRL's throughput ours is."""
    samples = WORK["prompts"] * WORK["responses"] if work == "grpo" else WORK["pairs"]
    lines, rate, speed, peak, reading = [], {}, {}, {}, {}
    for side, results in runs.items():
        kept = [
            (seconds, tokens) for r in results for seconds, tokens in list(zip(r["seconds"], r["tokens"], strict=True))[WARM_UP[work] :]
        ]
        seconds = statistics.median(second for second, _ in kept)
        speed[side] = samples / seconds
        rate[side] = statistics.median(tokens / second for second, tokens in kept)
        peak[side] = max(result["peak_gib"] for result in results)
        first = f"{results[0]['losses'][0]:.5f}" if results[0].get("losses") else "-"
        reading[side] = statistics.median(result.get("before", 0.0) for result in results)
        lines.append(
            f"| {work} | {size} | {side} | {len(kept)} | {statistics.mean(tokens for _, tokens in kept):.0f} | {seconds:.3f} | "
            f"{speed[side]:.1f} | {rate[side]:.0f} | {reading[side]:.2f} | {peak[side]:.2f} | {first} | {apart(runs)} |"
        )
    if "trl" in rate and "ours" in rate:
        sooner = f"{reading['trl'] / reading['ours']:.2f}x" if reading["ours"] else ""
        lines.append(
            f"| {work} | {size} | ours against trl | | | | {speed['ours'] / speed['trl']:.2f}x | {rate['ours'] / rate['trl']:.2f}x | "
            f"{sooner} | {peak['ours'] / peak['trl']:.2f}x | | |"
        )
    return lines


def apart(runs: dict[str, list[dict[str, Any]]]) -> str:
    """The largest difference between both sides' losses of the same step."""
    losses = [results[0].get("losses") for results in runs.values() if results]
    if len(losses) < 2 or not all(losses):
        return "-"
    return f"{max(abs(a - b) for a, b in zip(*losses, strict=True)):.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--trl", type=Path)
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--sizes", default="S,L")
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, help=f"of each process, the first ones ({WARM_UP}) to warm up; default {STEPS}")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: of the process, with --threads 1, where others use the machine"
    )
    given = parser.parse_args()
    sides = given.sides.split(",")
    if "trl" in sides and given.trl is None:
        parser.error("--trl says where TRL 1.16 is installed; or leave it out of --sides")
    print(
        f"Seconds are of the {given.clock} clock, {given.threads} threads, medians of {given.rounds} processes a side.\n\n"
        "| work | size | side | steps | tokens a step | s a step | samples/s | tokens/s | s before | peak GiB | first loss | "
        "losses apart |\n" + "|---" * 12 + "|",
        flush=True,
    )
    for work in given.works.split(","):
        for size in given.sizes.split(","):
            runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
            for _ in range(given.rounds):
                for side in sides:
                    runs[side].append(measured(given, work, size, side))
            print("\n".join(rows(work, size, runs)), flush=True)


if __name__ == "__main__":
    main()
