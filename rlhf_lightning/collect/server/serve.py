"""Serve a collection until it is complete or someone stops it."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections.abc import Callable

import uvicorn
from sqlalchemy.exc import SQLAlchemyError

from rlhf_lightning.collect.project import Project, counts, is_complete, is_exhausted
from rlhf_lightning.collect.server.app import Application
from rlhf_lightning.database.connection import DatabaseGone
from rlhf_lightning.errors import ConfigError

POLL_SECONDS = 1.0
SWITCH_SECONDS = 0.0005
"""Of Python's threads: an answer waits shorter for the thread that computes the manager's figures."""
LOCAL = ("127.0.0.1", "localhost", "::1")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError for an address that is in use or can't be listened on."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=256)
    except OSError as cause:
        raise ConfigError(f"can't listen on {host}:{port} ({cause.strerror}): choose another collect.port, 0 for any free one") from cause


def serve_in_background(project: Project, listener: socket.socket, *, https: bool, root_path: str) -> None:
    """Serve in a thread until the process ends."""
    server = _server(project, https=https, root_path=root_path)
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True, name="collect").start()


def _server(project: Project, *, https: bool, root_path: str) -> uvicorn.Server:
    app = Application(project, https=https, root_path=root_path).asgi()
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, root_path=root_path, server_header=False, timeout_graceful_shutdown=5, lifespan="off",
        proxy_headers=False,
    )  # fmt: skip
    return uvicorn.Server(config)


def serve(project: Project, listener: socket.socket, *, https: bool, root_path: str, report: Callable[[dict[str, int]], None]) -> None:
    """Serve until the collection is complete or nobody has anything to judge, or until a signal.

    Every answer is stored when it is acknowledged, so that a stop at any moment loses none.

    Args:
        report: gets the counts of items and answers whenever an answer arrives.

    Raises:
        ConfigError: the database's file was moved or deleted meanwhile.
    """
    server = _server(project, https=https, root_path=root_path)
    stop, failures = threading.Event(), list[DatabaseGone]()

    def watch() -> None:
        last = -1
        while not stop.wait(POLL_SECONDS):
            try:
                with project.database.read() as connection:
                    state = counts(connection)
                    is_over = not project.is_endless and (is_complete(state, project.target) or is_exhausted(connection))
            except DatabaseGone as cause:
                failures.append(cause)
                server.should_exit = True
                return
            except SQLAlchemyError:  # requests say so
                continue
            if state["answers"] != last:
                last = state["answers"]
                report(state)
            if is_over:
                time.sleep(POLL_SECONDS)  # for the page to say so
                server.should_exit = True
                return

    sys.setswitchinterval(SWITCH_SECONDS)
    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        server.run(sockets=[listener])
    finally:
        stop.set()
        watcher.join()
    if failures:
        raise ConfigError(f"{failures[0]}; answers that were not stored wait in the browsers") from failures[0]
