"""Open-Assistant's message trees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.format._metadata import response_models
from rlhf_lightning.feedback.format._values import dense_ranks
from rlhf_lightning.feedback.row import Row, describe_value, whole_number
from rlhf_lightning.flow import Feedback, Message, Ranking
from rlhf_lightning.registry import register

ROLES = {"prompter": "user", "assistant": "assistant"}


@register("feedback_format", "oasst")
class OasstFormat:
    """Open-Assistant's message trees: a ranking of the assistant's replies to each prompter message.

    The prompt is the chat from the root to that message. A message needs at least two replies with a rank, 0 the best; a reply
    without one is unranked. Ranks are the consensus of several people, so there is no annotator. Deleted messages are left out with
    their replies. A tree without a ranking gives nothing. Labels and emojis are not read.

    A row is a tree ({"message_tree_id", "prompt": {"text", "role", "replies", ...}}), as in the project's exports, or contains one.

    Args:
        tree: the field with the tree.
        languages: codes of the prompter's languages to read ("en"); empty for all.
    """

    def __init__(self, *, tree: str = "tree", languages: tuple[str, ...] = ()) -> None:
        self.tree, self.languages = tree, languages
        self.fields = frozenset([tree, "prompt", "message_tree_id", "tree_state", "origin"])
        self.looks_for = f"oasst looks for '{tree}', or for 'message_tree_id' with 'prompt'"

    def __call__(self, row: Row) -> list[Feedback] | None:
        if row.get(self.tree) is not None:
            row = row.inside(row.get(self.tree), self.tree)
        elif row.get("message_tree_id") is None or row.get("prompt") is None:
            return None
        root = row.inside(row.get("prompt"), "prompt")
        rankings = []
        for node, turns in _messages(root):
            if node.get("role") == "prompter" and (not self.languages or node.text("lang") in self.languages):
                ranking = _ranking(node, turns)
                rankings += [ranking] if ranking is not None else []
        return rankings


def _messages(root: Row) -> Iterator[tuple[Row, tuple[Message, ...]]]:
    """Yield every message outside deleted branches with the chat up to it, parents before replies."""
    stack: list[tuple[Row, tuple[Message, ...]]] = [(root, ())]
    while stack:
        node, chat = stack.pop()
        if node.flag("deleted"):
            continue
        role = node.text("role")
        if role not in ROLES:
            raise DataError(f"{node.where}role must be one of {', '.join(ROLES)}, not {describe_value(role)}")
        message: Any = {"role": ROLES[role], "content": node.text("text")}
        turns = (*chat, Message(**message))
        yield node, turns
        stack += [(reply, turns) for reply in reversed(_replies(node))]


def _ranking(node: Row, turns: tuple[Message, ...]) -> Feedback | None:
    """Rank the replies to a message; None if fewer than two are ranked."""
    replies = [reply for reply in _replies(node) if reply.get("role") == "assistant" and not reply.flag("deleted")]
    ranks = [reply.get("rank") for reply in replies]
    for reply, rank in zip(replies, ranks, strict=True):
        if rank is not None:
            whole_number(rank, f"{reply.where}rank")
    if sum(rank is not None for rank in ranks) < 2:
        return None
    return Feedback(
        prompt=turns,
        responses=tuple(reply.text("text") for reply in replies),
        judgement=Ranking(ranks=dense_ranks(ranks)),
        models=response_models(reply.label("model_name") for reply in replies),
        origin=node.origin,
    )


def _replies(node: Row) -> list[Row]:
    return [node.inside(reply, f"replies[{i}]") for i, reply in enumerate(node.optional_items("replies"))]
