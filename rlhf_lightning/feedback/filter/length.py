"""Leaves out records with texts that are too short or too long."""

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
    done: Cleaning,
    *,
    min_characters: PositiveInt = 1,
    max_characters: PositiveInt = 20_000,
    max_prompt: PositiveInt = 20_000,
) -> Iterator[Feedback]:
    """Removes records whose prompt or any of whose responses is out of bounds, in characters (Unicode code points). Nothing is cut.

    Args:
        min_characters, max_characters: bounds for each response, blanks around it not counted for the lower one.
        max_prompt: the longest prompt.
    """
    if min_characters > max_characters:
        raise ConfigError(f"feedback_filter.length: min_characters={min_characters} is above max_characters={max_characters}")
    for record in feedback:
        if len(record.prompt_text) > max_prompt:
            done.remove(record, f"prompt longer than {max_prompt} characters")
        elif any(len(text) > max_characters for text in record.responses):
            done.remove(record, f"response longer than {max_characters} characters")
        elif any(len(text.strip()) < min_characters for text in record.responses):
            done.remove(record, f"response shorter than {min_characters} characters")
        else:
            yield record
