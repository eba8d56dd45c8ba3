"""The items of a collection: prompts with responses, and gold items whose answer is known."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select

from rlhf_lightning.database.tables import item
from rlhf_lightning.feedback.strict_json import replace_unstorable
from rlhf_lightning.flow import Feedback, Message, Prompt


@dataclass(frozen=True)
class Item:
    """Responses to a prompt, to be judged.

    Attributes:
        models: the author of each response.
        gold: the expected answer by step ("rating/0", "pairwise"), in the order of `responses`; None for an ordinary item.
        priority: higher is asked earlier.
        judgements, predictions: of people and of models, from the file; kept beside the answers, nobody sees them.
        has_unread: the file has some that no chosen feedback_format reads.
    """

    prompt: Prompt
    responses: tuple[str, ...]
    models: tuple[str | None, ...] | None = None
    source: str | None = None
    gold: dict[str, Any] | None = None
    priority: float = 0.0
    judgements: tuple[Feedback, ...] = ()
    predictions: tuple[Feedback, ...] = ()
    has_unread: bool = False

    @property
    def digest(self) -> str:
        """Identifies equal items, so that the same file added twice is stored once."""
        content = [prompt_json(self.prompt), self.responses, self.gold is not None]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def prompt_json(prompt: Prompt) -> Any:
    """The prompt as JSON: a text, or a list of messages."""
    return prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]


def prompt_from_json(value: Any) -> Prompt:
    """The prompt of `prompt_json`."""
    return value if isinstance(value, str) else tuple(Message(**message) for message in value)


def add_items(connection: Connection, items: Iterable[Item], *, overlap: int, overlap_share: float, seed: int) -> int:
    """Store items that aren't stored yet; return how many are new.

    A share `overlap_share` of the ordinary ones, chosen by the digest and the seed, is judged by `overlap` annotators, the others by one;
    gold items by everyone. A model may draw a NUL, which no file of feedback can hold: it becomes U+FFFD.
    """
    stored = set(connection.scalars(select(item.c.digest)))
    rows = []
    for new in items:
        digest = new.digest
        if digest in stored:
            continue
        stored.add(digest)
        draw = random.Random(f"{seed}/{digest}")
        shuffle = draw.random()
        needed = overlap if draw.random() < overlap_share else 1
        rows.append(
            {
                "digest": digest,
                "prompt": replace_unstorable(prompt_json(new.prompt)),
                "responses": replace_unstorable(new.responses),
                "models": replace_unstorable(new.models),
                "source": replace_unstorable(new.source),
                "gold": new.gold,
                "is_gold": new.gold is not None,
                "needed": needed,
                "free": needed,
                "priority": -new.priority,
                "shuffle": shuffle,
            }
        )
    if rows:
        connection.execute(insert(item), rows)
    return len(rows)


def display_order(count: int, seed: int, item_id: int, annotator: int) -> list[int]:
    """A random order of the responses that is the same whenever this annotator sees this item."""
    order = list(range(count))
    random.Random(f"{seed}/{item_id}/{annotator}").shuffle(order)
    return order


def in_display_order(values: Sequence[Any] | None, order: Sequence[int]) -> list[Any] | None:
    """The values of the responses at each display position."""
    return None if values is None else [values[i] for i in order]
