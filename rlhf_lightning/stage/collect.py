"""stage=collect: people judge responses on a web page; their answers become feedback."""

from __future__ import annotations

import contextlib
import itertools
import random
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import ConfigError, import_extra
from rlhf_lightning.registry import register
from rlhf_lightning.runtime.composition import ComposedConfig
from rlhf_lightning.runtime.run import Run

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from rlhf_lightning.collect.items import Item
    from rlhf_lightning.collect.project import Project
    from rlhf_lightning.collect.settings import CollectSettings
    from rlhf_lightning.database.connection import Database
    from rlhf_lightning.flow import Prompt

PROMPTS_AT_ONCE = 32
LOCAL = ("127.0.0.1", "localhost", "::1")
PUBLISHED = "database"
"""Value of collect.items for items that feedback_annotator=people publishes."""


def check_combination(choices: ComposedConfig) -> None:
    """Refuse a command without questions, people or a source of responses. Raises ConfigError."""
    settings = choices.settings("collect")
    if not choices.components_of("collect_question"):
        raise ConfigError("this command asks nothing: add `collect_question=[pairwise]`")
    if not settings.annotators and not settings.open_link:
        raise ConfigError("nobody is asked: add `collect.annotators=[ada,ben]`, or `collect.open_link=true` for a link to enter a name")
    if settings.items is None:
        choices.require("task", "backbone", "rollout_sampler")
    if choices.config.trainer.get("devices") not in (1, "auto") or choices.config.trainer.get("num_nodes", 1) != 1:
        raise ConfigError("stage=collect is one process: leave out trainer.devices and trainer.num_nodes")


@register("stage", "collect", check=check_combination)
def collect(run: Run) -> float:
    """Serve the page until enough is judged or Ctrl-C; returns the number of records, skips included.

    The same command continues it. Prints a link for the manager and one for each annotator. Writes feedback.jsonl;
    feedback_source=collected reads the database itself.
    """
    for package in ("sqlalchemy", "starlette", "uvicorn"):
        import_extra(package, "stage=collect", "collect")
    from rlhf_lightning.checkpoint.lock import lock_file
    from rlhf_lightning.collect.server.serve import listen, serve
    from rlhf_lightning.database.connection import Database, DatabaseGone

    settings = run.settings("collect")
    name = Path("collection" if "://" in settings.database else settings.database)
    with (
        lock_file(name.parent / f"{name.name}.lock", "give this collection a database of its own (collect.database)"),
        listen(settings.host, settings.port) as listener,  # refused before a model loads
        contextlib.closing(Database(settings.database, durable=settings.durable)) as database,
    ):
        project = prepare_project(run, settings, database)
        print_links(run, project, settings, listener.getsockname()[1])
        count = 0
        try:
            serve(project, listener, https=settings.https, root_path=settings.root_path, report=lambda state: log_progress(run, state))
        finally:
            with contextlib.suppress(DatabaseGone):  # what serve says then
                count = write_feedback(run, database)
    return float(count)


def prepare_project(run: Run, settings: CollectSettings, database: Database) -> Project:
    """Store the items that are new, and check that the questions are those of the answers so far."""
    from rlhf_lightning.collect.assignment import Rules
    from rlhf_lightning.collect.imported_judgements import add_judgements
    from rlhf_lightning.collect.items import add_items
    from rlhf_lightning.collect.project import Project, check_same, counts

    rules = Rules(seed=run.seed, gold_share=settings.gold_share, lease_seconds=60 * settings.lease_minutes)
    questions = run.build_all("collect_question")
    project = Project(database, questions, rules, read_guidelines(settings.guidelines), settings.target, settings.items == PUBLISHED)
    with database.write() as connection:
        check_same(connection, "questions", project.describe_questions(), "collect_question", database.name)
        stored = counts(connection)["items"]
    # Texts of a model are drawn once; a file is read again, so that rows added to it are asked too.
    items = list(itertools.chain(new_items(run, settings, questions, stored), gold_items(settings, questions)))
    with database.write() as connection:
        added = add_items(connection, items, overlap=settings.overlap, overlap_share=settings.overlap_share, seed=run.seed)
        existing = add_judgements(connection, items, project.clock())
        state = counts(connection)
    if existing:
        run.log(f"{existing} judgements and predictions came with the items; nobody sees them")
    if unread := sum(item.has_unread for item in items):
        run.log(f"{unread} items hold annotations that are not kept: say how to read them by `feedback_format=[label_studio]`, or argilla")
    if not state["items"] and not project.is_endless:
        raise ConfigError("nothing to judge: the file has no rows, or no prompt of the task has collect.responses different responses")
    run.log(f"{database.name}: {state['items']} items, {added} of them new; {state['answers']} of {state['slots']} judgements are there")
    return project


def new_items(run: Run, settings: CollectSettings, questions: Mapping[str, Any], stored: int) -> Iterator[Item]:
    """The items of the file, or drawn from the models if none are stored yet."""
    from rlhf_lightning.collect.item_file import read_items

    if settings.items == PUBLISHED:
        return
    if settings.items is not None:
        formats = run.build_all("feedback_format")
        yield from read_items(settings.items, "collect.items", questions, formats, settings.rename)
    elif not stored:
        with run.time_stage("draw"):
            yield from drawn_items(run, settings)


def check_files(run: Run) -> None:
    """Read the files of items, gold items and guidelines, for --check."""
    settings, questions = run.settings("collect"), run.build_all("collect_question")
    read_guidelines(settings.guidelines)
    for _ in itertools.chain(new_items(run, settings, questions, stored=1), gold_items(settings, questions)):
        pass


def gold_items(settings: CollectSettings, questions: Mapping[str, Any]) -> Iterator[Item]:
    """The items with known answers. Raises ConfigError for a row without one."""
    from rlhf_lightning.collect.item_file import read_items

    if settings.gold is None:
        return
    for number, item in enumerate(read_items(settings.gold, "collect.gold", questions), start=1):
        if item.gold is None:
            raise ConfigError(f'collect.gold={settings.gold}: row {number} has no `gold`, such as {{"pairwise": {{"choice": "a"}}}}')
        yield item


def drawn_items(run: Run, settings: CollectSettings) -> Iterator[Item]:
    """Responses of the models to the task's prompts, each prompt answered by the models in turn.

    A prompt too long for one of the models, or with fewer different responses than asked, is left out.
    """
    import torch

    from rlhf_lightning.collect.items import Item
    from rlhf_lightning.stage._task import fitting_task

    task = run.build("task")
    prompts = [row.prompt for row in task.train_prompts()]
    random.Random(run.seed).shuffle(prompts)
    prompts = prompts[: settings.prompts]
    sampler = run.build("rollout_sampler")
    models: list[str | None] = [*settings.models] or [None]
    responses: dict[Prompt, list[tuple[str, str | None]]] = {prompt: [] for prompt in prompts}
    for number, path in enumerate(models):
        share = len(range(number, settings.responses, len(models)))
        policy = run.language_model(path, run.corpus(task) if path is None else ())
        policy.model.eval()
        fitting = {row.prompt for row in fitting_task(run, task, policy, notes=[]).train_prompts()}
        torch.manual_seed(run.seed + number)
        eligible = [prompt for prompt in responses if prompt in fitting]
        for start in range(0, len(eligible), PROMPTS_AT_ONCE):
            batch = eligible[start : start + PROMPTS_AT_ONCE]
            with torch.no_grad():
                texts = sampler(policy, policy.encode_prompts(batch, run.max_response_tokens).repeat(share)).responses
            for i, text in enumerate(texts):
                responses[batch[i // share]] += [(text, path)] if text.strip() else []
    complete = 0
    for prompt, drawn in responses.items():
        distinct = list(dict(drawn).items())  # equal texts would waste a judgement
        if len(distinct) == settings.responses:
            complete += 1
            yield Item(prompt, tuple(text for text, _ in distinct), tuple(model for _, model in distinct))
    if complete < len(responses):
        run.log(f"{len(responses) - complete} of {len(responses)} prompts, without {settings.responses} different responses, are left out")


def read_guidelines(path: str | None) -> str:
    """The guidelines' text. Raises ConfigError for a file that can't be read."""
    try:
        return "" if path is None else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"collect.guidelines={path} can't be read as text: {cause}") from cause


def print_links(run: Run, project: Project, settings: CollectSettings, port: int) -> None:
    """Print a new link for the manager and each annotator; earlier links stay valid."""
    from rlhf_lightning.collect import people

    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    base = f"http{'s' if settings.https else ''}://{host}:{port}{settings.root_path}"
    with project.database.write() as connection:
        links = [("manager", "t", new_link(connection, people.MANAGER, "manager", "link"))]
        links += [(name, "t", new_link(connection, people.clean_name(name), "annotator", "link")) for name in settings.annotators]
        if settings.open_link:
            links.append(("everybody", "join", new_link(connection, people.MANAGER, "manager", "join")))
    for name, path, token in links:
        run.log(f"{name}: {base}/{path}/{token}")
    if settings.host not in LOCAL and not settings.https:
        run.log(f"listening on {settings.host} without HTTPS: others on the network can read what is sent; see docs/howto/collect.md")
    run.log("Ctrl-C ends the collection; every answer is stored, and the same command continues it")


def new_link(connection: Connection, name: str, role: str, kind: Any) -> str:
    """The token of a new link for a person."""
    from rlhf_lightning.collect import people

    now = time.time()
    return people.new_credential(connection, people.add_person(connection, name, role, now), kind, now)


def log_progress(run: Run, state: Mapping[str, int]) -> None:
    """Log the number of judgements so far."""
    run.log(f"{state['answers']} of {state['slots']} judgements, {state['complete']} of {state['items']} items complete")


def write_feedback(run: Run, database: Database) -> int:
    """Write the answers as feedback.jsonl into the run's folder; return their number."""
    import json

    from rlhf_lightning.collect.project import counts
    from rlhf_lightning.config.atomic_write import write_atomic
    from rlhf_lightning.database.records import record_rows

    with database.read() as connection:
        rows = list(record_rows(connection))
        state = counts(connection)
    skips = sum(row["judgement"]["kind"] == "skip" for row in rows)
    if state["answers"] < state["slots"]:
        hint = "; what people skipped others must judge (collect.annotators)" if skips else ""
        missing = f"{state['slots'] - state['answers']} of {state['slots']} judgements are missing"
        run.log(f"{missing}: the same command continues{hint}")
    write_atomic(run.folder / "feedback.jsonl", "".join(f"{json.dumps(row)}\n" for row in rows), private=True)
    run.log(f"{len(rows) - skips} judgements and {skips} skips: {run.folder / 'feedback.jsonl'}")
    run.results = {"records": float(len(rows))}
    return len(rows)
