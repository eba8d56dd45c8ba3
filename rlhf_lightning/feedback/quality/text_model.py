"""A bag-of-words model of judgements, cross-fitted by prompt."""

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
_LENGTH, _BIAS = BUCKETS, BUCKETS + 1
MIN_PROMPTS = 20

Features = dict[int, float]


@dataclass(frozen=True)
class FeatureRows:
    """Texts as sparse feature rows.

    Attributes:
        columns, values: of all rows, concatenated. starts: [N] offset of each row.
    """

    columns: Tensor
    values: Tensor
    starts: Tensor

    @classmethod
    def of(cls, rows: Iterable[Features]) -> FeatureRows:
        columns, values, starts = array("q"), array("d"), array("q")
        for row in rows:
            starts.append(len(columns))
            columns.extend(row.keys())
            values.extend(row.values())
        return cls(
            torch.tensor(columns, dtype=torch.long), torch.tensor(values, dtype=torch.float64), torch.tensor(starts, dtype=torch.long)
        )

    def take(self, rows: np.ndarray) -> FeatureRows:
        """Select rows by index."""
        ends = torch.cat([self.starts[1:], torch.tensor([len(self.columns)])])
        row_index = torch.as_tensor(rows)
        sizes = (ends - self.starts)[row_index]
        starts = torch.cumsum(sizes, 0) - sizes
        cells = torch.arange(int(sizes.sum())) + torch.repeat_interleave(self.starts[row_index] - starts, sizes)
        return FeatureRows(self.columns[cells], self.values[cells], starts)

    def times(self, vector: Tensor) -> Tensor:
        """Return [N] the product with a vector of all columns."""
        return embedding_bag(self.columns, vector[:, None], self.starts, mode="sum", per_sample_weights=self.values)[:, 0]


def features(text: str) -> Features:
    """Return log(1 + count) of each word, hashed by CRC-32, and the log number of characters."""
    counts = Counter(zlib.crc32(word.encode("utf-8", "surrogatepass")) % BUCKETS for word in words_of(text))
    row = {bucket: math.log1p(times) for bucket, times in counts.items()}
    row[_LENGTH] = math.log1p(len(text))
    return row


def feature_difference(better: Features, worse: Features) -> Features:
    """Subtract the features of the worse text."""
    row = {column: better.get(column, 0.0) - worse.get(column, 0.0) for column in better.keys() | worse.keys()}
    return {column: value for column, value in sorted(row.items()) if value}


def signed_features(row: Features, up: bool) -> Features:
    """Sign a text's features by its thumb, with a constant feature for the rate of thumbs up."""
    sign = 1.0 if up else -1.0
    return {column: sign * value for column, value in {**row, _BIAS: 1.0}.items()}


def log_odds(rows: FeatureRows, prompts: Sequence[Prompt], weight: np.ndarray, *, ridge: float = 1.0, folds: int = 5) -> np.ndarray:
    """Return [N] log-odds that each judgement is right, by regressions on other prompts.

    Rows are features signed by the judgement (`feature_difference`, `signed_features`). The log-odds of all folds are then scaled by
    one number of maximum likelihood, at least 0: without text evidence they are all 0.

    Args:
        prompts: [N] all judgements of a prompt are in one fold, by a hash of its text.
        weight: [N] in the fit.
        ridge: the penalty of the squared weights, halved.
        folds: number of folds.
    """
    shares = np.array([prompt_share(prompt) for prompt in prompts])
    log_odds_by_row = np.zeros(len(shares))
    if len(np.unique(shares)) < MIN_PROMPTS:
        return log_odds_by_row
    # Drop the columns that don't occur.
    used_columns, columns = np.unique(rows.columns.numpy(), return_inverse=True)
    rows = FeatureRows(torch.from_numpy(columns), rows.values, rows.starts)
    fold = (shares * folds).astype(np.int64)
    counts = torch.as_tensor(weight, dtype=torch.float64)
    for fold_index in range(folds):
        test, train = np.flatnonzero(fold == fold_index), np.flatnonzero(fold != fold_index)
        if len(test) and len(train):
            log_odds_by_row[test] = rows.take(test).times(_fit(rows.take(train), counts[train], ridge, len(used_columns))).numpy()
    return log_odds_by_row * _scale(torch.as_tensor(log_odds_by_row), counts)


def _fit(rows: FeatureRows, weight: Tensor, ridge: float, columns: int) -> Tensor:
    vector = torch.zeros(columns, dtype=torch.float64, requires_grad=True)
    minimise([vector], lambda: -(weight * logsigmoid(rows.times(vector))).sum() + ridge / 2 * (vector**2).sum(), 100, 1e-2)
    return vector.detach()


def _scale(log_odds_by_row: Tensor, weight: Tensor) -> float:
    log_scale = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    loss = minimise([log_scale], lambda: -(weight * logsigmoid(log_scale.exp() * log_odds_by_row)).sum(), 50)
    # No better than a coin: no text evidence.
    return float(log_scale.detach().exp()) if loss < math.log(2) * float(weight.sum()) else 0.0
