"""A collection read as feedback: the same judgements with positions, seconds and ties; gold and late answers only if asked."""

from __future__ import annotations

import pytest

from rlhf_lightning.collect.answers import Answer, store_answer
from rlhf_lightning.collect.assignment import open_assignments
from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.question.edit import EditQuestion
from rlhf_lightning.collect.question.ranking import RankingQuestion
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.feedback.reading import Reader
from rlhf_lightning.registry import make
from tests.fixtures.collection import make_collection

TEXTS = ["<script>alert(1)</script>", "\u202eabc\u202c {{7*7}}", "e\u0301 é \x07 😀"]


def test_records_are_the_answers_that_were_given(tmp_path):
    items = [Item("<b>p</b>", tuple(TEXTS), ("x", "y", None), "set"), Item("gold", ("1", "2", "3"), gold={"ranking": [1, 2, 3]})]
    collection = make_collection(tmp_path, {"ranking": RankingQuestion(), "edit": EditQuestion()}, items, ["ada"], gold_share=0.5)
    project = collection.project
    with project.database.write() as connection:
        for row in open_assignments(connection, 2, 0.0, project.rules):
            steps = {"ranking": [1, 2, 2]} | {f"edit/{i}": f"{i} \u0000 better " for i in range(3)}
            store_answer(connection, 2, Answer(f"key {row.id}", row.id, 0, steps, 12.5, 20.0), project.questions, 1000.0)
            if not row.item - 1:
                order = row.display_order
    path = project.database.location
    assert len(list(make("feedback_source", "collected", {"path": path, "gold": True})())) == 8
    records = list(Reader(make("feedback_source", "collected", {"path": path})(), [make("feedback_format", "record", {})]))
    ranking, *edits = records
    assert ranking.responses == tuple(TEXTS[i] for i in order)
    assert ranking.models == tuple(("x", "y", None)[i] for i in order)
    assert (ranking.judgement.ranks, ranking.positions, ranking.seconds, ranking.annotator) == ((1, 2, 2), (0, 1, 2), 12.5, "ada")
    assert (ranking.prompt, ranking.source, ranking.time.timestamp()) == ("<b>p</b>", "set", 1000.0)
    assert [record.responses for record in edits] == [(TEXTS[order[i]], f"{i} \u0000 better ") for i in range(3)]


def test_no_collection_is_an_error(tmp_path):
    with pytest.raises(ConfigError, match="stage=collect"):
        list(make("feedback_source", "collected", {"path": str(tmp_path / "none.sqlite")})())
