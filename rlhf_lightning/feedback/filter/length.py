"""Texts that are too short or too long."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import PositiveInt

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.cleaning import Cleaning
from rlhf_lightning.flow import Feedback
from rlhf_lightning.registry import register


@register("feedback_filter", "length")
def length(
    feedback: Iterable[Feedback],
    cleaning: Cleaning,
    *,
    min_characters: PositiveInt = 1,
    max_characters: PositiveInt = 20_000,
    max_prompt_characters: PositiveInt = 20_000,
) -> Iterator[Feedback]:
    """Remove records with a prompt or response out of bounds, in Unicode code points.

    Args:
        min_characters, max_characters: bounds of each response; the lower one ignores outer blanks.
        max_prompt_characters: longest prompt.
    """
    if min_characters > max_characters:
        raise ConfigError(f"feedback_filter.length: min_characters={min_characters} is above max_characters={max_characters}")
    for record in feedback:
        if len(record.prompt_text) > max_prompt_characters:
            cleaning.remove(record, f"prompt longer than {max_prompt_characters} characters")
        elif any(len(text) > max_characters for text in record.responses):
            cleaning.remove(record, f"response longer than {max_characters} characters")
        elif any(len(text.strip()) < min_characters for text in record.responses):
            cleaning.remove(record, f"response shorter than {min_characters} characters")
        else:
            yield record
