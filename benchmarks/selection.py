"""Label efficiency of feedback_selection: judgements that a method needs for the accuracy of random questions.

    python benchmarks/selection.py --out build/selection [--worlds reviews] [--noise 0,0.1,0.25] [--people careless] [--seeds 10]
    python benchmarks/selection.py --out build/selection --worlds wmt,gsm8k,hh --data FOLDER_OF_DATA_SETS
    python benchmarks/selection.py --out build/selection --worlds trunk --trunk MODEL

Worlds:
    reviews     task=reviews with its hidden utility: RESPONSES responses to each of 77 prompts, all pairs of them are the pool (about
                21,000); the reward model is a linear regression on named features (without character n-grams), on its WIDTH principal
                components
    trunk       the same with a linear head on a frozen language model's vectors of response and prompt (reward_feature=embedding)
    wmt, gsm8k, hh    replay of recorded pairs: 70 % of the prompts are the pool, the others test; skipped without --data

People: "careless" ones answer at random in twice the noise; "imprecise" ones perceive the utility with normal noise, so that they err most
at near ties, on average as often as the noise says. Recorded answers are flipped.

A run starts with 32 random questions. At each budget the model is trained from scratch on all answers, with the prior of the largest
evidence, and measured on pairs of other prompts against the true order; then the method chooses as many questions again, a fifth of
them uniform. Accuracies are made monotone (isotonic) over log judgements; an interval is of 2,000 bootstrap samples of the seeds.

Results lie in --out, a line for each run: what is there isn't run again. The last lines are the table of docs/active_selection.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import gzip
import itertools
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import isotonic_regression
from torch import Tensor
from torch.nn.functional import softplus

from rlhf_lightning.feedback.acquisition import choose_questions, text_indices
from rlhf_lightning.interfaces import Choice, SelectionPool
from rlhf_lightning.registry import load_components, make
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.statistics.laplace import cholesky, evidence_precision, prior_precision
from rlhf_lightning.task.reviews import Reviews

BUDGETS = (32, 64, 128, 256, 512, 1024, 2048)
METHODS = ("random", "bald", "disagreement", "thompson", "large_gap", "d_optimal", "diverse")
RESPONSES, WIDTH, TEST_PAIRS, TEST_FRACTION, BOOTSTRAP = 24, 128, 4000, 0.3, 2000
FEATURES: dict[str, dict[str, Any]] = {
    name: {} for name in ("length", "repetition", "overlap", "readability", "punctuation", "markup", "numbers", "sentiment", "ngrams")
}
RECORDED = {"wmt": "wmt_mqm_pairs", "gsm8k": "gsm8k_pairs", "hh": "hh_harmless"}
DECISION_SECONDS, CHARACTERS_PER_SECOND = 4.0, 20.0
"""Of a person: a comparison takes 4 s and the reading of both responses."""


@dataclass
class World:
    """A pool with the people who judge it, and test pairs of other prompts.

    Attributes:
        features: [N, D] of the pool's responses.
        answer: the first response of a choice is better.
        test: [T, D] feature differences, better less worse by the true order.
    """

    pool: SelectionPool
    features: Tensor
    answer: Callable[[Choice], bool]
    test: Tensor


@functools.cache
def reviews_texts(seed: int) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]], dict[tuple[str, str], float]]:
    """Groups of the pool and of the test, and the utility of each response."""
    task = Reviews(seed=seed)
    responses: dict[str, dict[str, None]] = defaultdict(dict)
    for part in range(6):
        for row in Reviews(seed=1000 * (seed + 1) + part, demonstrations=1500).demonstrations():
            responses[str(row.prompt)][str(row.response)] = None
    groups = {prompt: list(texts)[:RESPONSES] for prompt, texts in sorted(responses.items())}
    held_out = {row.prompt for row in task.test_prompts()}
    utility = {(prompt, text): task.utility(prompt, text) for prompt, texts in groups.items() for text in texts}
    train, test = ([(p, texts) for p, texts in groups.items() if (p in held_out) == side] for side in (False, True))
    return train, test, utility


@functools.cache
def recorded_texts(folder: Path, seed: int) -> tuple[list[tuple[str, list[str]]], list[tuple[str, list[str]]], set[tuple[str, str, str]]]:
    """Groups of the pool and of the test, and the recorded (prompt, better, worse)."""
    with gzip.open(folder / "dev.jsonl.gz", "rt") as lines:
        orders = {(row["prompt"], row["chosen"], row["rejected"]) for row in map(json.loads, lines) if row["chosen"] != row["rejected"]}
    orders = {order for order in orders if (order[0], order[2], order[1]) not in orders}
    responses: dict[str, dict[str, None]] = defaultdict(dict)
    for prompt, better, worse in sorted(orders):
        responses[prompt] |= dict.fromkeys(sorted((better, worse)))
    prompts = sorted(responses)
    random.Random(f"{seed}: prompts").shuffle(prompts)
    cut = round(TEST_FRACTION * len(prompts))
    test, train = ([(prompt, list(responses[prompt])) for prompt in part] for part in (prompts[:cut], prompts[cut:]))
    return train, test, orders


@functools.cache
def components(key: tuple[str, int], spec: str) -> tuple[Tensor, Tensor]:
    """Principal components of the features of the pool's responses and of the test's, fitted on the pool."""
    train, test = texts_of(key)[:2]
    score = FeatureScore(json.loads(spec))
    pool_texts, test_texts = ([(prompt, text) for prompt, of in part for text in of] for part in (train, test))
    score.prepare(pool_texts)
    phi = score.phi(pool_texts)
    centre = phi.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, axes = torch.svd_lowrank(phi - centre, q=min(WIDTH, *phi.shape), niter=4)
    return (phi - centre) @ axes, (score.phi(test_texts) - centre) @ axes


DATA: dict[str, Path] = {}


def texts_of(key: tuple[str, int]) -> Any:
    world, seed = key
    return recorded_texts(DATA["data"] / RECORDED[world], seed) if world in RECORDED else reviews_texts(seed)


def build_world(name: str, seed: int, noise: float, people: str) -> World:
    train, test, truth = texts_of((name, seed))
    spec = {"embedding": {"path": str(DATA["trunk"])}} if name == "trunk" else FEATURES
    features, test_features = components((name, seed), json.dumps(spec))

    def gap(prompt: str, a: str, b: str) -> float:
        if name in RECORDED:
            return float((prompt, a, b) in truth) - float((prompt, b, a) in truth)
        return float(truth[prompt, a] - truth[prompt, b])

    recorded = all_pairs(train)
    excluded = frozenset(pair for pair in recorded if gap(*texts_at(train, pair)) == 0) if name in RECORDED else frozenset()
    pool = SelectionPool(groups=train, features=features, excluded=excluded)
    rng = random.Random(f"{seed}: {name} {noise} people")
    spread = 0.0
    if people == "imprecise" and noise:
        spread = perception_noise([gap(*texts_at(train, pair)) for pair in rng.sample(recorded, 3000)], noise)

    def answer(choice: Choice) -> bool:
        difference = gap(*texts_at(train, (choice.group, *choice.responses)))
        if people == "imprecise":
            return difference + spread * math.sqrt(2) * rng.gauss(0, 1) + 1e-9 * rng.gauss(0, 1) > 0
        return (difference + 1e-9 * rng.gauss(0, 1) > 0) != (rng.random() < noise)

    pairs = [pair for pair in all_pairs(test) if gap(*texts_at(test, pair)) != 0]
    pairs = random.Random(f"{seed}: test").sample(pairs, min(TEST_PAIRS, len(pairs)))
    first, second = text_indices(SelectionPool(groups=test), torch.tensor(pairs))
    signs = torch.tensor([1.0 if gap(*texts_at(test, pair)) > 0 else -1.0 for pair in pairs], dtype=torch.float64)
    return World(pool, features, answer, (test_features[first] - test_features[second]) * signs[:, None])


def all_pairs(groups: list[tuple[str, list[str]]]) -> list[tuple[int, int, int]]:
    return [(group, i, j) for group, (_, of) in enumerate(groups) for i, j in itertools.combinations(range(len(of)), 2)]


def texts_at(groups: list[tuple[str, list[str]]], pair: tuple[int, ...]) -> tuple[str, str, str]:
    prompt, of = groups[pair[0]]
    return prompt, of[pair[1]], of[pair[2]]


def perception_noise(gaps: Iterable[float], error: float) -> float:
    """The deviation of each perceived utility with which people err this often, by bisection."""
    size = torch.tensor([abs(gap) for gap in gaps], dtype=torch.float64)
    low, high = 1e-3, 100.0
    for _ in range(50):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if float(torch.special.ndtr(-size / (middle * math.sqrt(2))).mean()) > error else (middle, high)
    return low


def fit(differences: Tensor, answers: Tensor) -> tuple[Tensor, float]:
    """Weights [D] of the Bradley-Terry regression by Newton's method, with the precision of the largest evidence."""
    precision = prior_precision(differences)
    for _ in range(4):
        weight = map_weight(differences, answers, precision)
        precision = evidence_precision(differences, differences @ weight, weight)
    return map_weight(differences, answers, precision), precision


def map_weight(differences: Tensor, answers: Tensor, precision: float) -> Tensor:
    """Minimise the negative log likelihood + precision |w|² / 2."""
    signed = differences * (2 * answers - 1)[:, None]
    weight = torch.zeros(differences.shape[1], dtype=torch.float64)
    value = math.inf
    for _ in range(30):
        margins = signed @ weight
        miss = torch.sigmoid(-margins)
        hessian = signed.T @ (signed * (miss * (1 - miss))[:, None])
        hessian.diagonal().add_(precision)
        step = torch.cholesky_solve((signed.T @ miss - precision * weight)[:, None], cholesky(hessian))[:, 0]
        for rate in (1.0, 0.5, 0.25, 0.1, 0.01):
            trial = weight + rate * step
            loss = float(softplus(-signed @ trial).sum() + precision / 2 * trial @ trial)
            if loss <= value:
                break
        if value - loss < 1e-9:
            return trial
        weight, value = trial, loss
    return weight


def expected_calibration_error(margins: Tensor, bins: int = 10) -> float:
    """Of the probability of the preferred order against the true one."""
    confidence, right = torch.sigmoid(margins.abs()), (margins > 0).double()
    bucket = ((confidence - 0.5) * 2 * bins).long().clamp(max=bins - 1)
    gaps = [(confidence[bucket == b] - right[bucket == b]).sum().abs() for b in range(bins)]
    return float(sum(gaps) / len(margins))


def run(name: str, seed: int, noise: float, people: str, method: str) -> list[dict[str, float]]:
    """Judgements, seconds, accuracy and ECE at each budget that the pool allows."""
    world = build_world(name, seed, noise, people)
    pool, features, settings = world.pool, world.features, {"pairs": True} if method == "random" else {}
    selection, uniform = make("feedback_selection", method, settings), make("feedback_selection", "random", {"pairs": True})
    generator = torch.Generator().manual_seed(seed)
    available = len(all_pairs(list(pool.groups))) - len(pool.excluded)
    asked, answers, rows = uniform(pool, BUDGETS[0], generator), list[bool](), []
    for budget in (b for b in BUDGETS if b <= available * 0.75):
        if rows:
            asked += choose_questions(method, selection, pool, budget - len(asked), generator, share_random=0.2)
        answers += [world.answer(choice) for choice in asked[len(answers) :]]
        first, second = text_indices(pool, torch.tensor([(choice.group, *choice.responses) for choice in asked]))
        differences = features[first] - features[second]
        weight, precision = fit(differences, torch.tensor(answers, dtype=torch.float64))
        pool = dataclasses.replace(
            pool, scores=features @ weight, past_differences=differences, past_scores=differences @ weight, precision=precision,
            excluded=world.pool.excluded | {(choice.group, *choice.responses) for choice in asked},
        )  # fmt: skip
        margins = world.test @ weight
        read = sum(len(text) for choice in asked for text in texts_at(pool.groups, (choice.group, *choice.responses))[1:])
        seconds = DECISION_SECONDS * len(asked) + read / CHARACTERS_PER_SECOND
        accuracy = float((margins > 0).double().mean() + 0.5 * (margins == 0).double().mean())
        rows.append({"judgements": budget, "seconds": seconds, "accuracy": accuracy, "ece": expected_calibration_error(margins)})
    return rows


def needed(curve: np.ndarray, costs: np.ndarray, target: float) -> float:
    """The cost at which a monotone curve reaches the target, log-linear between budgets; beyond the last one inf."""
    smooth = isotonic_regression(curve).x
    if smooth[-1] < target:
        return math.inf
    at = int(np.argmax(smooth >= target))
    if at == 0 or smooth[at] == smooth[at - 1]:
        return float(costs[at])
    part = (target - smooth[at - 1]) / (smooth[at] - smooth[at - 1])
    return float(np.exp(np.log(costs[at - 1]) * (1 - part) + np.log(costs[at]) * part))


def ratio(method: np.ndarray, random_: np.ndarray, at: int, cost: str, rows: np.ndarray) -> float:
    """Cost of the method for the accuracy of random questions at budget number `at`, over the cost of those."""
    columns = {"judgements": 0, "seconds": 1}[cost]
    m, r = method[rows].mean(0), random_[rows].mean(0)
    target = isotonic_regression(r[:, 2]).x[at]
    return needed(m[:, 2], m[:, columns], target) / needed(r[:, 2], r[:, columns], target)


def table(file: Path) -> None:
    """Print ratios with intervals, final accuracy and ECE, for each world, people and noise."""
    runs: dict[tuple[Any, ...], dict[str, dict[int, list[list[float]]]]] = defaultdict(lambda: defaultdict(dict))
    for row in map(json.loads, file.read_text().splitlines()):
        curve = [[r["judgements"], r["seconds"], r["accuracy"], r["ece"]] for r in row["rows"]]
        runs[row["world"], row["people"], row["noise"]][row["method"]][row["seed"]] = curve
    for key, by_method in sorted(runs.items()):
        seeds = sorted(by_method["random"])
        random_ = np.array([by_method["random"][seed] for seed in seeds])
        print(f"\n{key[0]}, {key[1]} people, noise {key[2]:g}, {len(seeds)} seeds")
        budgets = [int(b) for b in random_[0, :, 0]]
        marks = [i for i, b in enumerate(budgets) if b in (512, 2048)] or [len(budgets) - 1]
        heads = [f"judgements at {budgets[i]}" for i in marks] + [f"seconds at {budgets[i]}" for i in marks]
        print("| method | " + " | ".join(heads) + " | accuracy at " + ", ".join(str(budgets[i]) for i in marks) + " | ECE |")
        print("|---|" + "---|" * (len(heads) + 2))
        for method, by_seed in sorted(by_method.items(), key=lambda item: METHODS.index(item[0])):
            if sorted(by_seed) != seeds:
                continue
            curves = np.array([by_seed[seed] for seed in seeds])
            cells = []
            for cost, i in itertools.product(("judgements", "seconds"), marks):
                rng = np.random.default_rng(0)
                samples = [ratio(curves, random_, i, cost, rng.integers(0, len(seeds), len(seeds))) for _ in range(BOOTSTRAP)]
                low, high = np.quantile(samples, [0.025, 0.975], method="inverted_cdf")
                cells.append(f"{ratio(curves, random_, i, cost, np.arange(len(seeds))):.2f} [{low:.2f}, {high:.2f}]")
            accuracy = ", ".join(f"{curves[:, i, 2].mean():.3f}" for i in marks)
            print(f"| {method} | " + " | ".join(cells) + f" | {accuracy} | {curves[:, marks[-1], 3].mean():.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--worlds", default="reviews")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--noise", default="0,0.1,0.25")
    parser.add_argument("--people", default="careless", choices=("careless", "imprecise"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--trunk", type=Path)
    args = parser.parse_args()
    load_components()
    DATA.update({name: path for name, path in (("data", args.data), ("trunk", args.trunk)) if path})
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / "runs.jsonl"
    ready = {json.dumps(json.loads(line)["key"]) for line in file.read_text().splitlines()} if file.exists() else set()
    for world, seed in itertools.product(args.worlds.split(","), range(args.first_seed, args.first_seed + args.seeds)):
        if world in RECORDED and not (args.data and (args.data / RECORDED[world]).exists()):
            print(f"{world}: skipped, no {RECORDED[world]} in --data")
            continue
        for noise, method in itertools.product(map(float, args.noise.split(",")), args.methods.split(",")):
            key = [world, seed, noise, args.people, method]
            if json.dumps(key) in ready:
                continue
            row = {"key": key, "world": world, "seed": seed, "noise": noise, "people": args.people, "method": method}
            with file.open("a") as lines:
                lines.write(json.dumps(row | {"rows": run(world, seed, noise, args.people, method)}) + "\n")
    table(file)


if __name__ == "__main__":
    main()
