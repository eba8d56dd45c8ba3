"""A collection in PostgreSQL: the tests of the connection, of the assignment and of the server, on a cluster of their own."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import insert, select, text

from rlhf_lightning.database.connection import Database
from rlhf_lightning.database.tables import project
from tests.collect import test_assignment
from tests.collect.server import test_app
from tests.database import test_connection
from tests.fixtures.collection import make_collection, serving


@pytest.fixture
def location(new_postgresql):
    return new_postgresql()


@pytest.fixture
def new_location(new_postgresql):
    return new_postgresql


@pytest.fixture(scope="module")
def served(new_postgresql):
    collection = make_collection(new_postgresql(), test_app.QUESTIONS, test_app.ITEMS, ["ada", "ben", "cleo"], overlap=2)
    with serving(collection) as address:
        yield collection, address
    collection.project.database.close()


test_every_character_survives = test_connection.test_every_character_survives
test_a_newer_collection_is_refused = test_connection.test_a_newer_collection_is_refused
test_writers_that_read_first_wait_for_one_another = test_connection.test_writers_that_read_first_wait_for_one_another
test_actions_that_wait_together = test_connection.test_actions_that_wait_together_are_stored_or_refused_each_by_itself

test_everything_is_judged_and_nobody_judges_twice = test_assignment.test_everything_is_judged_and_nobody_judges_twice
test_a_late_answer_is_kept = test_assignment.test_a_late_answer_is_kept_and_counts_only_if_its_slot_is_free
test_another_person_s_item = test_assignment.test_another_person_s_item_can_neither_be_read_nor_answered
test_a_collection_ends = test_assignment.test_a_collection_ends_when_everybody_has_judged_or_skipped_what_is_left
test_who_leaves = test_assignment.test_who_leaves_gives_back_what_was_not_seen

test_an_answer_is_stored_once = test_app.test_an_answer_is_stored_once_however_often_it_is_sent
test_an_earlier_answer_is_changed_by_a_new_version = test_app.test_an_earlier_answer_is_changed_by_a_new_version
test_drafts = test_app.test_drafts_are_kept_per_version_and_vanish_with_the_answer
test_the_display_order_differs_and_nothing_names_a_model = test_app.test_the_display_order_differs_and_nothing_names_a_model
test_a_skipped_item_goes_to_others_and_not_back = test_app.test_a_skipped_item_goes_to_others_and_not_back
test_hostile_text = test_app.test_hostile_text_of_annotators_is_stored_or_refused
test_the_manager = test_app.test_the_manager_pauses_adds_revokes_and_exports


def test_a_lost_connection_is_opened_again(location):
    database = Database(location)
    for _ in range(2):
        pid = database.submit(lambda connection: connection.scalar(text("SELECT pg_backend_pid()"))).result()
        with database.write() as connection:
            assert connection.scalar(text(f"SELECT pg_terminate_backend({pid})"))
    database.submit(lambda connection: connection.execute(insert(project).values(key="after", value=1)).rowcount).result()
    with database.read() as connection:
        assert connection.scalar(select(project.c.value).where(project.c.key == "after")) == 1
    database.close()


class Collection(test_assignment.Collection):
    """The state machine of the assignment, few seeded examples of it."""

    def location(self) -> str:
        return self.new()


Collection.TestCase.settings = settings(
    max_examples=4, stateful_step_count=30, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@pytest.mark.usefixtures("_machine_location")
class TestCollection(Collection.TestCase):
    pass


@pytest.fixture
def _machine_location(new_postgresql):
    Collection.new = staticmethod(new_postgresql)
