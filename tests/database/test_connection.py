"""The database: versions, wrong places, concurrent writers, every character of a text."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from sqlalchemy import Connection, func, insert, select, update

from rlhf_lightning.database.connection import Database, _file_system
from rlhf_lightning.database.tables import SCHEMA_VERSION, event, project
from rlhf_lightning.errors import ConfigError


@pytest.fixture
def location(tmp_path) -> str:
    """A place for a collection; test_postgresql.py has another."""
    return str(tmp_path / "c.sqlite")


def test_every_character_survives(location):
    texts = ["\x00\x07", "\ud800 alone", "é e\u0301", "\u202eabc\u202c", "<script>", "😀", "a\r\nb\t "]
    database = Database(location)
    with database.write() as connection:
        connection.execute(insert(project).values(key="texts", value=texts))
    database.close()
    database = Database(location, must_exist=True)
    with database.read() as connection:
        assert connection.scalar(select(project.c.value).where(project.c.key == "texts")) == texts
    database.close()


def test_a_newer_collection_is_refused(location):
    database = Database(location)
    with database.write() as connection:
        connection.execute(update(project).values(value=SCHEMA_VERSION + 1))
    database.close()
    with pytest.raises(ConfigError, match=r"newer version.*upgrade"):
        Database(location)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("mysql://host/x", "postgresql://"),
        ("postgresql://user:secret@127.0.0.1:9/none", "can't be used"),
        ("missing.sqlite", "stage=collect"),
    ],
)
def test_a_wrong_place_is_named_without_its_password(place, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=reason) as refused:
        Database(place, must_exist=True)
    assert "secret" not in str(refused.value)


def test_another_file_is_not_taken_for_a_collection(tmp_path):
    (tmp_path / "notes.sqlite").write_text("These are notes, and no database at all.")
    with pytest.raises(ConfigError, match=r"notes\.sqlite"):
        Database(str(tmp_path / "notes.sqlite"))


def test_network_disks_are_told_from_mounts(monkeypatch, tmp_path):
    monkeypatch.setattr("pathlib.Path.read_text", lambda self: f"server:/x {tmp_path} nfs4 rw 0 0\n/dev/a / ext4 rw 0 0\n")
    assert _file_system(tmp_path / "deeper" / "still") == "nfs4"
    with pytest.raises(ConfigError, match="network disk"):
        Database(str(tmp_path / "c.sqlite"))


def test_writers_that_read_first_wait_for_one_another(location):
    """Two Database objects on one place, as two processes have: no "database is locked", no lost count."""
    failures = []
    Database(location).close()

    def count_up() -> None:
        database = Database(location)
        try:
            for _ in range(50):
                with database.write() as connection:
                    number = connection.scalar(select(func.count()).select_from(event))
                    connection.execute(insert(event).values(time=float(number or 0), kind="count"))
        except Exception as error:
            failures.append(error)
        finally:
            database.close()

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Database(location).read() as connection:
        assert sorted(connection.scalars(select(event.c.time))) == [float(i) for i in range(200)]
    assert failures == []


def test_actions_that_wait_together_are_stored_or_refused_each_by_itself(location):
    """Those that raise change nothing, also what they wrote before; the others are stored once, at their acknowledgement."""
    database = Database(location)

    def add(connection: Connection, number: int) -> int:
        connection.execute(insert(event).values(time=float(number), kind="number"))
        if number % 7 == 3:
            raise ValueError(str(number))
        return number

    def hold(connection: Connection) -> None:
        assert is_queued.wait(10)

    is_queued = threading.Event()
    database.submit(hold)
    futures = [database.submit(partial(add, number=number)) for number in range(40)]
    assert futures[20].cancel()
    is_queued.set()
    refused = {number for number in range(40) if number % 7 == 3}
    assert all(isinstance(futures[number].exception(), ValueError) for number in refused)
    assert all(futures[number].result() == number for number in set(range(40)) - refused - {20})
    with database.read() as connection:
        assert sorted(connection.scalars(select(event.c.time))) == sorted(set(range(40)) - refused - {20})
    database.close()
