"""Does the alarm of over-optimisation come before a tenth of the held-out gain is lost, and does it stay silent in healthy runs?

    python benchmarks/overoptimisation.py --out build/overoptimisation --stories MODEL --story-prompts PROMPTS.jsonl --lexicon LEXICON.tsv

    reviews     the embedded world; the held-out score is the task's utility. Over-optimising: a reward model of few judgements, no KL
                penalty. Healthy: a reward model of all judgements of a round, the default KL penalty.
    stories     a pretrained story model, scored by one half of a lexicon, the words drawn by the seed; the other half is the held-out
                score. Over-optimising: no KL penalty. Healthy: a KL penalty, and the whole lexicon.

No training stops at the alarm: it is replayed on the metrics of every update, which it is a function of (policy/alarms.py). Results lie in
--out, one folder for each run: what is there isn't run again, and `--report` alone prints the table.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("REPOSITORY") or Path(__file__).resolve().parents[1])
sys.path.insert(0, str(ROOT))

from rlhf_lightning import run  # noqa: E402

SEEDS = {"over": 5, "healthy": 10}
FEW = 350
"""Judgements of the reward model that is over-optimised, of the 2,240 of a round."""
SIZES = [
    "schedule=constant", "ppo.learning_rate=3e-4", "ppo.epochs=1", "ppo.num_minibatches=2", "ppo.updates=36",
    "ppo.prompts_per_update=12", "evaluation.responses=32", "logger=csv",
]  # fmt: skip
GOLD = """from rlhf_lightning.rollout.scorer.lexicon import LexiconScorer

SCORER = LexiconScorer(path="{path}")


def gold(rollout):
    return SCORER(rollout)
"""


@dataclass(frozen=True)
class Job:
    """One training."""

    task: str
    kind: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.task}-{self.kind}-{self.seed}"


def command(folder: Path, *words: str) -> None:
    """One command in this process, unless its run is there."""
    if not (folder / "result.json").is_file():
        run([f"hydra.run.dir={folder}", "resume=auto", *words])


def reviews(job: Job, options: argparse.Namespace) -> Path:
    """Train on the embedded world; returns the folder of the run."""
    world, folder = options.out / "reviews-world", options.out / job.name
    command(world, "stage=rounds", "stage.max_rounds=1", "ppo.updates=1")
    start, model = ["backbone=causal", f"backbone.path={world / 'sft'}", f"seed={job.seed}"], world / "round_1" / "reward_model"
    if job.kind == "over":
        lines = (world / "round_1" / "feedback.jsonl").read_text().splitlines(keepends=True)
        random.Random(job.seed).shuffle(lines)
        feedback = options.out / f"{job.name}.jsonl"
        feedback.write_text("".join(lines[:FEW]))
        source = ["feedback_source=jsonl", f"feedback_source.jsonl.path={feedback}", "feedback_format=[record]"]
        command(folder / "reward", "stage=reward", *start, *source, "reward.learning_rate=1e-3")
        model, start = folder / "reward" / "reward_model", [*start, "policy_kl_control.coef=0"]
    scorer = ["rollout_scorer=reward_model", f"rollout_scorer.reward_model.path={model}"]
    command(folder / "ppo", "stage=ppo", *start, *scorer, *SIZES)
    return folder / "ppo"


def stories(job: Job, options: argparse.Namespace) -> Path:
    """Train a story model on half of a lexicon; returns the folder of the run."""
    folder = options.out / job.name
    folder.mkdir(parents=True, exist_ok=True)
    lines = options.lexicon.read_text(encoding="utf-8").splitlines(keepends=True)
    random.Random(job.seed).shuffle(lines)
    (folder / "learned.tsv").write_text("".join(lines[::2] if job.kind == "over" else lines))
    (folder / "held_out.tsv").write_text("".join(lines[1::2]))
    (folder / "gold.py").write_text(GOLD.format(path=folder / "held_out.tsv"))
    words = f"""experiment=lexicon_stories backbone.path={options.stories} task.prompts={options.story_prompts} seed={job.seed}
        rollout_scorer.lexicon.path={folder / "learned.tsv"} rollout_scorer.lexicon.alpha=100
        rollout_scorer.function.path={folder / "gold.py"}:gold rollout_scorer.function.weight=0.0 rollout_sampler.max_new_tokens=24
        policy_kl_control.coef={0.0 if job.kind == "over" else 0.05}"""
    command(folder / "ppo", "rollout_scorer=[lexicon,function]", *words.split(), *SIZES)
    return folder / "ppo"


TASKS = {"reviews": reviews, "stories": stories}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("out", "stories", "story_prompts", "lexicon"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, required=True)
    parser.add_argument("--tasks", default="reviews,stories")
    options = parser.parse_args()
    options.out = options.out.resolve()
    for task in options.tasks.split(","):
        for kind, count in SEEDS.items():
            for seed in range(count):
                print(describe(Job(task, kind, seed), TASKS[task](Job(task, kind, seed), options)))


def describe(job: Job, folder: Path) -> str:
    """One line on a run: the update of the first alarm, and of the loss of a tenth of the smoothed held-out gain."""
    with (folder / "logs" / "ppo" / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file) if row.get("objective/kl")]
    return job.name + f" {len(rows)} updates"


if __name__ == "__main__":
    main()
