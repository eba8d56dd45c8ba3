"""Embeddings of response and prompt by a frozen language model."""

from __future__ import annotations

import functools
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.errors import DataError
from rlhf_lightning.model.sentence_encoder import SentenceEncoder
from rlhf_lightning.registry import register
from rlhf_lightning.reward.regression.family import FeatureFamily, PlainText

SETTING = "reward_feature.embedding.path"
CACHE_BYTES = 2**29
"""Memory for cached vectors, least recently used first out."""
CANARY, TOLERANCE = "The quick brown fox, 1 + 1 = 2.", 1e-3
"""A text, and the maximum difference of its unit vector from the saved one."""
LINES, QUIET_SECONDS = 5, 5.0
"""Number of progress reports of a long job, and the time before the first."""


@register("reward_feature", "embedding")
class Embedding(FeatureFamily):
    """Embeddings of response and prompt by a frozen language model, their product, and the length ratio.

    Each text is encoded separately, with the tokenizer's special tokens or as a sentence-transformers folder defines
    (model.sentence_encoder). Vectors have length 1; a blank text has the vector 0. There is a feature per dimension, "response 17" and
    "product 17" (with the prompt's vector): they show the embedding's weight in the score, not its reasons. Beside other features their
    penalty has its own factor. The model isn't saved with the reward model: when that is loaded, the folder must give the same dimensions
    and the same vector for a fixed text.

    Args:
        path: folder or Hub name of any Hugging Face language model or sentence encoder.
        max_length: tokens of a text; a longer response loses its end, a longer prompt its beginning. null takes the value of a
            sentence-transformers folder, else 512.
        batch_size: texts at a time.
        strength: the joint deviation of all dimensions, relative to 1 of any other feature.
    """

    is_block = True

    def __init__(
        self,
        *,
        path: ModelPath,
        max_length: PositiveInt | None = None,
        batch_size: PositiveInt = 32,
        strength: PositiveFloat = 3.0,
    ) -> None:
        self.path, self.max_length, self.batch_size, self.strength = path, max_length, batch_size, strength
        self.embedder: _Embedder | None = None

    def fit(self, texts: Sequence[PlainText]) -> None:
        self._load()
        self._embed(texts)

    def rows(self, texts: Sequence[PlainText]) -> Iterator[np.ndarray]:
        vectors = self._embed(texts)
        for prompt, response in texts:
            prompt_vector, response_vector = vectors[prompt, True], vectors[response, False]
            log_ratio = math.log1p(len(response)) - math.log1p(len(prompt))
            yield np.concatenate([response_vector, response_vector * prompt_vector, [log_ratio]]).astype(np.float64)

    def prefetch(self, texts: Sequence[PlainText]) -> None:
        self._embed(texts)

    def state(self) -> dict[str, Any]:
        return {"dimensions": len(self.names), "canary": self._canary().tolist()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self._load()
        if len(self.names) != state["dimensions"]:
            raise DataError(f"{self.path} gives {len(self.names)} features now, and the reward model was trained on {state['dimensions']}")
        difference = float(np.abs(self._canary() - np.array(state["canary"])).max())
        if difference > TOLERANCE:
            raise DataError(
                f"{self.path} is another model than the reward model was trained on: the vector of {CANARY!r} differs by {difference:.2g}; "
                "put that model back, or train the reward model again"
            )

    def _canary(self) -> np.ndarray:
        """The vector [D] of a fixed text, to identify the model."""
        return self._embed([("", CANARY)])[CANARY, False]

    def _load(self) -> None:
        self.embedder = _embedder(self.path, self.max_length, _stamp(self.path))
        width = self.embedder.encoder.width
        self.names = [*(f"{part} {i}" for part in ("response", "product") for i in range(width)), "length difference"]
        self.deviations = [self.strength / math.sqrt(2 * width)] * (2 * width) + [1.0]

    def _embed(self, texts: Sequence[PlainText]) -> dict[_Side, np.ndarray]:
        if self.embedder is None:
            raise RuntimeError("fit or restore the embedding before its rows are computed")
        sides: list[_Side] = [side for prompt, response in texts for side in ((prompt, True), (response, False))]
        vectors = self.embedder.vectors(sides, self.batch_size, self.report)
        broken = next((text for (text, _), vector in vectors.items() if not np.isfinite(vector).all()), None)
        if broken is not None:
            raise DataError(f"{SETTING}: {self.path} gives a vector that isn't finite, for {broken[:60]!r}; its weights are damaged")
        return vectors


_Side = tuple[str, bool]
"""A text, and whether it is a prompt."""


class _Embedder:
    """A sentence encoder with a cache of unit vectors."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder
        self.cache: OrderedDict[_Side, np.ndarray] = OrderedDict()
        self.capacity = max(1, CACHE_BYTES // (4 * encoder.width))

    def vectors(self, sides: Sequence[_Side], batch_size: int, report: Callable[[str], None]) -> dict[_Side, np.ndarray]:
        """The vector [D] of each side; sides that aren't cached are embedded once."""
        distinct = dict.fromkeys(sides)
        vectors: dict[_Side, np.ndarray] = {side: self.cache[side] for side in distinct if side in self.cache}
        missing = [side for side in distinct if side not in vectors]
        progress = _ProgressReports(sum(bool(text.strip()) for text, _ in missing), report)
        for is_prompt in (False, True):
            part = [side for side in missing if side[1] == is_prompt]
            nonblank = [side for side in part if side[0].strip()]
            rows = self.encoder.encode(
                [text for text, _ in nonblank], cut_beginning=is_prompt, batch_size=batch_size, progress=progress.advance_to
            )
            progress.start += len(nonblank)
            vectors |= dict.fromkeys(part, np.zeros(self.encoder.width, np.float32))
            unit = (rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy()
            vectors |= dict(zip(nonblank, unit, strict=True))
        for side in distinct:
            self.cache[side] = vectors[side]
            self.cache.move_to_end(side)
        while len(self.cache) > self.capacity:
            self.cache.popitem(last=False)
        return vectors


class _ProgressReports:
    """Report the progress of a long job in a few lines."""

    def __init__(self, total: int, report: Callable[[str], None]) -> None:
        self.total, self.report, self.start, self.next = total, report, 0, 1
        self.start_time = time.perf_counter()

    def advance_to(self, count: int) -> None:
        count += self.start
        seconds = time.perf_counter() - self.start_time
        if seconds < QUIET_SECONDS or count * LINES < self.next * self.total:
            return
        self.next = count * LINES // self.total + 1
        rest = f", {seconds / count * (self.total - count):.0f} s left" if count < self.total else ""
        self.report(f"embedding: {count:,} of {self.total:,} texts, {seconds:.0f} s{rest}")


@functools.lru_cache(maxsize=2)
def _embedder(path: str, max_length: int | None, stamp: tuple[Any, ...]) -> _Embedder:
    """The encoder of a path, shared with its cache by the reward models of a run."""
    return _Embedder(SentenceEncoder(path, SETTING, max_length))


def _stamp(path: str) -> tuple[Any, ...]:
    """Names, sizes and times of a folder's files, to reload a replaced model."""
    files = sorted(Path(path).rglob("*")) if Path(path).is_dir() else []
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())
