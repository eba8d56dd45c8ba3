"""The `collect` section of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt

from rlhf_lightning.registry import section

Share = Annotated[float, Field(ge=0, le=1)]


@section("collect")
@dataclass
class CollectSettings:
    """Collection of feedback by people, on a web page.

    Attributes:
        database: a file of SQLite, or a URL postgresql://USER@HOST/NAME; the same command again continues in it.
        items: JSONL, JSON or CSV file of prompts with responses to judge, also Label Studio's and Argilla's JSON; null: draw responses
            from the models; "database": those that stage=rounds publishes with feedback_annotator=people, until Ctrl-C.
        rename: new names of fields of `items` by their old ones, {data.question: prompt}.
        gold: a file like items with an expected answer per row, mixed in to measure annotators.
        models: folders or Hub names of the policies that answer, view blind; empty: the backbone alone.
        prompts: how many of the task's prompts to ask; null: all.
        responses: how many responses to each prompt, divided among the models.
        annotators: names, each with a link of its own.
        open_link: also print a link on which people enter a name themselves.
        overlap: annotators per item, for the share overlap_share of the items; one for the others.
        overlap_share: the share of items that overlap annotators judge.
        gold_share: gold items among the items of an annotator.
        target: judged items at which the collection ends; null: when all items are judged.
        lease_minutes: how long an item stays reserved for someone who does nothing.
        guidelines: a text file, always reachable on the page.
        durable: let each answer wait for the disk: it then survives a loss of power, not only of the process.
        host: the address to listen on; the default is reachable from this machine alone.
        port: 0 takes a free one.
        root_path: the prefix of a reverse proxy ("/collect").
        https: the page is served over HTTPS by a reverse proxy; cookies are then sent only over it.
    """

    database: str = "collection.sqlite"
    items: str | None = None
    rename: dict[str, str] | None = None
    gold: str | None = None
    models: tuple[str, ...] = ()
    prompts: PositiveInt | None = None
    responses: Annotated[int, Field(ge=1, le=8)] = 2
    annotators: tuple[str, ...] = ()
    open_link: bool = False
    overlap: PositiveInt = 1
    overlap_share: Share = 0.2
    gold_share: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    target: PositiveInt | None = None
    lease_minutes: PositiveFloat = 15.0
    guidelines: str | None = None
    durable: bool = False
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8765
    root_path: str = ""
    https: bool = False
