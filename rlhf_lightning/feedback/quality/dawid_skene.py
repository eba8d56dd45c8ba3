"""Dawid and Skene's model of labels by several annotators, fitted by EM.

Own code: leave-one-out posteriors, weights and shrinkage aren't in crowd-kit (the tests' reference).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_EPS = 1e-10


@dataclass(frozen=True)
class DawidSkene:
    """I items, A annotators, K labels.

    Attributes:
        posteriors: [I, K] probability of each label being the true one.
        priors: [K] frequency of each true label.
        confusion: [A, K, K] probability that the annotator gives the second label if the first is true.
        iterations: number of EM steps.
    """

    posteriors: np.ndarray
    priors: np.ndarray
    confusion: np.ndarray
    iterations: int

    def without(self, item: np.ndarray, annotator: np.ndarray, label: np.ndarray) -> np.ndarray:
        """Return [N, K] the posterior of each judgement's item without that judgement."""
        log_posterior = np.log(np.clip(self.posteriors[item], _EPS**10, None)) - np.log(self.confusion[annotator, :, label])
        return _normalise(log_posterior)


def dawid_skene(
    item: np.ndarray,
    annotator: np.ndarray,
    label: np.ndarray,
    *,
    labels: int,
    one_coin: bool = False,
    shrink: float = 0.0,
    weight: np.ndarray | None = None,
    iterations: int = 100,
    tolerance: float = 1e-6,
) -> DawidSkene:
    """Fit the model by EM, starting from each item's label frequencies.

    A. P. Dawid, A. M. Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", 1979. With `shrink=0`
    the iterations are those of crowdkit's DawidSkene and OneCoinDawidSkene.

    Args:
        item, annotator, label: [N] integers from 0; N judgements, several by one annotator of one item allowed.
        labels: K, the number of labels.
        one_coin: an annotator is right with one probability and otherwise gives any other label uniformly (Zhang et al., 2016).
        shrink: number of judgements of the average annotator added to each annotator's (as many of each true label).
        weight: [N] of a judgement in its annotator's confusion matrix; for its item each counts 1.
        tolerance: EM ends when no posterior changes by more.
    """
    items, annotators = int(item.max()) + 1, int(annotator.max()) + 1
    weight = np.ones(len(item)) if weight is None else weight
    posteriors = np.zeros((items, labels))
    np.add.at(posteriors, (item, label), 1.0)
    posteriors /= posteriors.sum(1, keepdims=True).clip(1)
    present = np.bincount(item, minlength=items) > 0
    cell = annotator * labels + label
    step = 0
    while True:
        priors = np.clip(posteriors[present].mean(0), _EPS, None)
        expected_counts = np.stack([np.bincount(cell, weight * posteriors[item, k], annotators * labels) for k in range(labels)])
        confusion = _confusion(expected_counts.reshape(labels, annotators, labels).swapaxes(0, 1), shrink, one_coin)
        if step >= iterations:
            break
        log_likelihood = np.log(confusion)[annotator, :, label]
        item_log_likelihood = np.stack([np.bincount(item, log_likelihood[:, k], items) for k in range(labels)], axis=1)
        previous, posteriors = posteriors, _normalise(np.log(priors) + item_log_likelihood)
        step += 1
        if np.abs(posteriors - previous).max() <= tolerance:
            iterations = step
    return DawidSkene(posteriors, priors / priors.sum(), confusion, step)


def _confusion(counts: np.ndarray, shrink: float, one_coin: bool) -> np.ndarray:
    """Return confusion matrices [A, true, given] from expected counts."""
    labels = counts.shape[-1]
    if one_coin:
        right, count = np.trace(counts, axis1=1, axis2=2), counts.sum((1, 2))
        mean = right.sum() / max(count.sum(), _EPS)
        accuracy = (right + shrink * mean) / np.clip(count + shrink, _EPS, None)
        shares = np.repeat(((1 - accuracy) / (labels - 1))[:, None, None], labels, 1).repeat(labels, 2)
        shares[:, range(labels), range(labels)] = accuracy[:, None]
        return np.asarray(np.clip(shares, _EPS, 1 - _EPS))
    pooled = counts.sum(0) + _EPS
    counts = counts + shrink * (pooled / pooled.sum(1, keepdims=True)) / labels
    counts = np.clip(counts, _EPS, None)
    return np.asarray(counts / counts.sum(2, keepdims=True))


def _normalise(log: np.ndarray) -> np.ndarray:
    shifted = np.exp(log - log.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))
