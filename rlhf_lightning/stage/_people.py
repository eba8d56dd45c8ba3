"""The page and the database of stage=collect in a command that waits for people's answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import import_extra
from rlhf_lightning.feedback.pairing import sample_pairs
from rlhf_lightning.flow import Feedback, Prompt
from rlhf_lightning.stage.collect import print_links, read_guidelines

if TYPE_CHECKING:
    from rlhf_lightning.runtime.run import Run

PAIR = (2, 2)


class PeopleCollection:
    """A collection whose items the command publishes (`interfaces.Collection`)."""

    def __init__(self, run: Run) -> None:
        for package in ("sqlalchemy", "starlette", "uvicorn"):
            import_extra(package, "feedback_annotator=people", "collect")
        from rlhf_lightning.collect.assignment import Rules
        from rlhf_lightning.collect.project import Project, check_same
        from rlhf_lightning.database.connection import Database

        self.run, self.settings = run, run.settings("collect")
        self._stack = contextlib.ExitStack()
        database = Database(self.settings.database, durable=self.settings.durable)
        rules = Rules(seed=run.seed, gold_share=self.settings.gold_share, lease_seconds=60 * self.settings.lease_minutes)
        questions = run.build_all("collect_question")
        self.project = Project(database, questions, rules, read_guidelines(self.settings.guidelines), is_endless=True)
        with database.write() as connection:
            check_same(connection, "questions", self.project.describe_questions(), "collect_question", database.name)

    def serve(self) -> None:
        """Serve the page until the process ends, and print the links."""
        from rlhf_lightning.checkpoint.lock import lock_file
        from rlhf_lightning.collect.server.serve import listen, serve_in_background

        settings = self.settings
        name = Path("collection" if "://" in settings.database else settings.database)
        remedy = "another command serves it: add feedback_annotator.people.serve=false, or give a collect.database of its own"
        self._stack.enter_context(lock_file(name.parent / f"{name.name}.lock", remedy))
        listener = listen(settings.host, settings.port)
        serve_in_background(self.project, listener, https=settings.https, root_path=settings.root_path)
        print_links(self.run, self.project, settings, listener.getsockname()[1])

    def split(self, groups: Sequence[tuple[Prompt, Sequence[str]]], pairs: int, seed: str) -> list[tuple[Prompt, tuple[str, ...]]]:
        """Return the items to judge: pairs of each group if pairs are asked, else its distinct responses."""
        questions = self.project.questions.values()
        if any(question.scope == "item" and question.responses == PAIR for question in questions):
            return [
                (prompt, (responses[first], responses[second]))
                for i, (prompt, responses) in enumerate(groups)
                for first, second in sample_pairs(responses, pairs, f"{seed} group {i}")
            ]
        distinct = [(prompt, tuple(dict.fromkeys(responses))) for prompt, responses in groups]
        least = 1 if any(question.scope == "response" for question in questions) else 2
        return [(prompt, texts) for prompt, texts in distinct if len(texts) >= least]

    def publish(self, key: str, items: Sequence[tuple[Prompt, tuple[str, ...]]]) -> None:
        """Publish a batch, unless it was published before."""
        from rlhf_lightning.collect.batches import publish
        from rlhf_lightning.collect.items import Item

        with self.project.database.write() as connection:
            rows = [Item(prompt, texts) for prompt, texts in items]
            publish(connection, key, rows, self.settings, self.run.seed, self.project.clock())

    def state(self, key: str) -> Any:
        """Return the progress of a batch."""
        from rlhf_lightning.collect.batches import batch_state

        with self.project.database.read() as connection:
            return batch_state(connection, key)

    def is_exhausted(self) -> bool:
        """Return whether nobody has anything left to judge, such as items that everybody skipped."""
        from rlhf_lightning.collect.project import is_exhausted

        with self.project.database.read() as connection:
            return is_exhausted(connection)

    def close(self, key: str) -> list[Feedback]:
        """Fix the batch's answers and return their records, the same ones every time."""
        from rlhf_lightning.collect.batches import batch_feedback, close_batch

        with self.project.database.write() as connection:
            close_batch(connection, key)
            return batch_feedback(connection, key)
