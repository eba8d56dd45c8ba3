"""Labels from several annotators: the true label of each item and how each annotator confuses labels, by EM."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_LEAST = 1e-10


@dataclass(frozen=True)
class DawidSkene:
    """I items, A annotators, K labels.

    Attributes:
        posteriors: [I, K] probability of each label being the true one.
        priors: [K] how frequent each true label is.
        confusion: [A, K, K] probability that the annotator says the second label where the first is true.
        iterations: how many were made.
    """

    posteriors: np.ndarray
    priors: np.ndarray
    confusion: np.ndarray
    iterations: int

    def without(self, item: np.ndarray, annotator: np.ndarray, label: np.ndarray) -> np.ndarray:
        """[N, K] for each judgement: the probability of the item's true labels from everyone's judgements but this one."""
        told = np.log(np.clip(self.posteriors[item], _LEAST**10, None)) - np.log(self.confusion[annotator, :, label])
        return _normalised(told)


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
    """A. P. Dawid, A. M. Skene, "Maximum likelihood estimation of observer error-rates using the EM algorithm", 1979.

    Starts from each item's shares of labels. With `shrink=0` these are the iterations of crowdkit's DawidSkene and OneCoinDawidSkene.

    Args:
        item, annotator, label: [N] whole numbers from 0; N judgements, several by one annotator of one item allowed.
        labels: K, how many labels there are.
        one_coin: an annotator is right with one probability and otherwise says any of the other labels alike (Zhang et al., 2016).
        shrink: that many judgements of the average annotator are added to each one's own (as many of each true label), so that who judged
            little is like the mean.
        weight: [N] how much a judgement tells about its annotator; as to its item each counts in full.
        tolerance: EM ends when no posterior moves by more.
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
        priors = np.clip(posteriors[present].mean(0), _LEAST, None)
        said = np.stack([np.bincount(cell, weight * posteriors[item, k], annotators * labels) for k in range(labels)])
        confusion = _confusion(said.reshape(labels, annotators, labels).swapaxes(0, 1), shrink, one_coin)
        if step >= iterations:
            break
        seen = np.log(confusion)[annotator, :, label]
        told = np.stack([np.bincount(item, seen[:, k], items) for k in range(labels)], axis=1)
        before, posteriors = posteriors, _normalised(np.log(priors) + told)
        step += 1
        if np.abs(posteriors - before).max() <= tolerance:
            iterations = step
    return DawidSkene(posteriors, priors / priors.sum(), confusion, step)


def _confusion(said: np.ndarray, shrink: float, one_coin: bool) -> np.ndarray:
    """[A, true, said] shares from expected counts."""
    labels = said.shape[-1]
    if one_coin:
        right, count = np.trace(said, axis1=1, axis2=2), said.sum((1, 2))
        mean = right.sum() / max(count.sum(), _LEAST)
        accuracy = (right + shrink * mean) / np.clip(count + shrink, _LEAST, None)
        shares = np.repeat(((1 - accuracy) / (labels - 1))[:, None, None], labels, 1).repeat(labels, 2)
        shares[:, range(labels), range(labels)] = accuracy[:, None]
        return np.asarray(np.clip(shares, _LEAST, 1 - _LEAST))
    pooled = said.sum(0) + _LEAST
    counts = said + shrink * (pooled / pooled.sum(1, keepdims=True)) / labels
    counts = np.clip(counts, _LEAST, None)
    return np.asarray(counts / counts.sum(2, keepdims=True))


def _normalised(log: np.ndarray) -> np.ndarray:
    shifted = np.exp(log - log.max(1, keepdims=True))
    return np.asarray(shifted / shifted.sum(1, keepdims=True))
