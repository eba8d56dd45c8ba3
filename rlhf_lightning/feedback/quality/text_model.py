"""What the words of a text say about the judgement of it, learned from the judgements of other prompts."""

from __future__ import annotations

import math
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, logsigmoid

from rlhf_lightning.feedback.judgements import prompt_share
from rlhf_lightning.feedback.quality.fitting import minimise
from rlhf_lightning.feedback.words import words_of
from rlhf_lightning.flow import Prompt

BUCKETS = 2**16
_LENGTH, _ALWAYS = BUCKETS, BUCKETS + 1
FEWEST_PROMPTS = 20

Features = dict[int, float]


@dataclass(frozen=True)
class Texts:
    """Texts as features, in compressed rows.

    Attributes:
        columns, values: of all rows, one after the other. starts: [N] where each row begins.
    """

    columns: Tensor
    values: Tensor
    starts: Tensor

    @classmethod
    def of(cls, rows: Iterable[Features]) -> Texts:
        columns, values, starts = array("q"), array("d"), array("q")
        for row in rows:
            starts.append(len(columns))
            columns.extend(row.keys())
            values.extend(row.values())
        return cls(
            torch.tensor(columns, dtype=torch.long), torch.tensor(values, dtype=torch.float64), torch.tensor(starts, dtype=torch.long)
        )

    def take(self, rows: np.ndarray) -> Texts:
        """The rows at these places."""
        ends = torch.cat([self.starts[1:], torch.tensor([len(self.columns)])])
        at = torch.as_tensor(rows)
        sizes = (ends - self.starts)[at]
        starts = torch.cumsum(sizes, 0) - sizes
        cells = torch.arange(int(sizes.sum())) + torch.repeat_interleave(self.starts[at] - starts, sizes)
        return Texts(self.columns[cells], self.values[cells], starts)

    def times(self, vector: Tensor) -> Tensor:
        """[N] the product with a vector of all columns."""
        return embedding_bag(self.columns, vector[:, None], self.starts, mode="sum", per_sample_weights=self.values)[:, 0]


def features(text: str) -> Features:
    """log(1 + count) of each word, in one of 65,536 buckets by its CRC-32, and the logarithm of the number of characters."""
    counts = Counter(zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS for word in words_of(text))
    row = {bucket: math.log1p(times) for bucket, times in counts.items()}
    row[_LENGTH] = math.log1p(len(text))
    return row


def better_than(better: Features, worse: Features) -> Features:
    """The difference of two texts."""
    row = {column: better.get(column, 0.0) - worse.get(column, 0.0) for column in better.keys() | worse.keys()}
    return {column: value for column, value in sorted(row.items()) if value}


def as_said(row: Features, up: bool) -> Features:
    """One text whose judgement is up or down, with a constant for how often people say up."""
    sign = 1.0 if up else -1.0
    return {column: sign * value for column, value in {**row, _ALWAYS: 1.0}.items()}


def log_odds(rows: Texts, prompts: Sequence[Prompt], weight: np.ndarray, *, ridge: float = 1.0, folds: int = 5) -> np.ndarray:
    """[N] log-odds that what was said is right, each by a logistic regression on the judgements of other prompts.

    Rows hold features signed by what was said (`better_than`, `as_said`), so that a positive product speaks for it. The log-odds of
    all folds are then multiplied by the one number, 0 or more, that makes them most likely: where words tell nothing, they are all 0.

    Args:
        prompts: [N] a prompt's judgements lie in one fold, by its text.
        weight: [N] how much each counts in the fit.
        ridge: the penalty of the squared weights, halved.
        folds: into how many parts the prompts are divided.
    """
    number = np.array([prompt_share(prompt) for prompt in prompts])
    found = np.zeros(len(number))
    if len(np.unique(number)) < FEWEST_PROMPTS:
        return found
    # Only the words that occur take part.
    used, columns = np.unique(rows.columns.numpy(), return_inverse=True)
    rows = Texts(torch.from_numpy(columns), rows.values, rows.starts)
    fold = (number * folds).astype(np.int64)
    counts = torch.as_tensor(weight, dtype=torch.float64)
    for part in range(folds):
        inside, outside = np.flatnonzero(fold == part), np.flatnonzero(fold != part)
        if len(inside) and len(outside):
            found[inside] = rows.take(inside).times(_fitted(rows.take(outside), counts[outside], ridge, len(used))).numpy()
    return found * _scale(torch.as_tensor(found), counts)


def _fitted(rows: Texts, weight: Tensor, ridge: float, columns: int) -> Tensor:
    vector = torch.zeros(columns, dtype=torch.float64, requires_grad=True)
    minimise([vector], lambda: -(weight * logsigmoid(rows.times(vector))).sum() + ridge / 2 * (vector**2).sum(), 100, 1e-2)
    return vector.detach()


def _scale(found: Tensor, weight: Tensor) -> float:
    log_scale = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    lost = minimise([log_scale], lambda: -(weight * logsigmoid(log_scale.exp() * found)).sum(), 50)
    # Words that tell nothing, or the wrong way round.
    return float(log_scale.detach().exp()) if lost < math.log(2) * float(weight.sum()) else 0.0
