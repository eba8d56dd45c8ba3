"""Near duplicates."""

from __future__ import annotations

import functools
import hashlib
import zlib
from array import array
from collections.abc import Iterable, Iterator
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from rlhf_lightning.errors import import_extra
from rlhf_lightning.feedback.cleaning import Cleaning, origin_key
from rlhf_lightning.feedback.words import normalise_text, word_ngrams, words_of
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

ERROR_WEIGHTS = (0.02, 0.98)
"""Of false and missed candidates, which are measured afterwards: a missed one leaves a duplicate."""
Sketch = tuple[np.ndarray, ...]
"""The word n-grams of each of a record's texts, as sorted 32-bit hashes."""


@register("feedback_filter", "near_duplicates", needs=["all_records"])
def near_duplicates(
    feedback: Iterable[Feedback],
    cleaning: Cleaning,
    *,
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.9,
    ngram: PositiveInt = 3,
    permutations: Annotated[int, Field(ge=16)] = 128,
) -> Iterator[Feedback]:
    """Keep the first (by file and line) of records with equal judgement and nearly equal texts.

    Two records are near duplicates if judgements and annotators are equal and all texts, prompt with prompt and response with
    response in order, have a Jaccard similarity of word n-grams of at least `threshold` (case and punctuation ignored). One record of
    each connected component stays. Copies that were judged differently, in another aspect or by other people, stay. Candidates are
    found by MinHash with locality-sensitive hashing (Broder 1997; datasketch), missing some 4 % of the pairs at the threshold, then
    measured exactly. About 5 KB of memory and 0.3 ms a record; needs the extra `cleaning`.

    Args:
        threshold: lowest Jaccard similarity of near duplicates; 1 removes only texts with the same n-grams.
        ngram: words of an n-gram. Larger values weigh a changed word more.
        permutations: hash functions of the MinHash. More give fewer false candidates.
    """
    lsh = import_extra("datasketch", "feedback_filter=near_duplicates", "cleaning").MinHashLSH
    index, pairs, count = lsh(threshold, permutations, params=_bands(lsh, threshold, permutations)), array("q"), 0
    first_with: dict[bytes, int] = {}
    sketches: dict[int, tuple[bytes, Sketch]] = {}
    for number, record in enumerate(feedback):
        count += 1
        judgement, sketch = _judgement_digest(record), _sketch(record, ngram)
        first = first_with.setdefault(judgement + _digest(b"".join([ngrams.tobytes() + b"|" for ngrams in sketch])), number)
        if first != number:
            pairs.extend((first, number))
            continue
        signature = _signature(sketch, permutations)
        for other in index.query(signature):
            if sketches[other][0] == judgement and _similarity(sketches[other][1], sketch) >= threshold:
                pairs.extend((other, number))
        index.insert(number, signature)
        sketches[number] = judgement, sketch
    del index, first_with, sketches
    group, is_near = _groups(np.asarray(pairs, dtype=np.int64).reshape(-1, 2), count)
    representatives: dict[int, tuple[tuple[str, int], str, int]] = {}
    for number, record in enumerate(feedback):
        if is_near[number]:
            key = origin_key(record), record.model_dump_json(), number
            representatives[group[number]] = min(representatives.get(group[number], key), key)
    for number, record in enumerate(feedback):
        if not is_near[number] or representatives[group[number]][2] == number:
            yield record
        else:
            cleaning.remove(record, "near duplicate")


@functools.cache
def _bands(lsh: Any, threshold: float, permutations: int) -> tuple[int, int]:
    """The number and rows of bands, for which datasketch integrates the errors of each choice."""
    index = lsh(threshold, permutations, weights=ERROR_WEIGHTS)
    return index.b, index.r


def _groups(pairs: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the connected component of each of `count` records, and a mask of those in a pair."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    is_near = np.zeros(count, dtype=bool)
    is_near[pairs.ravel()] = True
    graph = coo_array((np.ones(len(pairs)), tuple(pairs.T)), shape=(count, count))
    return (connected_components(graph, directed=False)[1] if count else np.zeros(0, dtype=np.int32)), is_near


def _signature(sketch: Sketch, permutations: int) -> Any:
    """Compute one MinHash of all texts, n-grams kept apart: it bounds the lowest similarity from above."""
    from datasketch import MinHash

    signature = MinHash(num_perm=permutations, seed=1, hashfunc=int)
    signature.update_batch(np.concatenate([ngrams ^ np.uint32(zlib.crc32(b"%d" % part)) for part, ngrams in enumerate(sketch)]))
    return signature


def _sketch(record: Feedback, length: int) -> Sketch:
    texts = [record.prompt_text, *record.responses]
    ngrams_by_text = [list(word_ngrams(words_of(text), length)) or [normalise_text(text)] for text in texts]
    return tuple(np.unique(np.array([zlib.crc32(ngram.encode()) for ngram in ngrams], dtype=np.uint32)) for ngrams in ngrams_by_text)


def _judgement_digest(record: Feedback) -> bytes:
    return _digest(repr((record.annotator, len(record.responses), record.judgement.model_dump_json())).encode())


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _similarity(sketch: Sketch, other: Sketch) -> float:
    """Return the lowest Jaccard similarity of two records' texts."""
    similarity = 1.0
    for a, b in zip(sketch, other, strict=True):
        shared = len(np.intersect1d(a, b, assume_unique=True))
        similarity = min(similarity, shared / (len(a) + len(b) - shared))
    return similarity
