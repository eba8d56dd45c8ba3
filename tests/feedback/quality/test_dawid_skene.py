"""Dawid and Skene's model against crowdkit's, and against what was simulated."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from crowdkit.aggregation import DawidSkene as Reference
from crowdkit.aggregation import OneCoinDawidSkene as ReferenceCoin

from rlhf_lightning.feedback.quality.dawid_skene import DawidSkene, dawid_skene

pytestmark = pytest.mark.filterwarnings("ignore:.*(inplace|copy) keyword.*")


def simulated(
    seed: int, items: int = 60, annotators: int = 8, labels: int = 3
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(labels, size=items)
    confusion = rng.dirichlet(np.ones(labels), size=(annotators, labels)) * 0.4
    confusion[:, range(labels), range(labels)] += 0.6
    item = np.repeat(np.arange(items), 5)
    annotator = np.concatenate([rng.choice(annotators, 5, replace=False) for _ in range(items)])
    label = np.array([rng.choice(labels, p=confusion[a, truth[i]]) for i, a in zip(item, annotator, strict=True)])
    return item, annotator, label, truth, confusion


@pytest.mark.parametrize("labels", [2, 3])
@pytest.mark.parametrize("one_coin", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_after_as_many_iterations_it_is_crowdkit_s(seed: int, one_coin: bool, labels: int) -> None:
    item, annotator, label, _, _ = simulated(seed, labels=labels)
    data = pd.DataFrame({"task": item, "worker": annotator, "label": label})
    reference = (ReferenceCoin if one_coin else Reference)(n_iter=12, tol=-np.inf)
    expected = reference.fit_predict_proba(data).sort_index()[range(labels)].to_numpy()
    found = dawid_skene(item, annotator, label, labels=labels, one_coin=one_coin, iterations=12, tolerance=-1.0)
    np.testing.assert_allclose(found.posteriors, expected, atol=1e-6)
    np.testing.assert_allclose(found.priors, reference.priors_.sort_index().to_numpy(), atol=1e-6)
    assert found.posteriors.argmax(1).tolist() == reference.labels_.sort_index().tolist()


def test_it_finds_the_confusion_that_was_simulated() -> None:
    item, annotator, label, truth, confusion = simulated(0, items=4000)
    found = dawid_skene(item, annotator, label, labels=3)
    assert (found.posteriors.argmax(1) == truth).mean() > 0.93
    assert np.abs(found.confusion - confusion).max() < 0.06
    np.testing.assert_allclose(found.confusion.sum(2), 1)


def test_who_judged_little_is_shrunk_to_the_mean() -> None:
    item, annotator, label, _, _ = simulated(1, items=400, labels=2)
    newcomer = annotator.max() + 1
    item, annotator, label = np.append(item, 0), np.append(annotator, newcomer), np.append(label, 1 - np.round(label[:5].mean()))
    label = label.astype(int)
    alone = dawid_skene(item, annotator, label, labels=2, one_coin=True).confusion[newcomer, 0, 0]
    shrunk = dawid_skene(item, annotator, label, labels=2, one_coin=True, shrink=4.0).confusion[:, 0, 0]
    assert alone < 0.05
    assert abs(shrunk[newcomer] - shrunk[:-1].mean()) < 0.2


def test_without_leaves_out_exactly_one_judgement() -> None:
    """The posterior is proportional to the prior and everyone's say."""
    item, annotator, label, _, _ = simulated(2)
    found = dawid_skene(item, annotator, label, labels=3, shrink=1.0, iterations=500, tolerance=1e-12)
    left = found.without(item, annotator, label)
    for row in (0, 7, 100):
        told = found.priors.copy()
        for other in np.flatnonzero(item == item[row]):
            if other != row:
                told *= found.confusion[annotator[other], :, label[other]]
        np.testing.assert_allclose(left[row], told / told.sum(), atol=1e-6)


def test_a_weight_counts_for_the_annotator_and_not_for_the_item() -> None:
    item, annotator, label, _, _ = simulated(3, labels=2)

    def fit(shrink: float, weight: np.ndarray | None = None) -> DawidSkene:
        return dawid_skene(item, annotator, label, labels=2, one_coin=True, shrink=shrink, iterations=5, tolerance=-1.0, weight=weight)

    # Half of all own judgements against four of the mean's: as all of them against eight.
    half, all_ = fit(4.0, np.full(len(item), 0.5)), fit(8.0)
    np.testing.assert_allclose(half.confusion, all_.confusion, atol=1e-9)
    np.testing.assert_allclose(half.posteriors, all_.posteriors, atol=1e-9)
    light = fit(4.0, np.where(annotator == 0, 0.01, 1.0)).confusion[:, 0, 0]
    assert abs(light[0] - light.mean()) < abs(fit(4.0).confusion[0, 0, 0] - light.mean())
