"""Do ratings, rankings and edits together teach more than each alone? And does it help to know who answers at random?

    python benchmarks/reward_kinds.py --seeds 3

The embedded world (task=reviews): five simulated annotators judge reviews of its writers; `stage=reward` with its default losses trains a
reward model on a tiny language model after supervised fine-tuning; measured is how often the score orders two reviews of a prompt that
nobody judged as the hidden utility does. n judgements of one kind, n in all of three kinds, and n of each of three kinds.
Then 20 annotators of whom six answer at random, ratings and rankings: annotator_noise none and learned, on the same judgements.

About 20 minutes on one core. Intervals are Student's over the seeds, differences paired by seed.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.feedback.annotator.simulated import SimulatedAnnotators
from rlhf_lightning.flow import Feedback
from rlhf_lightning.reward.storage.folder import load_reward_model
from rlhf_lightning.statistics.intervals import mean_interval, paired_interval
from rlhf_lightning.task.reviews import Reviews

ROOT = Path(__file__).resolve().parents[1]
KINDS = ("rating", "ranking", "edit")
LEARNED = [f"reward_loss.{name}.annotator_noise=learned" for name in ("bradley_terry", "plackett_luce", "gaussian_rating")]
HELD_OUT_SHARE, HELD_OUT_PAIRS = 0.25, 4000


class World:
    """Reviews by prompt, some prompts kept for measuring, and a tiny language model that has read them."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.seed, self.folder = seed, folder
        self.task = Reviews(seed=seed)
        reviews: dict[str, list[str]] = {}
        for row in self.task.demonstrations():
            reviews.setdefault(row.prompt, []).append(row.response)
        prompts = sorted(reviews)
        random.Random(f"{seed}: prompts").shuffle(prompts)
        aside = round(HELD_OUT_SHARE * len(prompts))
        self.judged = {prompt: reviews[prompt] for prompt in prompts[aside:]}
        self.pairs = self._pairs({prompt: reviews[prompt] for prompt in prompts[:aside]})
        command("stage=sft", "task=reviews", "backbone=tiny", f"seed={seed}", folder=folder / "sft")

    def _pairs(self, reviews: dict[str, list[str]]) -> list[tuple[str, str, str]]:
        """(prompt, better, worse) by the hidden utility."""
        rng = random.Random(f"{self.seed}: pairs")
        found = []
        while len(found) < HELD_OUT_PAIRS:
            prompt = rng.choice(list(reviews))
            a, b = rng.sample(reviews[prompt], 2)
            gap = self.task.utility(prompt, a) - self.task.utility(prompt, b)
            if abs(gap) > 1e-9:
                found.append((prompt, a, b) if gap > 0 else (prompt, b, a))
        return found

    def said(self, counts: dict[str, int], annotators: int, random_fraction: float) -> list[Feedback]:
        """So many judgements of each kind; a ranking orders four reviews."""
        people = SimulatedAnnotators(self.task, annotators=annotators, random_fraction=random_fraction, seed=self.seed)
        rng = random.Random(f"{self.seed}: judged")
        records = []
        for kind, count in counts.items():
            for _ in range(count):
                prompt = rng.choice(list(self.judged))
                texts = rng.sample(self.judged[prompt], 4)
                give = {"rating": people.rate, "edit": people.edit}.get(kind)
                records.append(people.rank(prompt, texts) if give is None else give(prompt, texts[0]))
        return records

    def accuracy(
        self, name: str, counts: dict[str, int], epochs: int, annotators: int = 5, random_fraction: float = 0.0, words: Sequence[str] = ()
    ) -> float:
        """The share of held-out pairs that a reward model of these judgements orders as the utility does."""
        folder = self.folder / name
        folder.mkdir()
        records = self.said(counts, annotators, random_fraction)
        (folder / "feedback.jsonl").write_text("".join(record.model_dump_json() + "\n" for record in records))
        command(
            "stage=reward", "feedback_source=jsonl", f"feedback_source.jsonl.path={folder / 'feedback.jsonl'}", "feedback_format=[record]",
            "feedback_filter=[]", "backbone=causal", f"backbone.path={self.folder / 'sft' / 'policy'}", f"reward.epochs={epochs}",
            "reward.validation_fraction=0.05", "reward.learning_rate=1e-3", f"seed={self.seed}", *words, folder=folder / "run",
        )  # fmt: skip
        model = load_reward_model(str(folder / "run" / "reward_model"))
        model.eval()
        texts = list(dict.fromkeys((prompt, text) for prompt, *both in self.pairs for text in both))
        scores = dict(zip(texts, model.score_texts([p for p, _ in texts], [t for _, t in texts]).tolist(), strict=True))
        return sum(scores[prompt, better] > scores[prompt, worse] for prompt, better, worse in self.pairs) / len(self.pairs)


def command(*words: str, folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "logger=none", f"hydra.run.dir={folder}", *words], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}\n{done.stdout}{done.stderr}")


def arms(n: int) -> dict[str, dict[str, int]]:
    """What is judged how often, by the title of the row."""
    return {
        **{f"{n} {kind}s": {kind: n} for kind in KINDS},
        f"{n} in all, of three kinds": {kind: n // 3 for kind in KINDS},
        f"{n} of each of three kinds": dict.fromkeys(KINDS, n),
    }


def table(found: dict[str, list[float]], *bases: str) -> None:
    """Each row's mean with its interval and its seeds, and by how much the rows `bases` are better."""
    for title, values in found.items():
        mean, each = mean_interval(values), " ".join(f"{value:.3f}" for value in values)
        gains = {base: paired_interval(values, found[base]) for base in bases if base != title}
        print(f"  {title:28} {mean.mean:.3f} ({mean.low:.3f} to {mean.high:.3f})  {each}")
        for base, gain in gains.items():
            print(f"      {base:28} {gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})", flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--sizes", default="600:6,90:12", help="judgements:epochs of each table")
    arguments.add_argument("--noisy", default="900:6,900:12", help="as --sizes, of the noisy tables: half ratings, half rankings")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        worlds = []
        for seed in range(chosen.seeds):
            (Path(folder) / str(seed)).mkdir()
            worlds.append(World(seed, Path(folder) / str(seed)))
        for size in chosen.sizes.split(","):
            n, epochs = map(int, size.split(":"))
            found = {
                title: [world.accuracy(title.replace(" ", "_").replace(",", ""), counts, epochs) for world in worlds]
                for title, counts in arms(n).items()
            }
            print(f"{n} judgements, {epochs} epochs: right orders of {HELD_OUT_PAIRS} held-out pairs")
            table(found, f"{n} in all, of three kinds", f"{n} of each of three kinds")
        for size in chosen.noisy.split(","):
            n, epochs = map(int, size.split(":"))
            counts = {"rating": n // 2, "ranking": n // 2}
            noisy = {
                noise: [world.accuracy(f"noise_{noise}_{n}_{epochs}", counts, epochs, 20, 0.3, words) for world in worlds]
                for noise, words in (("none", []), ("learned", LEARNED))
            }
            print(f"{n} judgements by 20 annotators, six at random, {epochs} epochs: annotator_noise")
            table(noisy, "learned")


if __name__ == "__main__":
    main()
