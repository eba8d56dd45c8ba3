"""Assignment as a state machine: overlap, leases, skips, gold items, late answers."""

from __future__ import annotations

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from sqlalchemy import delete, event, func, insert, select

from rlhf_lightning.collect import people
from rlhf_lightning.collect.answers import Answer, AnswerRefused, reopen, skip, store_answer, store_draft
from rlhf_lightning.collect.assignment import Rules, is_gold_turn, leave, open_assignments, renew_lease
from rlhf_lightning.collect.items import Item, add_items
from rlhf_lightning.collect.project import is_exhausted
from rlhf_lightning.collect.question.thumbs import ThumbsQuestion
from rlhf_lightning.database.connection import Database
from rlhf_lightning.database.tables import annotator, answer, assignment, credential, item

QUESTIONS = {"thumbs": ThumbsQuestion()}
KEYS = itertools.count()


@pytest.fixture
def new_location(tmp_path) -> Callable[[], str]:
    """A place for a collection at each call; test_postgresql.py has another."""
    return lambda: str(tmp_path / f"{next(KEYS)}.sqlite")


def collection(location: str, items: int, *, overlap: int = 1, gold: int = 0, people: int = 3) -> Database:
    database = Database(location)
    rows = [Item(f"prompt {i}", (f"response {i}",)) for i in range(items)]
    rows += [Item(f"gold {i}", ("yes",), gold={"thumbs/0": {"up": True}}) for i in range(gold)]
    with database.write() as connection:
        add_items(connection, rows, overlap=overlap, overlap_share=1.0, seed=0)
        people_rows = [{"name": f"person {i}", "role": "annotator", "created": 0.0} for i in range(people)]
        connection.execute(insert(annotator), people_rows)
    return database


def sent(row, key: str | None = None) -> Answer:
    return Answer(key or f"key {next(KEYS)}", row.id, row.version, {"thumbs/0": {"up": True}}, 1.0, 2.0)


def skipped(row) -> Answer:
    return Answer(f"key {next(KEYS)}", row.id, row.version, {}, 1.0, 2.0)


class Collection(RuleBasedStateMachine):
    """People take, answer, skip, reopen, resend and walk away in any order."""

    people = 4
    overlap = 2

    def location(self) -> str:
        return f"{self.folder.name}/c.sqlite"

    @initialize(items=st.integers(1, 6), gold=st.integers(0, 3))
    def start(self, items, gold):
        self.folder = tempfile.TemporaryDirectory()
        self.rules = Rules(gold_share=0.25, lease_seconds=100.0, preload_seconds=30.0)
        self.database = collection(self.location(), items, overlap=self.overlap, gold=gold, people=self.people)
        self.now, self.acknowledged, self.shown = 0.0, {}, {}

    @rule(person=st.integers(1, people))
    def take(self, person):
        with self.database.write() as connection:
            self.shown[person] = open_assignments(connection, person, self.now, self.rules)

    @rule(person=st.integers(1, people), which=st.integers(0, 1))
    def submit(self, person, which):
        rows = self.shown.get(person, [])[which : which + 1]
        for row in rows:
            message = sent(row)
            try:
                with self.database.write() as connection:
                    assert store_answer(connection, person, message, QUESTIONS, self.now)
                self.acknowledged[message.key] = (person, message)
            except AnswerRefused as refused:
                assert refused.status == 409  # noqa: PT017

    @precondition(lambda self: self.acknowledged)
    @rule(data=st.data())
    def resend(self, data):
        person, message = self.acknowledged[data.draw(st.sampled_from(sorted(self.acknowledged)))]
        with self.database.write() as connection:
            assert not store_answer(connection, person, message, QUESTIONS, self.now)

    @rule(person=st.integers(1, people))
    def skip_first(self, person):
        for row in self.shown.get(person, [])[:1]:
            try:
                with self.database.write() as connection:
                    message = skipped(row)
                    before = connection.scalar(select(assignment.c.state).where(assignment.c.id == row.id))
                    skip(connection, person, message, "unclear", False, self.now)
                if before != "skipped":
                    self.acknowledged[message.key] = (person, message)
            except AnswerRefused as refused:
                assert refused.status == 409  # noqa: PT017

    @rule(person=st.integers(1, people))
    def undo(self, person):
        with self.database.write() as connection:
            mine = connection.execute(select(assignment).where(assignment.c.annotator == person).order_by(assignment.c.id.desc())).first()
            if mine is not None and mine.state in ("answered", "skipped"):
                try:
                    self.shown[person] = [reopen(connection, person, mine.id, self.now)]
                except AnswerRefused as refused:
                    assert refused.status == 409  # noqa: PT017

    @rule(person=st.integers(1, people))
    def go_away(self, person):
        with self.database.write() as connection:
            leave(connection, person, self.now, self.rules)

    @rule(seconds=st.sampled_from([10.0, 150.0]))
    def wait(self, seconds):
        self.now += seconds

    @invariant()
    def every_acknowledged_answer_is_stored_once(self):
        if hasattr(self, "database"):
            with self.database.read() as connection:
                assert set(connection.scalars(select(answer.c.key))) == set(self.acknowledged)

    @invariant()
    def no_item_has_more_answers_than_it_needs_or_a_lost_slot(self):
        if not hasattr(self, "database"):
            return
        with self.database.read() as connection:
            states = Counter(tuple(row) for row in connection.execute(select(assignment.c.item, assignment.c.state)))
            for row in connection.execute(select(item)):
                answered, leased = states[row.id, "answered"], states[row.id, "open"]
                assert row.answered == answered
                assert row.free == row.needed - answered - leased
                assert row.is_gold or answered + leased <= row.needed

    def teardown(self):
        if hasattr(self, "database"):
            self.database.close()
            self.folder.cleanup()


Collection.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
TestCollection = Collection.TestCase


def test_everything_is_judged_and_nobody_judges_twice(new_location):
    """Five people, of whom one skips all: the others finish every item with its overlap, with their share of gold items."""
    database, rules = collection(new_location(), 60, overlap=3, gold=40, people=5), Rules(gold_share=0.2)
    gold_share = {}
    busy = set(range(1, 6))
    while busy:
        for person in sorted(busy):
            with database.write() as connection:
                rows = open_assignments(connection, person, 0.0, rules)
                if not rows:
                    busy.discard(person)
                elif person == 5:
                    skip(connection, person, skipped(rows[0]), "no time", False, 0.0)
                else:
                    store_answer(connection, person, sent(rows[0]), QUESTIONS, 0.0)
    with database.read() as connection:
        assert set(connection.scalars(select(item.c.answered).where(item.c.is_gold.is_(False)))) == {3}
        for person in range(1, 5):
            mine = (
                select(func.count())
                .select_from(assignment.join(item, item.c.id == assignment.c.item))
                .where(assignment.c.annotator == person)
            )
            gold_share[person] = connection.scalar(mine.where(item.c.is_gold)) / connection.scalar(mine)
    assert all(0.15 <= share <= 0.25 for share in gold_share.values()), gold_share


@settings(max_examples=8, deadline=None, phases=[Phase.generate])
@given(people=st.integers(2, 5), paces=st.lists(st.integers(1, 12), min_size=5, max_size=5), seed=st.integers(0, 100))
def test_nobody_waits_while_an_item_is_on_no_screen(people, paces, seed):
    """As many people as slots, who come at once, work at different paces and ask every ten seconds when they have nothing."""
    rules, step = Rules(seed=seed, gold_share=0.0), 10.0
    with tempfile.TemporaryDirectory() as folder:
        database = collection(f"{folder}/c.sqlite", people, people=people)
        since = dict.fromkeys(range(1, people + 1), 0)
        for tick, person in itertools.product(range(26), since):
            now = tick * step
            with database.write() as connection:
                if since[person] == 0 and not open_assignments(connection, person, now, rules):
                    assert connection.scalar(select(func.sum(item.c.answered))) + count_screens(connection) == people
                    continue
                renew_lease(connection, person, now, rules)
                since[person] = (since[person] + 1) % paces[person - 1]
                if since[person] == 0:
                    store_answer(connection, person, sent(open_assignments(connection, person, now, rules)[0]), QUESTIONS, now)
        with database.read() as connection:
            assert set(connection.scalars(select(item.c.answered))) == {1}
        database.close()


def count_screens(connection) -> int:
    """People with an open item: the others are preloaded."""
    return connection.scalar(select(func.count(assignment.c.annotator.distinct())).where(assignment.c.state == "open"))


def test_a_collection_ends_when_everybody_has_judged_or_skipped_what_is_left(new_location):
    """Not while someone could still judge, has an item open, or may join."""
    database = collection(new_location(), 2, overlap=2, people=2)
    with database.write() as connection:
        for person in (1, 2):
            for number, row in enumerate(open_assignments(connection, person, 0.0, Rules(gold_share=0.0))):
                assert not is_exhausted(connection)
                if person == 2 and number == 0:
                    skip(connection, person, skipped(row), "unclear", False, 0.0)
                else:
                    store_answer(connection, person, sent(row), QUESTIONS, 0.0)
        assert is_exhausted(connection)
        people.new_credential(connection, 1, "join", 0.0)
        assert not is_exhausted(connection)
        connection.execute(delete(credential))
        people.add_person(connection, "person 3", "annotator", 0.0)
        assert not is_exhausted(connection)


def test_who_leaves_gives_back_what_was_not_seen(new_location):
    """The item on the screen stays reserved for the short time, or for the long one if it has a draft."""
    database, rules = collection(new_location(), 4), Rules(gold_share=0.0)
    with database.write() as connection:
        first, second = open_assignments(connection, 1, 0.0, rules)
        assert (first.leased_until, second.leased_until) == (900.0, 120.0)
        renew_lease(connection, 1, 60.0, rules)
        leave(connection, 1, 60.0, rules)
        leases = dict(connection.execute(select(assignment.c.id, assignment.c.leased_until).where(assignment.c.state == "open")).all())
        assert leases == {first.id: 180.0}
        store_draft(connection, 1, first.id, 0, {"thumbs/0": {"up": True}}, 70.0)
        again, back = open_assignments(connection, 1, 70.0, rules)
        leave(connection, 1, 80.0, rules)
        assert (again.id, back.id, again.leased_until) == (first.id, second.id, 970.0)
        assert connection.scalar(select(assignment.c.leased_until).where(assignment.c.state == "open")) == 970.0


def test_a_gold_turn_comes_once_in_each_block_at_places_that_differ():
    rules = Rules(gold_share=0.1)
    turns = [[is_gold_turn(i, person, rules) for i in range(1000)] for person in (1, 2)]
    assert all(sum(turns[person][start : start + 10]) == 1 for person in (0, 1) for start in range(0, 1000, 10))
    assert turns[0] != turns[1]
    assert len({i % 10 for i, turn in enumerate(turns[0]) if turn}) == 10


def test_a_late_answer_is_kept_and_counts_only_if_its_slot_is_free(new_location):
    database, rules = collection(new_location(), 1), Rules(lease_seconds=10.0)
    with database.write() as connection:
        [mine] = open_assignments(connection, 1, 0.0, rules)
    with database.write() as connection:
        [theirs] = open_assignments(connection, 2, 20.0, rules)
        store_answer(connection, 2, sent(theirs), QUESTIONS, 21.0)
    with database.write() as connection:
        assert store_answer(connection, 1, sent(mine), QUESTIONS, 22.0)
        assert connection.scalar(select(item.c.answered)) == 1
        assert list(connection.scalars(select(assignment.c.state).order_by(assignment.c.annotator))) == ["surplus", "answered"]
        assert connection.scalar(select(func.count()).select_from(answer)) == 2


def test_another_person_s_item_can_neither_be_read_nor_answered(new_location):
    database = collection(new_location(), 3)
    with database.write() as connection:
        row = open_assignments(connection, 1, 0.0, Rules())[0]
        for attempt in (
            lambda: store_answer(connection, 2, sent(row), QUESTIONS, 0.0),
            lambda: skip(connection, 2, skipped(row), "", False, 0.0),
        ):
            with pytest.raises(AnswerRefused) as refused:
                attempt()
            assert refused.value.status == 404


def test_the_next_item_is_read_from_the_index_in_its_order(tmp_path):
    """However many items there are: neither sorted, nor passing over those without a free slot."""
    database, statements = collection(str(tmp_path / "c.sqlite"), 3), []
    with database.write() as connection:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2:4]))
        open_assignments(connection, 1, 0.0, Rules(gold_share=0))
        [taking, *_] = [entry for entry in statements if entry[0].startswith("UPDATE item")]
        plan = " ".join(row[-1] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {taking[0]}", taking[1]))
    assert "USING INDEX item_queue" in plan
    assert "B-TREE" not in plan
