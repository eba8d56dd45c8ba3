"""Takes out records that say nearly the same thing twice."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.cleaning import Cleaning, place
from rlhf_lightning.feedback.words import plain, runs_of, words_of
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

Sketch = tuple[np.ndarray, ...]
"""The runs of words of each of a record's texts, as sorted 32-bit hashes."""


@register("feedback_filter", "near_duplicates", needs=["whole"])
def near_duplicates(
    feedback: Iterable[Feedback],
    done: Cleaning,
    *,
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9,
    run_of_words: PositiveInt = 3,
    permutations: Annotated[int, Field(ge=16)] = 128,
) -> Iterator[Feedback]:
    """Keeps one of the records of one judgement and one annotator whose texts are nearly the same: the first by file and line.

    Two records are near where their judgements are equal, so are their annotators, and prompt with prompt and response with response,
    in order, share at least `threshold` of their runs of words (Jaccard similarity of the sets; case and marks don't count). Records
    that are near each other directly or over others are one group, of which one stays. So copies of a text that were judged
    differently, in another aspect or by other people, stay. Candidates are found by MinHash with locality-sensitive hashing (Broder
    1997; datasketch), which misses some 4 % of the pairs that lie just at the threshold, then measured exactly. About 5 KB of memory
    and 0.3 ms a record; needs the extra `cleaning`.

    Args:
        run_of_words: how many words in a row are one run. The more, the more a changed word counts.
        permutations: of the MinHash. The more, the fewer candidates for nothing.
    """
    index = _lsh(threshold, permutations)
    groups = _Groups()
    known: dict[bytes, int] = {}
    sketches: dict[int, tuple[bytes, Sketch]] = {}
    for number, record in enumerate(feedback):
        judged, sketch = _judged(record), _sketch(record, run_of_words)
        same = known.setdefault(judged + _digest(b"".join([runs.tobytes() + b"|" for runs in sketch])), number)
        if same != number:
            groups.join(same, number)
            continue
        signature = _signature(sketch, permutations)
        for other in index.query(signature):
            if sketches[other][0] == judged and _similarity(sketches[other][1], sketch) >= threshold:
                groups.join(other, number)
        index.insert(number, signature)
        sketches[number] = judged, sketch
    del index, known, sketches
    stays: dict[int, tuple[tuple[str, int], str, int]] = {}
    for number, record in enumerate(feedback):
        if (group := groups.of(number)) is not None:
            here = place(record), record.model_dump_json(), number
            stays[group] = min(stays.get(group, here), here)
    for number, record in enumerate(feedback):
        group = groups.of(number)
        if group is None or stays[group][2] == number:
            yield record
        else:
            done.remove(record, "near duplicate")


def _lsh(threshold: float, permutations: int) -> Any:
    try:
        from datasketch import MinHashLSH
    except ImportError as error:
        raise ConfigError("feedback_filter=near_duplicates needs datasketch: pip install 'rlhf-lightning[cleaning]'") from error
    # Candidates are measured afterwards, so one too many costs time and one too few a duplicate.
    return MinHashLSH(threshold=threshold, num_perm=permutations, weights=(0.02, 0.98))


def _signature(sketch: Sketch, permutations: int) -> Any:
    """Of all texts together, each text's runs being others: where each text's similarity reaches a bound, so does theirs together."""
    from datasketch import MinHash

    signature = MinHash(num_perm=permutations, seed=1, hashfunc=int)
    signature.update_batch(np.concatenate([runs ^ np.uint32(zlib.crc32(b"%d" % part)) for part, runs in enumerate(sketch)]))
    return signature


def _sketch(record: Feedback, length: int) -> Sketch:
    texts = [record.prompt_text, *record.responses]
    runs = [list(runs_of(words_of(text), length)) or [plain(text)] for text in texts]
    return tuple(np.unique(np.array([zlib.crc32(run.encode()) for run in found], dtype=np.uint32)) for found in runs)


def _judged(record: Feedback) -> bytes:
    return _digest(repr((record.annotator, len(record.responses), record.judgement.model_dump_json())).encode())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _similarity(one: Sketch, other: Sketch) -> float:
    """The least Jaccard similarity of two records' texts."""
    least = 1.0
    for a, b in zip(one, other, strict=True):
        shared = len(np.intersect1d(a, b, assume_unique=True))
        least = min(least, shared / (len(a) + len(b) - shared))
    return least


class _Groups:
    """Numbers joined into groups; a group is known by one of its numbers."""

    def __init__(self) -> None:
        self._above: dict[int, int] = {}

    def of(self, number: int) -> int | None:
        """The group of a number, None for one that was never joined."""
        if number not in self._above:
            return None
        while (above := self._above[number]) != number:
            self._above[number] = self._above[above]
            number = above
        return number

    def join(self, one: int, other: int) -> None:
        for number in (one, other):
            self._above.setdefault(number, number)
        a, b = self.of(one), self.of(other)
        assert a is not None
        assert b is not None
        self._above[max(a, b)] = min(a, b)
