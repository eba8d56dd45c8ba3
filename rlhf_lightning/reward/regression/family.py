"""Families of features: named numbers computed from a prompt and a response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

PlainText = tuple[str, str]
"""A prompt as plain text, and a response."""

FeatureRow = Sequence[float] | Mapping[int, float] | np.ndarray
"""Features of a text: all of them in order, or those other than 0 by index."""


class FeatureFamily:
    """Named features of a text.

    A subclass defines `names` and `__call__`, or `rows` if batches are faster.

    Attributes:
        names: the features' names, in order; complete after `fit`.
        joint_deviation: None, each feature is centred and scaled by its deviation over the training texts. A number: the features are
            mostly 0, keep their zeros, and share one scale, by which their variances sum to the number squared, so that a rare word
            isn't scaled up to the size of a common one.
        deviations: None, or the deviation that each feature is scaled to if it isn't 1; for a block of many dense features.
        is_block: cross-validate a factor on the penalty of these features.
        report: log function for the progress of a long job.
    """

    names: Sequence[str] = ()
    joint_deviation: float | None = None
    deviations: Sequence[float] | None = None
    is_block: bool = False
    report: Callable[[str], None] = staticmethod(lambda text: None)

    def fit(self, texts: Sequence[PlainText]) -> None:
        """Learn the features from the training texts, if they aren't fixed."""

    def prefetch(self, texts: Sequence[PlainText]) -> None:
        """Compute what is faster for all texts at once; `rows` is then called with some of them at a time."""

    def rows(self, texts: Sequence[PlainText]) -> Iterable[FeatureRow]:
        """The features of each text, in order."""
        return (self(prompt, response) for prompt, response in texts)

    def __call__(self, prompt: str, response: str) -> FeatureRow:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """The result of `fit` as JSON, for a saved model."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore a saved state in place of `fit`."""


class ScalarFeature(FeatureFamily):
    """A plain function `(prompt, response) -> float`: one feature, named after its option."""

    def __init__(self, name: str, function: Callable[[str, str], float]) -> None:
        self.names, self.function = [name], function

    def __call__(self, prompt: str, response: str) -> list[float]:
        return [float(self.function(prompt, response))]


def as_family(name: str, component: Any) -> FeatureFamily:
    """Wrap a component of the group reward_feature as a family."""
    return component if isinstance(component, FeatureFamily) else ScalarFeature(name, component)
