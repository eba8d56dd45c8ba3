"""A reward model's metrics on held-out feedback: by brute force, by references, and alike however the work is shared."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rlhf_lightning.feedback.judgements import Judgements, standardise
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating, Thumbs
from rlhf_lightning.reward.evaluation.comparisons import judged_comparisons
from rlhf_lightning.reward.evaluation.held_out import calibration
from rlhf_lightning.reward.evaluation.measure import measure_held_out
from rlhf_lightning.statistics.intervals import clustered_proportion_interval
from tests.fork_server import run

ROOT = Path(__file__).resolve().parents[3]
WORDS = ["alpha", "be", "gamma ray", "d", "epsilon is long", "zeta", "eta", "theta th", "i", "kappa kappa kappa"]


class Table:
    """A score for each response: what a text says, at no cost."""

    deviation = 2.0

    def __init__(self, seed: int = 0, like_length: float = 0.0, coarse: float | None = None) -> None:
        rng = random.Random(seed)
        self.scores = {word: rng.gauss(0, 1) + like_length * len(word) for word in WORDS}
        if coarse is not None:
            self.scores = {word: round(score / coarse) * coarse for word, score in self.scores.items()}

    def score_texts(self, prompts: Sequence[object], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        return torch.tensor([self.scores[text] for text in responses])


def feedback(n: int = 200, seed: int = 0, prompts: int = 23) -> list[Feedback]:
    """Every kind, of two data sets."""
    rng, found = random.Random(seed), []
    for i in range(n):
        about = {
            "prompt": f"prompt {rng.randrange(prompts)}",
            "source": rng.choice(["x", "y"]),
            "annotator": rng.choice(["ann", "bob", None]),
        }
        one, two, three, four = rng.sample(WORDS, 4)
        kind = i % 5
        if kind == 0:
            found.append(Feedback(responses=(one, two), judgement=Ranking(ranks=(0, 1)), **about))
        elif kind == 1:
            ranks = tuple(rng.choice([0, 1, 2, None]) for _ in range(4))
            found.append(Feedback(responses=(one, two, three, four), judgement=Ranking(ranks=ranks), **about))
        elif kind == 2:
            found.append(Feedback(responses=(one, two), judgement=Edit(), **about))
        elif kind == 3:
            found.append(Feedback(responses=(one,), judgement=Rating(value=rng.randint(1, 7), scale=(1, 7)), **about))
        else:
            found.append(Feedback(responses=(one,), judgement=Thumbs(up=rng.random() < 0.5), **about))
    return found


@pytest.fixture
def judged() -> Judgements:
    return standardise(feedback())


def test_accuracy_is_the_share_of_orders_that_the_scores_keep(judged):
    model = Table(coarse=0.5)
    expected: dict[str, list[bool]] = {}
    places: dict[str, list[str]] = {}
    ties = []
    for kind, prompt, better, worse, source in judged_comparisons(judged):
        ties.append(model.scores[better] == model.scores[worse])
        for name in (kind, "all", f"source {source}"):
            expected.setdefault(name, []).append(model.scores[better] > model.scores[worse])
            places.setdefault(name, []).append(str(prompt))
    found = measure_held_out(model, judged)
    intervals = {
        name: clustered_proportion_interval(right, np.unique(places[name], return_inverse=True)[1]) for name, right in expected.items()
    }
    shown = found.accuracy | {f"source {name}": one for name, one in found.by_source.items()}
    assert shown.keys() == intervals.keys()
    for name, one in intervals.items():
        assert dataclasses.astuple(shown[name]) == pytest.approx(dataclasses.astuple(one)), name
    assert set(found.accuracy) == {"all", "pair", "ranking", "edit", "rating"}
    assert found.tied == pytest.approx(np.mean(ties))
    assert found.tied > 0
    assert found.objective == found.accuracy["all"].mean


def test_a_model_turned_round_is_right_where_it_was_wrong(judged):
    model = Table()
    found = measure_held_out(model, judged)
    model.scores = {word: -score for word, score in model.scores.items()}
    turned = measure_held_out(model, judged)
    for kind in found.accuracy:
        assert turned.accuracy[kind].mean == pytest.approx(1 - found.accuracy[kind].mean)
    for one, other in ((found.kendall, turned.kendall), (found.spearman, turned.spearman), (found.spearman_within, turned.spearman_within)):
        assert one.mean == pytest.approx(-other.mean)
    assert turned.auc.mean == pytest.approx(1 - found.auc.mean)
    assert turned.length.model.mean == pytest.approx(1 - found.length.model.mean)
    assert turned.length.people == found.length.people


def test_the_correlations_are_those_of_scipy(judged):
    stats = pytest.importorskip("scipy.stats")
    metrics = pytest.importorskip("sklearn.metrics")
    model, records = Table(), list(judged)
    found = measure_held_out(model, judged)
    taus, thumbs, z_scores = [], [], {}
    for record in records:
        one = record.feedback
        if isinstance(one.judgement, Ranking) and len(one.responses) > 2:
            ranked = [(model.scores[t], -r) for t, r in zip(one.responses, one.judgement.ranks, strict=True) if r is not None]
            if len({rank for _, rank in ranked}) > 1:
                taus.append(stats.kendalltau(*zip(*ranked, strict=True)).statistic)
        if isinstance(one.judgement, Thumbs):
            thumbs.append((one.judgement.up, model.scores[one.responses[0]]))
        if record.z_score is not None:
            z_scores.setdefault(one.prompt, {}).setdefault(one.responses[0], []).append(record.z_score)
    assert found.kendall.mean == pytest.approx(np.mean(taus))
    assert found.kendall.n == len(taus)
    assert found.auc.mean == pytest.approx(metrics.roc_auc_score(*zip(*thumbs, strict=True)))
    rated = [(model.scores[text], z) for texts in z_scores.values() for text, zs in texts.items() for z in zs]
    assert found.spearman.mean == pytest.approx(stats.spearmanr(*zip(*rated, strict=True)).statistic)
    within = [
        stats.spearmanr([model.scores[t] for t in texts], [np.mean(zs) for zs in texts.values()]).statistic
        for texts in z_scores.values()
        if len(texts) >= 3 and len({np.mean(zs) for zs in texts.values()}) > 1
    ]
    assert found.spearman_within.mean == pytest.approx(np.mean(within))
    assert found.spearman_within.n == len(within) > 2


def test_calibration_takes_log_odds_of_stated_orders(judged):
    model = Table()
    differences = [
        model.deviation * (np.float64(np.float32(model.scores[c.better])) - np.float32(model.scores[c.worse]))
        for c in judged_comparisons(judged)
        if c.kind != "rating"
    ]
    found = measure_held_out(model, judged).calibration
    assert found.n == len(differences) < len(judged_comparisons(judged))
    assert found.nll == pytest.approx(np.mean(np.logaddexp(0, -np.array(differences))))


def test_a_model_of_length_alone_is_found_out(judged):
    model = Table()
    model.scores = {word: float(len(word)) for word in WORDS}
    found = measure_held_out(model, judged).length
    unequal = [c for c in judged_comparisons(judged) if len(c.better) != len(c.worse)]
    longer = [len(c.better) > len(c.worse) for c in unequal]
    assert (found.longer.mean, found.shorter.mean, found.model.mean) == (1, 0, 1)
    assert (found.longer.n, found.shorter.n, found.people.n) == (sum(longer), len(longer) - sum(longer), len(longer))
    assert found.people.mean == pytest.approx(np.mean(longer))
    assert found.correlation.mean == pytest.approx(1)


def test_length_at_equal_worth(judged):
    """Where the truth is known, what is left of length is what the model adds to it."""
    model, plain = Table(like_length=0.5), Table()
    found = measure_held_out(model, judged, truth=lambda prompt, response: plain.scores[response])
    assert found.length.control == "utility"
    assert found.length.partial.mean > 0.8
    assert measure_held_out(model, judged).length.control == "ratings"
    same = measure_held_out(plain, judged, truth=lambda prompt, response: plain.scores[response])
    assert same.length.partial is None, "the truth says all about the score"


def test_what_the_feedback_can_not_tell_is_absent():
    edits = standardise([Feedback(prompt="p", responses=("d", "d"), judgement=Edit())])
    found = measure_held_out(Table(), edits)
    assert (found.accuracy, found.by_source, found.tied, found.calibration, found.kendall) == ({}, {}, None, None, None)
    assert (found.spearman, found.spearman_within, found.auc, found.length.longer) == (None, None, None, None)
    assert (found.metrics(), found.objective) == ({}, 0.0)
    ratings = [Feedback(prompt=f"p{i}", responses=(WORDS[i],), judgement=Rating(value=i, scale=(0, 9))) for i in range(5)]
    rated = measure_held_out(Table(), standardise(ratings))
    assert rated.objective == rated.spearman.mean != 0
    assert (rated.accuracy, rated.calibration, rated.spearman_within) == ({}, None, None)


def test_metrics_and_card_name_the_same(judged):
    found = measure_held_out(Table(), judged)
    metrics, card = found.metrics(), found.card()["metrics"]
    assert metrics.keys() == card.keys() >= {
        "accuracy/all", "accuracy/pair", "accuracy/longer", "ece", "brier", "nll", "tied", "kendall/ranking", "spearman/rating",
        "spearman/rating_within_prompt", "auc/thumbs", "length/spearman", "length/partial",
    }  # fmt: skip
    assert card["ece"] == metrics["ece"]
    assert card["accuracy/all"] == {name: getattr(found.accuracy["all"], name) for name in ("mean", "low", "high", "n")}
    assert all(math.isfinite(value) for value in metrics.values())


SHARED = """
import sys
sys.path.insert(0, {tests!r})
import json, torch
from test_held_out import Table, feedback
from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.reward.evaluation.measure import measure_held_out

def work(rank):
    torch.distributed.init_process_group("gloo", init_method="file://{store}", rank=rank, world_size=2)
    found = [measure_held_out(Table(coarse=0.25), standardise(feedback(n, prompts=prompts))) for n, prompts in ((200, 23), (40, 1))]
    open("{store}" + str(rank), "w").write(json.dumps([one.card() for one in found]))
    torch.distributed.destroy_process_group()

torch.multiprocessing.start_processes(work, nprocs=2, start_method="fork")
"""


@pytest.mark.slow
def test_two_processes_share_the_work_and_agree(tmp_path):
    """Also where one of them has no prompt at all."""
    code = SHARED.format(tests=str(Path(__file__).parent), store=tmp_path / "store")
    done = run([sys.executable, "-c", code], timeout=120)
    assert done.returncode == 0, done.stderr
    first, second = (json.loads((tmp_path / f"store{rank}").read_text()) for rank in range(2))
    assert first == second
    for found, (n, prompts) in zip(first, ((200, 23), (40, 1)), strict=True):
        expected = measure_held_out(Table(coarse=0.25), standardise(feedback(n, prompts=prompts))).card()
        assert found["verdict"] == expected["verdict"]
        assert found["metrics"].keys() == expected["metrics"].keys()
        for name, value in expected["metrics"].items():
            assert found["metrics"][name] == pytest.approx(value), name


def drawn(n: int, factor: float = 1.0, seed: int = 0) -> np.ndarray:
    """Differences (better - worse) of a model whose log-odds are `factor` times the true ones."""
    rng = np.random.default_rng(seed)
    true = rng.normal(size=n) * 2
    won = rng.random(n) < 1 / (1 + np.exp(-true))
    return factor * np.where(won, true, -true)


def brute_force(differences: np.ndarray, bins: int) -> float:
    """Bin by the share of comparisons that are less sure, those that are as sure counting half."""
    sure = [1 / (1 + math.exp(-abs(d))) for d in differences.tolist()]
    right = [1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences.tolist()]
    gaps: dict[int, float] = {}
    for c, r in zip(sure, right, strict=True):
        share = (sum(other < c for other in sure) + sum(other == c for other in sure) / 2) / len(sure)
        gaps[int(share * bins)] = gaps.get(int(share * bins), 0.0) + c - r
    return sum(map(abs, gaps.values())) / len(sure)


@pytest.mark.parametrize(("n", "bins"), [(1, 1), (39, 1), (47, 2), (239, 11), (700, 12)])
def test_the_error_by_brute_force(n, bins):
    differences = drawn(n, 2.5)
    differences[:: max(n // 5, 1)] = 0
    found = calibration(differences, np.arange(n))
    assert found is not None
    assert (len(found.bins), found.n) == (bins, n)
    assert max(one.right.n for one in found.bins) - min(one.right.n for one in found.bins) <= 5, "five are equally sure"
    assert found.ece == pytest.approx(brute_force(differences, bins), abs=1e-12)
    assert sum(one.right.n for one in found.bins) == n
    assert [one.stated for one in found.bins] == sorted(one.stated for one in found.bins)


def test_brier_and_likelihood_are_those_of_the_judgements():
    found = calibration(np.array([2.0, -1.0, 0.0, 500.0, -500.0]), np.arange(5))
    p = [1 / (1 + math.exp(-d)) for d in (2.0, -1.0, 0.0)]
    assert found is not None
    assert found.brier == pytest.approx((sum((1 - q) ** 2 for q in p) + 0 + 1) / 5)
    assert found.nll == pytest.approx((-sum(math.log(q) for q in p) + 0 + 500) / 5)


def test_with_one_bin_for_each_sureness_it_is_torchmetrics_error():
    """Two kinds of sureness, each a bin of ours and of equal width, too."""
    from torchmetrics.functional.classification import binary_calibration_error

    differences = np.concatenate([np.repeat([0.4, -0.4], [9, 11]), np.repeat([2.0, -2.0], [15, 5])])
    ours = calibration(differences, np.arange(40))
    sure = torch.sigmoid(torch.tensor(np.abs(differences)))
    theirs = binary_calibration_error(sure, torch.tensor(differences > 0).long(), n_bins=4, norm="l1")
    assert ours is not None
    assert ours.ece == pytest.approx(theirs.item(), abs=1e-6)


def test_true_odds_leave_what_chance_leaves_and_wrong_ones_more():
    n, times = 600, 60
    found = [one for one in (calibration(drawn(n, 1.0, seed), np.arange(n)) for seed in range(times)) if one]
    errors = [one.ece for one in found]
    assert np.mean(errors) == pytest.approx(np.mean([one.ece_by_chance for one in found]), rel=0.05)
    sure = calibration(drawn(n, 4.0), np.arange(n))
    assert sure is not None
    assert sure.ece > max(errors)
    assert sure.nll > found[0].nll
    assert calibration(np.zeros(0), np.zeros(0)) is None


def test_the_intervals_of_the_bins_know_the_prompts():
    differences = drawn(400)
    alone, together = calibration(differences, np.arange(400)), calibration(np.repeat(differences[:100], 4), np.repeat(np.arange(100), 4))
    assert alone is not None
    assert together is not None
    width = [np.mean([one.right.high - one.right.low for one in found.bins]) for found in (alone, together)]
    assert width[1] > 1.4 * width[0]
