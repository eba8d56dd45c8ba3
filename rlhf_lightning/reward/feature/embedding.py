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
"""Memory for the vectors of the texts that were met last."""
CANARY, TOLERANCE = "The quick brown fox, 1 + 1 = 2.", 1e-3
"""A text, and how far its unit vector may be from the one that was saved."""
LINES, QUIET_SECONDS = 5, 5.0
"""How often the progress of a long job is reported, and how long a job must have run for it."""


@register("reward_feature", "embedding")
class Embedding(FeatureFamily):
    """Embeddings of response and prompt by a frozen language model, their product, and how much longer the response is.

    The model reads each text by itself, with its tokenizer's special tokens; a folder of sentence-transformers is read in its own way
    (backbone.sentence_encoder). Vectors have length 1; a blank text has the vector 0. A feature per dimension, "response 17" and
    "product 17" (with the prompt's vector): they tell how much the model's view of the text counts, not why. Beside other features the
    dimensions' penalty is chosen for them alone. The model isn't saved with the reward model: its folder must still be there, with as
    many dimensions and the same vector for a fixed text, when that is loaded.

    Args:
        path: folder or Hub name of any Hugging Face language model or sentence encoder.
        max_length: tokens of a text; a longer response loses its end, a longer prompt its beginning. null takes what a folder of
            sentence-transformers names, else 512.
        batch_size: texts at a time.
        strength: the deviation of all dimensions together, where any other feature has 1.
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
            asked, answer = vectors[prompt, True], vectors[response, False]
            longer = math.log1p(len(response)) - math.log1p(len(prompt))
            yield np.concatenate([answer, answer * asked, [longer]]).astype(np.float64)

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
        """The vector [D] of a fixed text, by which a model is recognised."""
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
    """A sentence encoder that remembers the unit vectors of the texts it met last."""

    def __init__(self, encoder: SentenceEncoder) -> None:
        self.encoder = encoder
        self.cache: OrderedDict[_Side, np.ndarray] = OrderedDict()
        self.capacity = max(1, CACHE_BYTES // (4 * encoder.width))

    def vectors(self, sides: Sequence[_Side], batch_size: int, report: Callable[[str], None]) -> dict[_Side, np.ndarray]:
        """The vector [D] of each side; those that aren't remembered are embedded, each once."""
        distinct = dict.fromkeys(sides)
        vectors: dict[_Side, np.ndarray] = {side: self.cache[side] for side in distinct if side in self.cache}
        missing = [side for side in distinct if side not in vectors]
        progress = _Progress(sum(bool(text.strip()) for text, _ in missing), report)
        for is_prompt in (False, True):
            part = [side for side in missing if side[1] == is_prompt]
            written = [side for side in part if side[0].strip()]
            rows = self.encoder.encode(
                [text for text, _ in written], cut_beginning=is_prompt, batch_size=batch_size, progress=progress.advance_to
            )
            progress.start += len(written)
            vectors |= dict.fromkeys(part, np.zeros(self.encoder.width, np.float32))
            unit = (rows / rows.norm(dim=1, keepdim=True).clamp(min=1e-12)).numpy()
            vectors |= dict(zip(written, unit, strict=True))
        for side in distinct:
            self.cache[side] = vectors[side]
            self.cache.move_to_end(side)
        while len(self.cache) > self.capacity:
            self.cache.popitem(last=False)
        return vectors


class _Progress:
    """Reports the progress of a long job in a few lines."""

    def __init__(self, total: int, report: Callable[[str], None]) -> None:
        self.total, self.report, self.start, self.next = total, report, 0, 1
        self.began = time.perf_counter()

    def advance_to(self, count: int) -> None:
        count += self.start
        seconds = time.perf_counter() - self.began
        if seconds < QUIET_SECONDS or count * LINES < self.next * self.total:
            return
        self.next = count * LINES // self.total + 1
        rest = f", {seconds / count * (self.total - count):.0f} s left" if count < self.total else ""
        self.report(f"embedding: {count:,} of {self.total:,} texts, {seconds:.0f} s{rest}")


@functools.lru_cache(maxsize=2)
def _embedder(path: str, max_length: int | None, stamp: tuple[Any, ...]) -> _Embedder:
    """The encoder of a path, shared by the reward models of a run together with what it remembers."""
    return _Embedder(SentenceEncoder(path, SETTING, max_length))


def _stamp(path: str) -> tuple[Any, ...]:
    """Names, sizes and times of a folder's files, so that a model that was replaced is loaded again."""
    files = sorted(Path(path).rglob("*")) if Path(path).is_dir() else []
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())
