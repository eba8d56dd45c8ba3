"""SFT, DPO and lexicon PPO on a pretrained story model, measured with plain transformers.

    python benchmarks/stories.py --model MODEL --prompts prompts.jsonl.gz --lexicon lexicon.tsv --out build/stories [--seeds 3]

MODEL is the folder of a small causal language model, the prompts file has the fields `prompt` and `sample` (a story that begins with the
prompt), the lexicon is that of rollout_scorer=lexicon. A fifth of the prompts is held out by hash.

- sft: stage=sft on the samples' continuations.
- dpo: four continuations of each prompt are sampled with transformers' generate, the lexicon picks the best and the worst, and
  stage=preference learns from the pairs.
- ppo: conf/experiment/lexicon_stories.yaml.

Per saved policy, on held-out prompts, whole texts tokenized with the tokenizer alone: the samples' continuations in nats per token, the
mean lexicon score of two continuations sampled by generate, and the share of them that begins with two spaces.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rlhf_lightning.rollout.scorer.lexicon import LexiconScorer
from rlhf_lightning.statistics.intervals import mean_interval

ROOT = Path(__file__).resolve().parents[1]
NEW_TOKENS = 64
BATCH_SIZE = 64


@dataclass
class Story:
    prompt: str
    continuation: str

    @property
    def is_held_out(self) -> bool:
        return hashlib.sha256(self.prompt.encode()).digest()[0] < 51


def read_stories(path: Path) -> list[Story]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Story(row["prompt"], row["sample"].removeprefix(row["prompt"])) for row in rows if row["sample"].startswith(row["prompt"])]


class PlainPolicy:
    """A model folder as plain transformers reads it."""

    def __init__(self, folder: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, padding_side="left")

    @torch.no_grad()
    def nats_per_token(self, stories: Sequence[Story]) -> float:
        """Mean negative log-probability of the continuations' tokens in the ids of the whole texts."""
        total, count = 0.0, 0
        for story in stories:
            ids = self.tokenizer(story.prompt + story.continuation).input_ids
            start = len(self.tokenizer(story.prompt).input_ids)
            log_probs = self.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            total -= log_probs[range(start - 1, len(ids) - 1), ids[start:]].sum().item()
            count += len(ids) - start
        return total / count

    @torch.no_grad()
    def sample(self, prompts: Sequence[str], seed: int) -> list[str]:
        """One continuation of at most NEW_TOKENS tokens per prompt, at temperature 1."""
        torch.manual_seed(seed)
        texts = []
        for start in range(0, len(prompts), BATCH_SIZE):
            batch = list(prompts[start : start + BATCH_SIZE])
            inputs = self.tokenizer(batch, return_tensors="pt", padding=True, return_token_type_ids=False)
            output = self.model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=NEW_TOKENS)
            for prompt, row in zip(batch, output, strict=True):
                texts.append(self.tokenizer.decode(row, skip_special_tokens=True).removeprefix(prompt))
        return texts


def write_rows(path: Path, rows: Sequence[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def sample_pairs(policy: PlainPolicy, stories: Sequence[Story], scorer: LexiconScorer, seed: int) -> list[dict[str, str]]:
    """For each prompt the best and the worst of four continuations by the lexicon."""
    prompts = [story.prompt for story in stories]
    columns = [policy.sample(prompts, 100 * seed + number) for number in range(4)]
    pairs = []
    for prompt, *texts in zip(prompts, *columns, strict=True):
        texts = sorted((text for text in texts if text.strip()), key=scorer.score)
        if len(texts) > 1 and scorer.score(texts[0]) < scorer.score(texts[-1]):
            pairs.append({"prompt": prompt, "chosen": texts[-1], "rejected": texts[0]})
    return pairs


def train(stage: str, folder: Path, *overrides: str) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *overrides, "backbone=causal", "logger=none", f"hydra.run.dir={folder}"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    (folder.parent / f"{folder.name}.log").write_text(result.stdout + result.stderr)
    if result.returncode:
        sys.exit(f"{stage}: {result.stderr[-2000:]}")


def measure(folder: Path, held_out: Sequence[Story], scorer: LexiconScorer) -> dict[str, float]:
    policy = PlainPolicy(folder)
    texts = policy.sample([story.prompt for story in held_out] * 2, seed=7)
    return {
        "nats per token": policy.nats_per_token(held_out),
        "lexicon score": sum(scorer.score(text) for text in texts) / len(texts),
        "two spaces": sum(text.startswith("  ") for text in texts) / len(texts),
    }


def run_seed(options: argparse.Namespace, seed: int) -> dict[str, dict[str, float]]:
    """The start and the three policies of one seed, measured."""
    out, scorer = options.out / str(seed), LexiconScorer(path=str(options.lexicon))
    stories = read_stories(options.prompts)
    training = [story for story in stories if not story.is_held_out]
    held_out = [story for story in stories if story.is_held_out]
    demonstrations, pairs = out / "demonstrations.jsonl", out / "pairs.jsonl"
    write_rows(demonstrations, [{"prompt": story.prompt, "response": story.continuation} for story in training])
    write_rows(pairs, sample_pairs(PlainPolicy(options.model), training, scorer, seed))

    start = [f"backbone.path={options.model}", f"seed={seed}"]
    files = ["task=files", f"task.prompts={demonstrations}"]
    lexicon = f"rollout_scorer.lexicon.path={options.lexicon}"
    length = f"rollout_sampler.max_new_tokens={NEW_TOKENS}"
    feedback = ["feedback_source=jsonl", f"feedback_source.jsonl.path={pairs}", "feedback_format=[pairwise]"]
    sft = ["stage=sft", f"task.demonstrations={demonstrations}", "sft.epochs=2", "sft.learning_rate=3e-4"]
    dpo = ["stage=preference", "preference.learning_rate=1e-4", length]
    train("sft", out / "sft", *sft, *files, *start)
    train("dpo", out / "dpo", *dpo, *files, *feedback, *start)
    train("ppo", out / "ppo", "experiment=lexicon_stories", f"task.prompts={demonstrations}", lexicon, *start)
    folders = {"start": options.model, **{stage: out / stage / "policy" for stage in ("sft", "dpo", "ppo")}}
    return {name: measure(folder, held_out, scorer) for name, folder in folders.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "prompts", "lexicon", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    options = parser.parse_args()
    options.out = options.out.resolve()
    runs = [run_seed(options, seed) for seed in range(options.seeds)]
    for stage in runs[0]:
        for metric in runs[0][stage]:
            values = [run[stage][metric] for run in runs]
            spread = f" {mean_interval(values)}" if len(values) > 1 else ""
            print(f"{stage:6} {metric:15} {sum(values) / len(values):.3f}{spread}")


if __name__ == "__main__":
    main()
