"""Do the reward losses find what they should? Simulated judgements whose parameters are known.

    python benchmarks/reward_losses.py --seeds 3

1. Recovery from 5,000 judgements: a two-item Bradley-Terry against its closed form ln(wins / losses), a Plackett-Luce of four against the
   MM algorithm (Hunter 2004) and the worths that made the data, Rao-Kupper's and Davidson's tie parameters, an ordinal rating (slope,
   thresholds, who is lenient) and a rating line.
2. Noise: 20 annotators of whom six answer at random; a linear score on 30 features; right orders of new texts by the truth, with each
   loss's annotator_noise none and learned, on the same judgements.

A quarter of a minute on one core. Intervals are Student's over the seeds.
"""

from __future__ import annotations

import argparse
import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Judgement, Ranking, Rating, Thumbs
from rlhf_lightning.registry import option
from rlhf_lightning.reward.components import ScoredBatch, build_losses
from rlhf_lightning.reward.regression.collation import collate_plain
from rlhf_lightning.statistics.intervals import mean_interval, paired_interval

JUDGEMENTS = 5000
ANNOTATORS, AT_RANDOM = 20, 6
FEATURES, NOISY_JUDGEMENTS = 30, 1000


@dataclass(frozen=True)
class Fitted:
    """What maximum likelihood found: the free scores' parameters, and the loss with its own."""

    weight: Tensor
    loss: Any
    texts: list[str]


Scores = Callable[[Tensor, list[str]], Tensor]
"""From weights and texts to scores [U]."""


def fitted(name: str, records: Sequence[Feedback], scores_of: Scores, size: int, precision: float = 0.0, **settings: Any) -> Fitted:
    """The most likely weights [size] of a score, and the parameters of the loss, by L-BFGS over all records, in float64.

    Args:
        precision: of the normal prior of the weights, 0 for none.
    """
    importlib.import_module(f"rlhf_lightning.reward.loss.{name}")  # the rule of address
    path = option("reward_loss", name).path
    judged = standardise(records)
    batch, answers = collate_plain(judged)
    texts = [response for _, response in answers]
    loss: nn.Module = build_losses({name: {"_target_": path, **settings}}, judged)[0].double()
    weight = torch.zeros(size, dtype=torch.float64, requires_grad=True)
    parameters = [weight, *loss.parameters()] if size else list(loss.parameters())
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=300, tolerance_grad=1e-8, tolerance_change=1e-12, history_size=20, line_search_fn="strong_wolfe"
    )

    def closure() -> float:
        optimizer.zero_grad()
        losses, weights = loss(ScoredBatch(scores=scores_of(weight, texts)), batch)
        total = (losses * weights).mean() + precision / 2 * weight @ weight / len(records)
        torch.autograd.backward(total)
        return float(total.detach())

    optimizer.step(closure)
    return Fitted(weight.detach(), loss, texts)


def said(judgement: Judgement, *responses: str, annotator: str | None = None, prompt: str = "") -> Feedback:
    return Feedback(prompt=prompt, responses=responses, judgement=judgement, annotator=annotator)


def by_number(weight: Tensor, texts: list[str]) -> Tensor:
    """The first item is 0, the others have a score each."""
    return torch.cat([weight.new_zeros(1), weight])[[int(text) for text in texts]]


def two_items(seed: int) -> dict[str, float]:
    """Bradley-Terry: the difference found, its closed form, the truth, and the closed form's standard error."""
    rng, truth = np.random.default_rng(seed), 0.8
    wins = int(rng.binomial(JUDGEMENTS, 1 / (1 + math.exp(-truth))))
    records = [said(Ranking(ranks=(0, 1) if i < wins else (1, 0)), "1", "0") for i in range(JUDGEMENTS)]
    found = float(fitted("bradley_terry", records, by_number, 1).weight)
    losses = JUDGEMENTS - wins
    return {"found": found, "closed form": math.log(wins / losses), "truth": truth, "standard error": math.sqrt(1 / wins + 1 / losses)}


def orders_of_four(seed: int, scores: np.ndarray) -> np.ndarray:
    """[JUDGEMENTS, 4] items from best to worst: Gumbel noise makes an order of Plackett and Luce."""
    noisy = scores + np.random.default_rng(seed).gumbel(size=(JUDGEMENTS, len(scores)))
    return np.argsort(-noisy, axis=1)


def minorise_maximise(orders: np.ndarray, rounds: int = 500) -> np.ndarray:
    """Plackett-Luce worths by Hunter's MM algorithm (2004, eq. 30), as scores with the first at 0."""
    items = orders.shape[1]
    worth = np.ones(items)
    chosen = np.bincount(orders[:, :-1].ravel(), minlength=items)
    for _ in range(rounds):
        left = worth[orders][:, ::-1].cumsum(1)[:, ::-1]  # the worth of what remains at each choice
        share = (1 / left[:, :-1]).cumsum(1)
        share = np.concatenate([share, share[:, -1:]], 1)  # the last one was in the choices of all before it
        worth = chosen / np.bincount(orders.ravel(), weights=share.ravel(), minlength=items)
    return np.log(worth / worth[0])


def plackett_luce_of_four(seed: int) -> dict[str, float]:
    """The largest distance of the scores found to the MM algorithm's and to the truth."""
    truth = np.array([0.0, 0.5, 1.2, -0.8])
    orders = orders_of_four(seed, truth)
    records = [said(Ranking(ranks=tuple(np.argsort(order).tolist())), "0", "1", "2", "3") for order in orders]
    found = np.concatenate([[0.0], fitted("plackett_luce", records, by_number, 3).weight.numpy()])
    return {"to MM": float(np.abs(found - minorise_maximise(orders)).max()), "to truth": float(np.abs(found - truth).max())}


def ties(seed: int, name: str) -> dict[str, float]:
    """Errors of the tie parameter (log-odds) and of a score difference, of Rao-Kupper or Davidson among three items."""
    rng, scores, tie = np.random.default_rng(seed), np.array([0.0, 0.7, -0.5]), 0.6
    records = []
    for _ in range(JUDGEMENTS):
        a, b = rng.permutation(3)[:2]
        d = scores[a] - scores[b]
        if name == "rao_kupper":
            win, loss = 1 / (1 + math.exp(tie - d)), 1 / (1 + math.exp(tie + d))
        else:
            total = math.exp(d / 2) + math.exp(-d / 2) + math.exp(tie)
            win, loss = math.exp(d / 2) / total, math.exp(-d / 2) / total
        drawn = rng.random()
        ranks = (0, 1) if drawn < win else (1, 0) if drawn < win + loss else (0, 0)
        records.append(said(Ranking(ranks=ranks), str(a), str(b)))
    found = fitted(name, records, by_number, 2)
    learned = found.loss.threshold if name == "rao_kupper" else found.loss.tie
    return {"tie": abs(float(learned.detach()) - tie), "scores": float(np.abs(found.weight.numpy() - scores[1:]).max())}


def given_scores(seed: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray]:
    """Known scores of 5,000 texts, and which of 10 annotators rates each."""
    rng = np.random.default_rng(seed)
    return rng, rng.normal(size=JUDGEMENTS), rng.integers(10, size=JUDGEMENTS)


def rated(name: str, values: np.ndarray, who: np.ndarray, scores: np.ndarray, scale: tuple[float, float], **settings: Any) -> Any:
    """The loss fitted to ratings of texts with known scores."""
    rows = enumerate(zip(values.tolist(), who.tolist(), strict=True))
    records = [said(Rating(value=float(value), scale=scale), str(i), annotator=f"a{a}") for i, (value, a) in rows]
    known = torch.from_numpy(scores)
    return fitted(name, records, lambda _, texts: known[[int(text) for text in texts]], 0, **settings).loss


def own_of(loss_part: Any, who: np.ndarray) -> np.ndarray:
    """[10] learned numbers, in the simulation's order of annotators (the loss's is that of first appearance)."""
    learned = (loss_part.spread * loss_part.effects).detach().numpy()[1:]
    return learned[np.argsort(list(dict.fromkeys(who.tolist())))]


def ordinal_rating(seed: int) -> dict[str, float]:
    """Errors of slope, thresholds and the annotators' shifts of a 1-to-5 rating (slope 1.5, shifts of standard deviation 0.7)."""
    rng, scores, who = given_scores(seed)
    thresholds, shifts = np.array([-2.0, -0.7, 0.4, 2.2]), rng.normal(size=10) * 0.7
    shifts -= shifts.mean()  # what all have in common is the thresholds'
    latent = 1.5 * scores + shifts[who] + rng.logistic(size=JUDGEMENTS)
    loss = rated("ordinal", 1.0 + (latent[:, None] > thresholds).sum(1), who, scores, (1.0, 5.0), levels=5)
    return {
        "slope": abs(float(loss.log_slope.detach().exp()) - 1.5),
        "thresholds": float(np.abs(loss.thresholds.detach().numpy()[0] - thresholds).max()),
        "shifts": float(np.abs(own_of(loss.annotator_shift, who) - shifts).max()),
    }


def rating_line(seed: int) -> dict[str, float]:
    """Errors of slope, offset, spread and the annotators' biases of ratings as given (target=unit, in quarters of the scale)."""
    rng, scores, who = given_scores(seed)
    biases = rng.normal(size=10) * 0.2
    biases -= biases.mean()
    y = 0.25 * scores + 0.1 + biases[who] + 0.2 * rng.normal(size=JUDGEMENTS)
    settings = {"target": "unit", "bias_spread": 0.2}
    # The unit is a quarter of the scale, which is wide enough that nothing is cut off.
    loss = rated("gaussian_rating", 100.0 * y, who, scores, (-200.0, 200.0), **settings)
    return {
        "slope": abs(float(loss.log_slope.detach().exp()) - 0.25),
        "offset": abs(float(loss.offset.detach()) - 0.1),
        "spread": abs(float(loss.log_spread.detach().exp()) - 0.2),
        "biases": float(np.abs(own_of(loss.annotator_offset, who) - biases).max()),
    }


NOISY: dict[str, int] = {"bradley_terry": 2, "plackett_luce": 3, "gaussian_rating": 1, "ordinal": 1, "thumbs": 1}
"""The losses that know of noise, and how many texts a judgement of theirs compares."""


def noisy_records(seed: int, name: str, phi: Tensor, truth: Tensor) -> list[Feedback]:
    """Judgements by 20 annotators, of whom six don't look: item i is text i of `phi`, the honest follow the loss's own likelihood."""
    rng, size = np.random.default_rng(seed), NOISY[name]
    utility = (phi @ truth).numpy()
    records = []
    for i in range(NOISY_JUDGEMENTS):
        items, who = list(range(i * size, (i + 1) * size)), int(rng.integers(ANNOTATORS))
        felt = np.zeros(size) if who < AT_RANDOM else utility[items]
        if size > 1:
            order = np.argsort(-(felt + rng.gumbel(size=size)))
            judgement: Judgement = Ranking(ranks=tuple(np.argsort(order).tolist()))
        elif name == "thumbs":
            judgement = Thumbs(up=bool(felt[0] + rng.logistic() > 0))
        else:
            level = rng.integers(1, 8) if who < AT_RANDOM else np.clip(np.round(4 + felt[0] / 2 + rng.normal() * 0.5), 1, 7)
            judgement = Rating(value=float(level), scale=(1.0, 7.0))
        records.append(said(judgement, *map(str, items), annotator=f"a{who}", prompt=f"p{i}"))
    return records


@dataclass(frozen=True)
class Noisy:
    """A true linear score, texts by their features, and what 20 annotators said about them."""

    truth: Tensor
    phi: Tensor
    records: list[Feedback]

    @classmethod
    def of(cls, seed: int, name: str) -> Noisy:
        generator = torch.Generator().manual_seed(seed)
        truth = torch.randn(FEATURES, generator=generator, dtype=torch.float64)
        truth = 2 * truth / truth.norm()  # a text's utility has a standard deviation of 2 log-odds
        phi = torch.randn(NOISY_JUDGEMENTS * NOISY[name], FEATURES, generator=generator, dtype=torch.float64)
        return cls(truth, phi, noisy_records(seed, name, phi, truth))

    def fitted(self, name: str, noise: str) -> Fitted:
        def scores(weight: Tensor, texts: list[str]) -> Tensor:
            return self.phi[[int(text) for text in texts]] @ weight

        return fitted(name, self.records, scores, FEATURES, 1.0, annotator_noise=noise)


def noise_aware(seed: int, name: str = "bradley_terry") -> dict[str, float]:
    """Share of all new pairs that the learned score orders as the truth does, for annotator_noise none and learned.

    The features are independent normal, so that the share is exactly 1 - angle / pi, the angle between both scores' weights.
    """
    noisy = Noisy.of(seed, name)
    cosines = {noise: torch.cosine_similarity(noisy.fitted(name, noise).weight, noisy.truth, dim=0) for noise in ("none", "learned")}
    return {noise: 1 - math.acos(float(cosine)) / math.pi for noise, cosine in cosines.items()}


def error_rates(seed: int) -> list[float]:
    """The learned error rates of pairs, those at random first."""
    noisy = Noisy.of(seed, "bradley_terry")
    learned = noisy.fitted("bradley_terry", "learned").loss.errors.rates().tolist()[1:]
    met = list(dict.fromkeys(record.annotator for record in noisy.records))
    return [learned[met.index(f"a{who}")] for who in range(ANNOTATORS)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--seeds", type=int, default=3)
    seeds = range(arguments.parse_args().seeds)
    print(f"1. Recovery from {JUDGEMENTS} judgements, {len(seeds)} seeds", flush=True)
    for seed in seeds:
        two = two_items(seed)
        print(f"   Bradley-Terry of two, seed {seed}: " + ", ".join(f"{key} {value:.6f}" for key, value in two.items()))
    studies: dict[str, Callable[[int], dict[str, float]]] = {
        "Plackett-Luce of four, largest distance": plackett_luce_of_four,
        "Rao-Kupper, largest error": lambda seed: ties(seed, "rao_kupper"),
        "Davidson, largest error": lambda seed: ties(seed, "davidson"),
        "ordinal rating, largest error": ordinal_rating,
        "rating line, largest error": rating_line,
    }
    for title, study in studies.items():
        rows = [study(seed) for seed in seeds]
        print(f"   {title}: " + "; ".join(f"{key} " + " ".join(f"{row[key]:.2g}" for row in rows) for key in rows[0]))
    print(f"2. {AT_RANDOM} of {ANNOTATORS} annotators at random, {NOISY_JUDGEMENTS} judgements, right orders of new pairs")
    for name in NOISY:
        rows = [noise_aware(seed, name) for seed in seeds]
        plain, aware = ([row[noise] for row in rows] for noise in ("none", "learned"))
        gain = paired_interval(plain, aware)
        print(
            f"   {name}: none {mean_interval(plain).mean:.4f}, learned {mean_interval(aware).mean:.4f}, "
            f"gain {gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"
        )


if __name__ == "__main__":
    main()
