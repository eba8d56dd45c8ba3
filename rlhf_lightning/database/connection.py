"""Open a collection's database, SQLite by path or PostgreSQL by URL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, make_url, select, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from rlhf_lightning.config.redaction import safe_message
from rlhf_lightning.database.tables import SCHEMA_VERSION, metadata, project
from rlhf_lightning.errors import ConfigError

BUSY_SECONDS = 30
NETWORK_DISKS = ("nfs", "cifs", "smb", "fuse.sshfs", "9p", "afs", "lustre", "glusterfs")
WRITER_LOCK = 7216505
"""Key of PostgreSQL's advisory lock of a writing transaction."""


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
        self._writer = threading.Lock()
        self.is_sqlite = "://" not in location
        self._engine = _sqlite(Path(location), durable, must_exist) if self.is_sqlite else _postgresql(location)
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
        with self._writer, self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            if not self.is_sqlite:
                connection.execute(text(f"SELECT pg_advisory_xact_lock({WRITER_LOCK})"))
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction on one snapshot, which neither waits for a writer nor delays one."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

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

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", f"synchronous={'FULL' if durable else 'NORMAL'}", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if connection.get_execution_options().get("writes") else "BEGIN")

    return engine


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
