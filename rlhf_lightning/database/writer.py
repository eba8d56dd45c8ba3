"""One thread that runs a database's writing actions, those that wait in one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

T = TypeVar("T")
Action = Callable[[Connection], T]
MOST_TOGETHER = 50
"""Actions of one transaction."""


class Writer:
    """A thread that keeps one connection and runs actions on it.

    Args:
        connect: opens the connection, at the first action.
        begin: a writing transaction on it.
    """

    def __init__(self, connect: Callable[[], Connection], begin: Callable[[Connection], AbstractContextManager[None]]) -> None:
        self._connect, self._begin = connect, begin
        self._connection: Connection | None = None
        self._waiting: deque[tuple[Action[Any], Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "writer")

    def submit(self, action: Action[T]) -> Future[T]:
        """Run an action soon; its result or exception is set once that is committed or rolled back."""
        future: Future[T] = Future()
        self._waiting.append((action, future))
        self._thread.submit(self._run_waiting)
        return future

    def close(self) -> None:
        """Run what waits, and close the connection."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()

    def _run_waiting(self) -> None:
        batch: list[tuple[Action[Any], Future[Any]]] = []
        while self._waiting and len(batch) < MOST_TOGETHER:
            action, future = self._waiting.popleft()
            if future.set_running_or_notify_cancel():
                batch.append((action, future))
        if batch:
            self._run(batch)

    def _run(self, batch: list[tuple[Action[Any], Future[Any]]], attempts: int = 2) -> None:
        """Run a batch in one transaction; if an action raises, each in a transaction of its own."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._begin(self._connection):
                results = [action(self._connection) for action, _ in batch]
        except BaseException as cause:
            if isinstance(cause, DBAPIError) and cause.connection_invalidated and attempts > 1:
                self._run(batch, attempts - 1)  # on a new connection: the server was restarted
            elif len(batch) > 1:
                for entry in batch:
                    self._run([entry])
            else:
                batch[0][1].set_exception(cause)
            return
        for (_, future), result in zip(batch, results, strict=True):
            future.set_result(result)
