"""Does the alarm of over-optimisation come before a tenth of the held-out gain is lost, and does it stay silent in healthy runs?

    python benchmarks/overoptimisation.py --out build/overoptimisation --stories MODEL --story-prompts PROMPTS.jsonl --lexicon LEXICON.tsv

    reviews     the embedded world; the held-out score is the task's utility. Over-optimising: a reward model of few judgements, no KL
                penalty. Healthy: a reward model of all judgements of a round, the default KL penalty.
    stories     a pretrained story model, scored by one half of a lexicon; the other half is the held-out score. The seed draws the
                halves, of words that are equally frequent. Over-optimising: no KL penalty. Healthy: a KL penalty, and the whole lexicon.

No training stops at the alarm: it is replayed on the metrics of every update, which it is a function of (policy/alarms.py). Results lie in
--out, one folder for each run: what is there isn't run again, and `--report` alone prints the table.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import os
import random
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(os.environ.get("REPOSITORY") or Path(__file__).resolve().parents[1])
sys.path.insert(0, str(ROOT))

from rlhf_lightning import run  # noqa: E402
from rlhf_lightning.policy.alarms import HELD_OUT, held_out_peak, overoptimisation  # noqa: E402
from rlhf_lightning.policy.overoptimisation import distance, fit_score  # noqa: E402
from rlhf_lightning.rollout.scorer.lexicon import WORD  # noqa: E402

SEEDS = {"over": 5, "healthy": 10}
SMOOTHING = 7
"""Updates of the centred mean by which the loss of a run is measured."""
FEW = 350
"""Judgements of the reward model that is over-optimised, of the 2,240 of a round."""
SIZES = ["schedule=constant", "ppo.learning_rate=2e-4", "ppo.epochs=1", "evaluation.responses=32", "logger=csv"]
UPDATES = {"over": "ppo.updates=50", "healthy": "ppo.updates=40"}
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
    command(folder / "ppo", "stage=ppo", *start, *scorer, *SIZES, UPDATES[job.kind])
    return folder / "ppo"


def stories(job: Job, options: argparse.Namespace) -> Path:
    """Train a story model on half of a lexicon; returns the folder of the run."""
    folder = options.out / job.name
    folder.mkdir(parents=True, exist_ok=True)
    lines = halved_lexicon(options.lexicon, options.story_prompts, job.seed)
    (folder / "learned.tsv").write_text("".join(lines[::2] if job.kind == "over" else lines))
    (folder / "held_out.tsv").write_text("".join(lines[1::2]))
    (folder / "gold.py").write_text(GOLD.format(path=folder / "held_out.tsv"))
    words = f"""experiment=lexicon_stories backbone.path={options.stories} task.prompts={options.story_prompts} seed={job.seed}
        rollout_scorer.lexicon.path={folder / "learned.tsv"} rollout_scorer.lexicon.alpha=100
        rollout_scorer.function.path={folder / "gold.py"}:gold rollout_scorer.function.weight=0.0 rollout_sampler.max_new_tokens=24
        policy_kl_control.coef={0.0 if job.kind == "over" else 0.05}"""
    command(folder / "ppo", "rollout_scorer=[lexicon,function]", *words.split(), *SIZES, UPDATES[job.kind])
    return folder / "ppo"


def halved_lexicon(lexicon: Path, texts: Path, seed: int) -> list[str]:
    """The lexicon's lines in an order in which every other one is a random half, of words as frequent in the texts as the other half."""
    with gzip.open(texts, "rt", encoding="utf-8") if texts.suffix == ".gz" else texts.open(encoding="utf-8") as file:
        counts = Counter(word for line in file for value in json.loads(line).values() for word in WORD.findall(str(value).lower()))
    lines = sorted(lexicon.read_text(encoding="utf-8").splitlines(keepends=True), key=lambda line: -counts[line.partition("\t")[0]])
    generator = random.Random(seed)
    pairs = [lines[i : i + 2] for i in range(0, len(lines), 2)]
    return [line for pair in pairs for line in generator.sample(pair, len(pair))]


TASKS = {"reviews": reviews, "stories": stories}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("out", "stories", "story-prompts", "lexicon"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--tasks", default="reviews,stories")
    parser.add_argument("--report", action="store_true", help="only report the runs that there are")
    options = parser.parse_args()
    options.out = options.out.resolve()
    for task in options.tasks.split(","):
        for kind, count in SEEDS.items():
            for job in (Job(task, kind, seed) for seed in range(count)):
                if not options.report:
                    TASKS[task](job, options)
                if (options.out / job.name / "ppo" / "result.json").is_file():
                    print(describe(job, options.out / job.name / "ppo"))


def describe(job: Job, folder: Path) -> str:
    """One line on a run: the update of the first alarm, and that of the loss of a tenth of the held-out gain."""
    with (folder / "logs" / "ppo" / "metrics.csv").open() as file:
        rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file) if row.get("objective/kl")]
    alarm = next((i for i in range(1, len(rows) + 1) if held_out_peak(rows[:i]) or overoptimisation(rows[:i])), None)
    name = next(name for name in HELD_OUT if name in rows[0])
    gains = smoothed([row[name] for row in rows])
    loss = first_loss(gains)
    curve = fit_score([distance(row["objective/kl"]) for row in rows], [row[name] for row in rows])
    peak = "-" if curve is None else f"{curve.peak_kl:.3g}"
    kl = [row["objective/kl"] for row in rows]
    updates = {"alarm": alarm, "loss": loss}
    kls = "  ".join(f"{name} {'-' if update is None else f'{update} (KL {kl[update - 1]:.3g})'}" for name, update in updates.items())
    if alarm is not None and loss is not None and max(gains) > gains[0]:
        kls += f"  lost at the alarm {max(0.0, max(gains[:alarm]) - gains[alarm - 1]) / (max(gains) - gains[0]):.0%}"
    return f"{job.name:20} {kls}  highest {max(gains):.3f}, last {gains[-1]:.3f}, start {gains[0]:.3f}; predicted peak KL {peak}"


def smoothed(values: Sequence[float]) -> list[float]:
    """Centred means of SMOOTHING values."""
    reach = SMOOTHING // 2
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def first_loss(values: Sequence[float]) -> int | None:
    """The update from which on a tenth of the highest gain over the start is lost; None without."""
    peak = max(range(len(values)), key=values.__getitem__)
    bound = values[peak] - 0.1 * (values[peak] - values[0])
    if peak == 0:
        return 1
    below = [i for i in range(peak, len(values)) if values[i] < bound]
    lasting = [i for i in below if all(value < bound for value in values[i:])]
    return lasting[0] + 1 if lasting else None


if __name__ == "__main__":
    main()
