"""What a feature is: a family of named numbers of a prompt and a response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Text = tuple[str, str]
"""A prompt and a response."""

Row = Sequence[float] | Mapping[int, float] | np.ndarray
"""A text's features: all of them in order, or those that aren't 0 by their index."""


class Family:
    """Named features of a text: a subclass defines `names` and `__call__`, or `rows` where many texts at once are faster.

    Attributes:
        names: what each feature is called, in order; complete after `fit`.
        together: None, each feature is centred and scaled by its own deviation over the training texts. A number: the features are
            mostly 0, keep their zeros, and share one scale, by which the variances of all of them add up to the number squared; so
            a rare word isn't blown up to the size of a common one.
        deviations: None, or the deviation that each feature is scaled to, where it isn't 1; for a block of many dense features.
        is_block: whether the features' penalty gets a factor of its own by cross-validation.
        report: takes lines on the progress of a long job.
    """

    names: Sequence[str] = ()
    together: float | None = None
    deviations: Sequence[float] | None = None
    is_block: bool = False
    report: Callable[[str], None] = staticmethod(lambda text: None)

    def fit(self, texts: Sequence[Text]) -> None:
        """Learn from the training texts what the features are, where that isn't known beforehand."""

    def prefetch(self, texts: Sequence[Text]) -> None:
        """Compute what is faster for all texts together; `rows` is then called with some of them at a time."""

    def rows(self, texts: Sequence[Text]) -> Iterable[Row]:
        """The features of each text, in order."""
        return (self(prompt, response) for prompt, response in texts)

    def __call__(self, prompt: str, response: str) -> Row:
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """What `fit` learned, as JSON, for a saved model."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state in place of `fit`."""


class One(Family):
    """A plain function `(prompt, response) -> float`: one feature, called as its option."""

    def __init__(self, name: str, function: Callable[[str, str], float]) -> None:
        self.names, self.function = [name], function

    def __call__(self, prompt: str, response: str) -> list[float]:
        return [float(self.function(prompt, response))]


def family_of(name: str, component: Any) -> Family:
    """A component of the group reward_feature as a family."""
    return component if isinstance(component, Family) else One(name, component)
