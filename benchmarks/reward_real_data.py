"""reward_head=features on real feedback, held out by prompt, beside bag-of-words plus length on the same folds.

    python benchmarks/reward_real_data.py DATA [--sets hh_harmless,...] [--features length,ngrams] [--folds 5] [--json OUT.json]
    python benchmarks/reward_real_data.py DATA --embedding MODEL --records 800 --no-baseline

DATA holds a folder for each set, with dev.jsonl.gz in it. Each fold leaves out the prompts of one part and trains on the others;
accuracies are the mean over the folds with Student's 95 % interval. Pairs and edits: share of held-out pairs in the right order (a tie is
half right). Ratings: Spearman's correlation with the mean rating. With --embedding, also the features beside the embedding of a model
(reward_feature=embedding), and the embedding alone.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torchmetrics.functional import spearman_corrcoef

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from omegaconf import OmegaConf

from rlhf_lightning.feedback.judgements import prompt_share, standardise
from rlhf_lightning.feedback.reading import read_feedback
from rlhf_lightning.feedback.standardise import comparisons
from rlhf_lightning.flow import Feedback, Rating
from rlhf_lightning.registry import load_components, make
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.reward.regression.fitting import fit_feature_score
from rlhf_lightning.statistics.intervals import mean_interval

MIN_PROMPTS = 20
BASELINE: dict[str, dict[str, Any]] = {"length": {}, "ngrams": {"orders": [1]}}
"""Bag-of-words plus length."""


def read(folder: Path, form: str, settings: dict[str, Any]) -> list[Feedback]:
    rows = make("feedback_source", "jsonl", {"path": str(folder / "dev.jsonl.gz")})()
    formats = [make("feedback_format", form, settings)]
    # Rows with an empty response are bad; PandaLM has some.
    with tempfile.TemporaryDirectory() as aside:
        return read_feedback(rows, formats, on_bad="quarantine", quarantine=Path(aside) / "bad.jsonl").feedback


def votes(folder: Path) -> list[Feedback]:
    """PandaLM's majority of three votes, ties left out."""
    found = read(folder, "verdict", {"verdict": "majority", "votes": None})
    return [record for record in found if comparisons(record)]


SETS: dict[str, tuple[float, Callable[[Path], list[Feedback]]]] = {
    "mlqe_pe_edit_rating": (0.73, lambda folder: read(folder, "edit", {"edited": "edited"})),
    "wmt_mqm_pairs": (0.62, lambda folder: read(folder, "pairwise", {})),
    "pandalm_human": (0.67, votes),
    "gsm8k_pairs": (0.66, lambda folder: read(folder, "pairwise", {})),
    "vader_sentiment_ratings": (0.63, lambda folder: read(folder, "rating", {"ratings": None, "scale": [-4, 4]})),
    "hh_harmless": (0.62, lambda folder: read(folder, "pairwise", {})),
    "topical_chat_turn_ratings": (0.05, lambda folder: read(folder, "rating", {"ratings": None, "scale": [1, 5]})),
}
"""The accuracy that bag-of-words plus length reaches on data not given here, and how the set is read."""


def sample(feedback: list[Feedback], records: int | None) -> list[Feedback]:
    """About this many records of prompts in random order, of each prompt as many as there would be of all prompts, four at least; of
    responses, where there are hardly any prompts."""
    if records is None:
        return feedback
    few = len({record.prompt_text for record in feedback}) < MIN_PROMPTS
    groups: dict[str, list[Feedback]] = {}
    for record in feedback:
        groups.setdefault(record.responses[0] if few else record.prompt_text, []).append(record)
    names = sorted(groups)
    random.Random(1).shuffle(names)
    chosen: list[Feedback] = []
    for name in names:
        random.Random(2).shuffle(groups[name])
        chosen += groups[name][: max(4, records // len(names) + 1)]
        if len(chosen) >= records:
            break
    return chosen


def parts(feedback: list[Feedback], folds: int, seed: int) -> list[list[Feedback]]:
    """Prompts shuffled and dealt out by size; responses where there are fewer than two prompts a fold (VADER's are its four domains)."""
    few = len({record.prompt_text for record in feedback}) < 2 * folds
    groups: dict[float, list[Feedback]] = {}
    for record in feedback:
        groups.setdefault(prompt_share(record.responses[0] if few else record.prompt_text), []).append(record)
    shares = sorted(groups)
    random.Random(seed).shuffle(shares)
    dealt: list[list[Feedback]] = [[] for _ in range(folds)]
    for share in sorted(shares, key=lambda share: -len(groups[share])):
        min(dealt, key=len).extend(groups[share])
    return dealt


def judge(score: FeatureScore, held_out: list[Feedback]) -> float:
    texts = sorted({(record.prompt_text, response) for record in held_out for response in record.responses})
    scores = dict(zip(texts, score.score_texts([t[0] for t in texts], [t[1] for t in texts]).tolist(), strict=True))
    rated = [(scores[r.prompt_text, r.responses[0]], r.judgement.value) for r in held_out if isinstance(r.judgement, Rating)]
    if rated:
        return float(spearman_corrcoef(*torch.tensor(rated, dtype=torch.float64).T))
    right, total = 0.0, 0
    for record in held_out:
        for i, j in comparisons(record):
            better, worse = scores[record.prompt_text, record.responses[i]], scores[record.prompt_text, record.responses[j]]
            right, total = right + (better > worse) + 0.5 * (better == worse), total + 1
    return right / total


def measure(dealt: list[list[Feedback]], features: dict[str, dict[str, Any]], l2: float | None, folds: int) -> list[float]:
    found = []
    for i, held_out in enumerate(dealt[:folds]):
        training = standardise([record for j, part in enumerate(dealt) if j != i for record in part])
        score = FeatureScore(features)
        losses = [make("reward_loss", name, {}) for name in ("bradley_terry", "plackett_luce", "gaussian_rating")]
        started = time.perf_counter()
        done = fit_feature_score(score, training, losses, l2=l2)
        seconds = time.perf_counter() - started
        found.append(judge(score, held_out))
        print(
            f"    fold {i}: {found[-1]:.4f}  {done}  {len(score.weight)} features  {len(training)} judgements  {seconds:.1f} s",
            flush=True,
        )
    print("    " + ", ".join(f"{name} {weight:+.2f}" for name, weight in score.weights()[:12]))
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("data", type=Path)
    arguments.add_argument("--sets", default=",".join(SETS))
    arguments.add_argument("--features", default=None, help="options of reward_feature; default: those of conf/config.yaml")
    arguments.add_argument("--settings", type=json.loads, default={}, help='for instance {"ngrams": {"strength": 5}}')
    arguments.add_argument("--folds", type=int, default=5)
    arguments.add_argument("--only", type=int, default=None, help="measure this many of the folds")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--l2", type=float, default=None)
    arguments.add_argument("--limit", type=int, default=None, help="records of each set")
    arguments.add_argument("--records", type=int, default=None, help="a sample of about so many records of each set, by prompt")
    arguments.add_argument("--embedding", default=None, help="a model's folder: the features beside its embedding, and that alone")
    arguments.add_argument("--no-baseline", action="store_true")
    arguments.add_argument("--json", type=Path, default=None)
    chosen = arguments.parse_args()
    load_components()
    menu = OmegaConf.load(Path(__file__).resolve().parents[1] / "conf" / "config.yaml")
    default = next(entry["reward_feature"] for entry in menu.defaults if "reward_feature" in entry)  # type: ignore[union-attr]
    names = chosen.features.split(",") if chosen.features else list(default)
    runs = {"features": {name: chosen.settings.get(name, {}) for name in names}}
    if not chosen.no_baseline:
        runs["bag of words + length"] = BASELINE
    if chosen.embedding:
        alone = {"embedding": {"path": chosen.embedding}}
        runs |= {"features + embedding": runs["features"] | alone, "embedding": alone}
    results: dict[str, Any] = {}
    for name in chosen.sets.split(","):
        stated, load = SETS[name]
        feedback = sample(load(chosen.data / name)[: chosen.limit], chosen.records)
        dealt = parts(feedback, chosen.folds, chosen.seed)
        print(f"{name}: {len(feedback)} records, stated baseline {stated:g}", flush=True)
        for title, features in runs.items():
            print(f"  {title}: {', '.join(features)}", flush=True)
            found = measure(dealt, features, chosen.l2, chosen.only or chosen.folds)
            interval = mean_interval(found)
            print(f"  {title}: {interval.mean:.4f} ({interval.low:.4f} to {interval.high:.4f})", flush=True)
            results.setdefault(name, {"stated": stated})[title] = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    if chosen.json:
        chosen.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
