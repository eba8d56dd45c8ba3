"""Open a collection's database, SQLite by path or PostgreSQL by URL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rlhf_lightning.config.display import safe_message
from rlhf_lightning.database.tables import SCHEMA_VERSION, metadata, project
from rlhf_lightning.database.writer import Action, T, Writer
from rlhf_lightning.errors import ConfigError

BUSY_SECONDS = 30
NETWORK_DISKS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "lustre", "glusterfs")
LOCK = text("SELECT pg_advisory_xact_lock(7216505)")
"""Lets one writing transaction at a time into a PostgreSQL database, from whichever process."""


class DatabaseGone(SQLAlchemyError):
    """The database's file was moved or deleted while it is used: what would be written would be lost."""


class Database:
    """A collection's database, written by one transaction at a time.

    Args:
        location: a file of SQLite, or a URL "postgresql://...".
        durable: let each write wait for the disk, so that it also survives a loss of power.
        must_exist: refuse a location without a collection instead of making one.

    Raises:
        ConfigError: a location that can't be opened, on a network disk, or of a newer version.
    """

    def __init__(self, location: str, *, durable: bool = False, must_exist: bool = False) -> None:
        self.location = location
        self._lock = threading.Lock()
        self.is_sqlite = "://" not in location
        self._engine = _sqlite(Path(location), durable, must_exist) if self.is_sqlite else _postgresql(location)
        self._writer = Writer(self._engine.connect, self._begin)
        try:
            self._prepare(must_exist)
        except SQLAlchemyError as cause:
            raise ConfigError(f"the database {self.name} can't be used: {safe_message(str(cause)).splitlines()[0]}") from cause

    @property
    def name(self) -> str:
        """The location without its password."""
        return self.location if self.is_sqlite else make_url(self.location).render_as_string(hide_password=True)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that may write, committed at the end of the block and rolled back by an exception.

        SQLite takes the lock at its start: a transaction that reads first and writes later fails at once if another wrote between.
        """
        with self._engine.connect() as connection, self._begin(connection):
            yield connection

    def submit(self, action: Action[T]) -> Future[T]:
        """Run an action in the writer's thread; the result is there once it is committed.

        Actions that wait share one transaction, so that the disk, or PostgreSQL, is waited for once. One that raises changes nothing, and
        leaves the others alone; they run again then.
        """
        return self._writer.submit(action)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction on one snapshot, which neither waits for a writer nor delays one."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all connections, once the submitted actions have run."""
        self._writer.close()
        self._engine.dispose()

    @contextmanager
    def _begin(self, connection: Connection) -> Iterator[None]:
        """A writing transaction on a connection, the only one of this and of other processes."""
        with self._lock, connection.execution_options(writes=True).begin():
            if not self.is_sqlite:
                connection.execute(LOCK)
            yield

    def _prepare(self, must_exist: bool) -> None:
        """Create the tables, or check the version of those that exist."""
        with self.write() as connection:
            exists = inspect(connection).has_table(project.name)
            if not exists and must_exist:
                raise ConfigError(f"{self.name} is not a collection's database: stage=collect makes one")
            metadata.create_all(connection)
            version = connection.scalar(select(project.c.value).where(project.c.key == "schema_version"))
            if version is None:
                connection.execute(insert(project).values(key="schema_version", value=SCHEMA_VERSION))
            elif version > SCHEMA_VERSION:
                raise ConfigError(
                    f"{self.name} was written by a newer version of this program (tables {version}, this one reads {SCHEMA_VERSION}): "
                    "upgrade with `pip install -U rlhf-lightning`"
                )


def _sqlite(path: Path, durable: bool, must_exist: bool) -> Engine:
    if must_exist and not path.is_file():
        raise ConfigError(f"no collection at {path}: stage=collect makes one; collect.database is its file, or a URL postgresql://...")
    kind = _file_system(path.absolute().parent)
    if kind.startswith(NETWORK_DISKS):
        raise ConfigError(f"{path} is on a network disk ({kind}), where SQLite loses data: use a local file, or postgresql://...")
    try:
        path.absolute().parent.mkdir(parents=True, exist_ok=True)
    except OSError as cause:
        raise ConfigError(f"{path.absolute().parent} can't be made ({cause.strerror}): choose another collect.database") from cause
    engine = create_engine(f"sqlite:///{path.absolute()}", connect_args={"timeout": BUSY_SECONDS, "isolation_level": None})
    identities: list[tuple[int, int] | None] = []

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", f"synchronous={'FULL' if durable else 'NORMAL'}", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        identities.append(_identity(path.absolute()))

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        if _identity(path.absolute()) != identities[0]:
            raise DatabaseGone(f"{path} was moved or deleted: put it back and start stage=collect again")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and the number of a file; None without one."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _postgresql(url: str) -> Engine:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "postgresql":
            raise ConfigError(f"collect.database: a file of SQLite or a URL postgresql://USER@HOST/NAME, not {parsed.drivername}://")
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), isolation_level="READ COMMITTED", pool_size=10, pool_pre_ping=True
        )
    except ModuleNotFoundError as cause:
        raise ConfigError('PostgreSQL needs its driver: pip install "rlhf-lightning[postgres]"') from cause
    except (ArgumentError, NoSuchModuleError) as cause:
        raise ConfigError("collect.database: a file of SQLite or a URL postgresql://USER@HOST/NAME") from cause


def _file_system(folder: Path) -> str:
    """The type of the file system of a folder, "" where it can't be read."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return ""
    while not folder.exists():
        folder = folder.parent
    above = {str(parent) for parent in (folder.resolve(), *folder.resolve().parents)}
    return max(((len(point), kind) for point, kind in mounts if point in above), default=(0, ""))[1]
