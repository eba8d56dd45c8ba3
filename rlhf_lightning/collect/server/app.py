"""The collection's web application: every route with who may use it."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from rlhf_lightning.collect import people
from rlhf_lightning.collect.answers import AnswerRefused, log
from rlhf_lightning.collect.export import FILES
from rlhf_lightning.collect.people import Person
from rlhf_lightning.collect.project import Project
from rlhf_lightning.collect.server import management, tasks
from rlhf_lightning.collect.server.security import (
    COOKIE,
    AsciiResponse,
    BodyLimit,
    RateLimit,
    SecurityHeaders,
    csrf_token,
    has_csrf_token,
    is_same_origin,
    refusal,
)  # fmt: skip
from rlhf_lightning.config.display import safe_message
from rlhf_lightning.database.connection import DatabaseGone
from rlhf_lightning.database.writer import T
from rlhf_lightning.feedback.strict_json import replace_unstorable

PACKAGE = Path(__file__).parent.parent
SESSION_SECONDS = 10.0
Action = Callable[[Connection, Project, Person, dict[str, Any]], dict[str, Any]]

READ: dict[str, tuple[str, Action]] = {
    "/api/state": ("annotator", tasks.state),
    "/api/recent": ("annotator", tasks.recent),
}
"""GET routes: who may use them, and what they return."""
WRITE: dict[str, tuple[str, Action]] = {
    "/api/answer": ("annotator", tasks.submit_answer),
    "/api/draft": ("annotator", tasks.submit_draft),
    "/api/skip": ("annotator", tasks.submit_skip),
    "/api/heartbeat": ("annotator", tasks.submit_heartbeat),
    "/api/leave": ("annotator", tasks.submit_leave),
    "/api/reopen": ("annotator", tasks.submit_reopen),
    "/api/manage/pause": ("manager", management.set_paused),
    "/api/manage/finish": ("manager", management.finish_round),
    "/api/manage/add": ("manager", management.add_annotator),
    "/api/manage/revoke": ("manager", management.revoke_annotator),
}
"""POST routes of JSON objects, all with a session and its CSRF token."""


class Application:
    """The pages of one collection.

    Args:
        https: cookies are sent over HTTPS alone.
        root_path: the prefix of a reverse proxy.
    """

    def __init__(self, project: Project, *, https: bool = False, root_path: str = "") -> None:
        self.project, self.https, self.root_path = project, https, root_path.rstrip("/")
        self.figures = management.Figures(project)
        self._people: dict[str, tuple[Person, float]] = {}
        self.token_failures, self.writes = RateLimit(0.2, 10), RateLimit(50, 200)
        loader = jinja2.FileSystemLoader(PACKAGE / "templates")
        self.templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)

    def asgi(self) -> Starlette:
        """The ASGI application."""
        routes = [
            *(Route(path, self.handler(role, action, writes=True), methods=["POST"]) for path, (role, action) in WRITE.items()),
            *(Route(path, self.handler(role, action, writes=False)) for path, (role, action) in READ.items()),
            Route("/", self.home),
            Route("/t/{token}", self.enter),
            Route("/join/{token}", self.join_page),
            Route("/api/join", self.join, methods=["POST"]),
            Route("/manage", self.manage_page),
            Route("/api/manage", self.manage),
            Route("/export/{kind}.{ending}", self.export),
            Route("/questions/{name}.js", self.question_script),
            Mount("/static", StaticFiles(directory=PACKAGE / "static")),
        ]
        handlers: Any = {SQLAlchemyError: self.storage_failed, 404: self.not_found}
        return Starlette(routes=routes, middleware=[Middleware(SecurityHeaders), Middleware(BodyLimit)], exception_handlers=handlers)

    async def storage_failed(self, request: Request, cause: Exception) -> Response:
        """Say that nothing can be stored now: the page keeps answers and sends them again."""
        reason = "its file is gone" if isinstance(cause, DatabaseGone) else str(getattr(cause, "orig", cause)).splitlines()[0]
        logging.getLogger("uvicorn.error").error("the collection's database fails: %s", safe_message(str(cause)).splitlines()[0])
        text = f"The server can't store answers now ({reason})"
        if "/api/" in request.url.path:
            return refusal(503, text)
        return self.page("message.html", 503, title="Please try again later", text=f"{text}. The manager has to see to it.")

    async def not_found(self, request: Request, cause: Exception) -> Response:
        """Say that there is no such page."""
        if "/api/" in request.url.path:
            return refusal(404, "no such address")
        return self.page("message.html", 404, title="There is no such page", text="Open the link that you were given.")

    async def home(self, request: Request) -> Response:
        """The annotator's page, or the manager's."""
        person = await self.person(request)
        if person is None:
            return self.page("message.html", 401, title="This page needs your link", text="Open the link that you were given.")
        if person.role == "manager":
            return RedirectResponse(f"{self.root_path}/manage", 303)
        return self.page("annotate.html", csrf=csrf_token(request.cookies[COOKIE]))

    async def enter(self, request: Request) -> Response:
        """Exchange a link's token for a session's cookie."""
        if not self.token_failures.allows(_client(request)):
            return self.page("message.html", 429, title="Too many attempts", text="Wait a minute, then open your link again.")
        session = await self.submit(lambda connection: self._session_of_link(connection, request.path_params["token"]))
        if session is None:
            self.token_failures.count(_client(request))
            return self.page("message.html", 403, title="This link is not valid", text="Ask for a new one: it may have been revoked.")
        return self.with_session(RedirectResponse(f"{self.root_path}/", 303), session)

    async def join_page(self, request: Request) -> Response:
        """Ask for a name."""
        return self.page("join.html", token=request.path_params["token"])

    async def join(self, request: Request) -> Response:
        """Add someone with the open link and a name that nobody has."""
        if not is_same_origin(request):
            return refusal(403, "the request comes from another page")
        if not self.token_failures.allows(_client(request)):
            return refusal(429, "too many attempts: wait a minute")
        payload = await _json_object(request)
        if payload is None:
            return refusal(400, "a JSON object was expected")
        token, name = str(payload.get("token")), str(payload.get("name") or "")
        try:
            session = await self.submit(lambda connection: self._join(connection, token, name))
        except AnswerRefused as cause:
            self.token_failures.count(_client(request))
            return refusal(cause.status, str(cause))
        return self.with_session(AsciiResponse({"joined": True}), session)

    async def manage_page(self, request: Request) -> Response:
        """The manager's page."""
        person = await self.person(request)
        if person is None or person.role != "manager":
            return self.page("message.html", 403, title="This page is the manager's", text="Open the manager's link.")
        return self.page("manage.html", csrf=csrf_token(request.cookies[COOKIE]))

    async def manage(self, request: Request) -> Response:
        """The manager's figures."""
        person = await self.person(request)
        if person is None or person.role != "manager":
            return refusal(401 if person is None else 403, "this page is the manager's")
        return AsciiResponse(await run_in_threadpool(self.figures.current))

    async def export(self, request: Request) -> Response:
        """An export, streamed as a file."""
        person = await self.person(request)
        kind, ending = request.path_params["kind"], request.path_params["ending"]
        if person is None or person.role != "manager":
            return refusal(401 if person is None else 403, "this page is the manager's")
        if FILES.get(kind) != ending:
            return refusal(404, f"there are {', '.join(f'{name}.{ending}' for name, ending in FILES.items())}")
        headers = {"content-disposition": f'attachment; filename="{kind}.{ending}"'}
        media_type = "application/json" if ending == "json" else "application/jsonl"
        return StreamingResponse(management.export_stream(self.project, kind), media_type=media_type, headers=headers)

    async def question_script(self, request: Request) -> Response:
        """The module of a question that is in use, a plugin's included."""
        question = self.project.questions.get(request.path_params["name"])
        if question is None:
            return refusal(404, "no such question")
        return FileResponse(question.script, media_type="text/javascript")

    def handler(self, role: str, action: Action, *, writes: bool) -> Callable[[Request], Any]:
        """A route for people of one role: session first; if it writes, then CSRF token, rate and body."""

        async def handle(request: Request) -> Response:
            person = await self.person(request)
            if person is None or person.role != role:
                return refusal(401 if person is None else 403, f"this needs the link of the {role}")
            payload: dict[str, Any] | None = {}
            if writes:
                if not has_csrf_token(request, request.cookies[COOKIE]):
                    return refusal(403, "the request does not come from the page: reload it")
                if not self.writes.allows(str(person.id)):
                    return refusal(429, "too many requests: wait a second")
                self.writes.count(str(person.id))
                payload = await _json_object(request)
            if payload is None:
                return refusal(400, "a JSON object was expected")
            try:
                result = await self.submit(lambda connection: action(connection, self.project, person, payload))
            except AnswerRefused as cause:
                return refusal(cause.status, str(cause))
            if role == "manager":
                self._people.clear()  # one may be revoked
            return AsciiResponse(result)

        return handle

    async def submit(self, action: Callable[[Connection], T]) -> T:
        """The result of an action on the database, once it is committed."""
        return await asyncio.wrap_future(self.project.database.submit(action))

    async def person(self, request: Request) -> Person | None:
        """The person of the request's session.

        Looked up again every SESSION_SECONDS and after each action of the manager.
        """
        session = request.cookies.get(COOKIE)
        if session is None:
            return None
        person, until = self._people.get(session, (None, 0.0))
        if person is None or time.monotonic() > until:
            person = await run_in_threadpool(self._person, session)
            if person is not None:
                self._people[session] = (person, time.monotonic() + SESSION_SECONDS)
        return person

    def page(self, template: str, status: int = 200, **values: Any) -> HTMLResponse:
        """A page from its template."""
        return HTMLResponse(self.templates.get_template(template).render(root=self.root_path, **values), status)

    def with_session(self, response: Response, session: str) -> Response:
        """The response with the session's cookie."""
        path = f"{self.root_path}/"
        response.set_cookie(COOKIE, session, path=path, httponly=True, samesite="lax", secure=self.https, max_age=90 * 86_400)
        return response

    def _person(self, session: str) -> Person | None:
        with self.project.database.read() as connection:
            return people.person_of(connection, session, "session")

    def _session_of_link(self, connection: Connection, token: str) -> str | None:
        person = people.person_of(connection, token, "link")
        if person is None:
            return None
        log(connection, "enter", self.project.clock(), person.id)
        return people.new_credential(connection, person.id, "session", self.project.clock())

    def _join(self, connection: Connection, token: str, name: str) -> str:
        now = self.project.clock()
        if people.person_of(connection, token, "join") is None:
            raise AnswerRefused(403, "this link is not valid")
        try:
            cleaned = people.clean_name(name)
        except ValueError as cause:
            raise AnswerRefused(422, str(cause)) from cause
        if people.is_taken(connection, cleaned):
            raise AnswerRefused(409, "someone has this name already: choose another, or ask the manager for your link")
        person = people.add_person(connection, cleaned, "annotator", now)
        log(connection, "join", now, person)
        return people.new_credential(connection, person, "session", now)


async def _json_object(request: Request) -> dict[str, Any] | None:
    """The request's body as a JSON object of storable texts; None for anything else."""

    def reject_constant(name: str) -> Any:
        raise ValueError(name)

    try:
        value = json.loads(await request.body(), parse_constant=reject_constant)
    except (ValueError, RecursionError):
        return None
    return replace_unstorable(value) if isinstance(value, dict) else None


def _client(request: Request) -> str:
    return request.client.host if request.client else ""
