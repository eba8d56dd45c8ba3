"""Toxic responses, by a word list or a classifier."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.config.schema import FilePath, did_you_mean
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.feedback.words import prompt_content, read_lexicon, word_ngrams, words_of
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register

TextScores = Callable[[Sequence[str]], Iterable[float]]


@register("feedback_filter", "toxicity")
def toxicity(
    feedback: Iterable[Feedback],
    cleaning: Cleaning,
    *,
    words: FilePath | None = None,
    model: FilePath | None = None,
    label: str = "toxic",
    threshold: PositiveFloat | None = None,
    prompts: bool = False,
    batch_size: PositiveInt = 32,
    action: Literal["drop", "note"] = "drop",
) -> Iterator[Feedback]:
    """Remove or flag records with a toxic response, by your word list or by a classifier from the Hub.

    A reward model learns from rejected toxic responses that they are bad; to keep that, don't use this filter, or only flag.

    Args:
        words: a text file with one `word<tab>weight` a line; a text's score is the sum over its words, ignoring case. Entries may have
            several words.
        model: a sequence classifier's folder or Hub name (transformers); a text's score is the probability of `label`. Texts are
            truncated to the model's maximum length.
        label: the model's label that means toxic.
        threshold: lowest toxic score; by default 1 with words, 0.5 with a model.
        prompts: score prompts as well.
        batch_size: records of one pass of the model.
        action: "drop" removes the record; "note" keeps it and counts it.

    Raises:
        ConfigError: neither or both of words and model, a model that can't be loaded, or a label that it doesn't have.
        DataError: a word list that can't be read, with file and line.
    """
    score, default_threshold = _score(words, model, label, batch_size)
    default_threshold = default_threshold if threshold is None else threshold
    stream = iter(feedback)
    while batch := list(itertools.islice(stream, batch_size)):
        texts = [[*record.responses, *([prompt_content(record.prompt)] if prompts else [])] for record in batch]
        scores = iter(score([text for record_texts in texts for text in record_texts]))
        for record, record_texts in zip(batch, texts, strict=True):
            is_toxic = max(itertools.islice(scores, len(record_texts))) >= default_threshold
            if is_toxic and action == "drop":
                cleaning.remove(record, "toxic")
                continue
            if is_toxic:
                cleaning.flag(record, "toxic")
            yield record


def _score(words: str | None, model: str | None, label: str, batch_size: int) -> tuple[TextScores, float]:
    """Build the scorer; return it with its default threshold."""
    if (words is None) == (model is None):
        raise ConfigError(
            "feedback_filter=toxicity needs one of two: feedback_filter.toxicity.words=FILE, one `word<tab>weight` a line, "
            "or feedback_filter.toxicity.model=NAME, a sequence classifier"
        )
    if words is not None:
        return _lexicon_scorer(words), 1.0
    return partial(_probabilities, _classifier(str(model), label), label, batch_size), 0.5


def _lexicon_scorer(path: str) -> TextScores:
    weights: dict[str, float] = {}
    for entry, weight in read_lexicon(Path(path), "feedback_filter.toxicity.words").items():
        if not (parts := words_of(entry)):
            raise DataError(f"{path}: {entry!r} has no letters or digits; words are compared without marks")
        weights[" ".join(parts)] = weight
    lengths = sorted({entry.count(" ") + 1 for entry in weights})

    def score(text: str) -> float:
        words = words_of(text)
        return sum(weights.get(ngram, 0.0) for length in lengths if length <= len(words) for ngram in word_ngrams(words, length))

    return lambda texts: map(score, texts)


def _classifier(model: str, label: str) -> Any:
    from transformers import pipeline

    try:
        classifier: Any = pipeline("text-classification", model=model)
    except (OSError, ValueError) as error:
        raise ConfigError(f"feedback_filter.toxicity.model={model} can't be loaded as a sequence classifier: {error}") from error
    labels = list(classifier.model.config.label2id)
    if label not in labels:
        raise ConfigError(f"feedback_filter.toxicity.label={label}: the model has {', '.join(labels)}{did_you_mean(label, labels)}")
    return classifier


def _probabilities(classifier: Any, label: str, batch_size: int, texts: Sequence[str]) -> Iterator[float]:
    for labels in classifier(list(texts), top_k=None, truncation=True, batch_size=batch_size):
        yield next(float(prediction["score"]) for prediction in labels if prediction["label"] == label)
