"""The server by HTTP: who may do what, what is stored, what is refused."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from sqlalchemy import func, select

from rlhf_lightning.collect.items import Item
from rlhf_lightning.collect.question.comment import CommentQuestion
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.server.app import READ, WRITE
from rlhf_lightning.collect.server.security import MAX_BODY
from rlhf_lightning.database.tables import answer, assignment, credential, draft, item
from tests.fixtures.collection import Collection, make_collection, serving

QUESTIONS = {"pairwise": PairwiseQuestion(), "comment": CommentQuestion()}
SECRETS = ["model-one", "model-two", "SECRET-SOURCE"]
ITEMS = [Item(f"prompt {i}", (f"first {i}", f"second {i}"), ("model-one", "model-two"), "SECRET-SOURCE") for i in range(40)]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    collection = make_collection(tmp_path_factory.mktemp("served"), QUESTIONS, ITEMS, ["ada", "ben", "cleo"], overlap=2)
    with serving(collection) as address:
        yield collection, address


def enter(served: tuple[Collection, str], name: str) -> httpx.Client:
    """A browser in which someone has opened the link."""
    collection, address = served
    client = httpx.Client(base_url=address, follow_redirects=True)
    page = client.get(f"/t/{collection.links[name]}")
    assert page.status_code == 200
    client.headers["x-csrf-token"] = re.search(r'name="csrf" content="(\w+)"', page.text)[1]
    return client


def answer_to(task: dict, key: str, choice: str = "a") -> dict:
    return {
        "key": key,
        "assignment": task["assignment"],
        "version": task["version"],
        "steps": {"pairwise": {"choice": choice}},
        "seconds": 1,
        "elapsed": 2,
    }


def count(collection: Collection, table) -> int:
    with collection.project.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table))


def test_an_answer_is_stored_once_however_often_it_is_sent(served):
    client, collection = enter(served, "ada"), served[0]
    task = client.get("/api/state").json()["tasks"][0]
    before = count(collection, answer)
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: client.post("/api/answer", json=answer_to(task, "one key")), range(8)))
    assert {reply.status_code for reply in replies} == {200}
    assert sum(reply.json()["is_new"] for reply in replies) == 1
    assert client.post("/api/answer", json=answer_to(task, "other key", "b")).status_code == 409
    assert count(collection, answer) == before + 1


def test_an_earlier_answer_is_changed_by_a_new_version(served):
    client, collection = enter(served, "ada"), served[0]
    task = client.get("/api/state").json()["tasks"][0]
    client.post("/api/answer", json=answer_to(task, "v0", "a"))
    assert client.get("/api/recent").json()["recent"][0]["assignment"] == task["assignment"]
    again = client.post("/api/reopen", json={"assignment": task["assignment"]}).json()["task"]
    assert again["steps"] == {"pairwise": {"choice": "a"}}
    assert again["responses"] == task["responses"]
    assert client.post("/api/answer", json=answer_to(again, "v1", "b")).json()["is_new"]
    with collection.project.database.read() as connection:
        versions = connection.execute(select(answer.c.version, answer.c.steps).where(answer.c.assignment == task["assignment"])).all()
        assert connection.scalar(select(assignment.c.answer).where(assignment.c.id == task["assignment"])) == "v1"
    assert [row.version for row in versions] == [0, 1]


def test_drafts_are_kept_per_version_and_vanish_with_the_answer(served):
    client, collection = enter(served, "ben"), served[0]
    task = client.get("/api/state").json()["tasks"][0]
    saved = {"assignment": task["assignment"], "version": task["version"], "steps": {"comment/0": "half a th"}}
    assert client.post("/api/draft", json=saved).status_code == 200
    assert enter(served, "ben").get("/api/state").json()["tasks"][0]["steps"] == {"comment/0": "half a th"}
    client.post("/api/answer", json=answer_to(task, "after draft"))
    assert client.post("/api/draft", json=saved).status_code == 409
    assert count(collection, draft) == 0


def test_the_display_order_differs_and_nothing_names_a_model(served):
    client = enter(served, "cleo")
    orders, seen = [], client.get("/").text
    for i in range(12):
        reply = client.get("/api/state")
        seen += reply.text
        task = reply.json()["tasks"][0]
        orders.append(task["responses"][0].startswith("first"))
        seen += client.post("/api/answer", json=answer_to(task, f"cleo {i}")).text
    seen += client.get("/api/recent").text
    assert 2 <= sum(orders) <= 10
    assert not any(secret in seen for secret in SECRETS)


def test_nobody_reaches_anothers_items_or_the_manager_s_pages(served):
    ada, ben, collection = enter(served, "ada"), enter(served, "ben"), served[0]
    task = ada.get("/api/state").json()["tasks"][0]
    before = count(collection, answer)
    mine = {"assignment": task["assignment"], "version": 0, "steps": {}}
    for path, payload in [
        ("/api/answer", answer_to(task, "theft")),
        ("/api/skip", answer_to(task, "theft")),
        *((path, mine) for path in ("/api/draft", "/api/reopen")),
    ]:
        assert ben.post(path, json=payload).status_code == 404
    for path in ("/api/manage", "/export/feedback.jsonl", "/manage"):
        assert ben.get(path).status_code == 403
    for path, (role, _) in WRITE.items():
        if role == "manager":
            assert ben.post(path, json={"name": "eve", "annotator": 1, "is_paused": True}).status_code == 403
    assert count(collection, answer) == before


@pytest.mark.parametrize("path", [*WRITE, "/api/join"])
def test_a_route_that_changes_something_wants_session_token_and_origin(path, served):
    client, address = enter(served, "manager" if WRITE.get(path, ("", None))[0] == "manager" else "ada"), served[1]
    stranger = httpx.Client(base_url=address)
    assert stranger.get(path).status_code == 405
    assert client.post(path, json={}, headers={"origin": "https://evil.example"}).status_code == 403
    if path != "/api/join":
        assert stranger.post(path, json={}).status_code == 401
        assert client.post(path, json={}, headers={"x-csrf-token": "wrong"}).status_code == 403
        assert client.post(path, content="[1]").status_code == 400
        assert client.post(path, content='{"a": NaN}').status_code == 400
        assert client.post(path, content="[" * 100_000).status_code == 400


@pytest.mark.parametrize("path", [*READ, "/api/manage", "/export/feedback.jsonl", "/export/answers.jsonl", "/export/argilla.json"])
def test_a_stranger_reads_nothing(path, served):
    assert httpx.get(served[1] + path).status_code == 401


def test_every_response_has_the_security_headers(served):
    client = enter(served, "ada")
    for path in ("/", "/api/state", "/static/page.css", "/questions/pairwise.js", "/nowhere", "/t/wrong"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert (headers["x-content-type-options"], headers["referrer-policy"]) == ("nosniff", "no-referrer")
        assert headers["cache-control"] == ("no-cache" if path.startswith(("/static", "/questions")) else "no-store")


def test_the_cookie_and_the_database_keep_no_token(served):
    collection, address = served
    reply = httpx.get(f"{address}/t/{collection.links['ada']}")
    cookie = reply.headers["set-cookie"]
    assert reply.status_code == 303
    assert "HttpOnly" in cookie
    assert "samesite=lax" in cookie.lower()
    with collection.project.database.read() as connection:
        digests = list(connection.scalars(select(credential.c.digest)))
    assert not set(digests) & {*collection.links.values(), re.search("=([^;]+)", cookie)[1]}


def test_large_bodies_and_bad_values_are_refused(served):
    client = enter(served, "ada")
    task = client.get("/api/state").json()["tasks"][0]
    assert client.post("/api/answer", content=b"x" * (MAX_BODY + 1)).status_code == 413
    for change in ({"steps": {}}, {"steps": {"nothing": 1}}, {"steps": {"pairwise": {"choice": "z"}}}, {"key": ""},
                   {"key": "k" * 101}, {"seconds": "1"}, {"assignment": "1"}, {"assignment": True},
                   {"steps": {"pairwise": {"choice": "a"}, "comment/0": 3}}):  # fmt: skip
        reply = client.post("/api/answer", json=answer_to(task, "bad") | change)
        assert reply.status_code == 422, change
        assert reply.json()["error"]


def test_a_skipped_item_goes_to_others_and_not_back(served):
    client, collection = enter(served, "ada"), served[0]
    tasks = client.get("/api/state").json()["tasks"]
    reply = client.post("/api/skip", json=answer_to(tasks[0], "skip 1") | {"reason": "unclear", "flag": True}).json()
    assert tasks[0]["assignment"] not in [task["assignment"] for task in reply["tasks"]]
    manager = enter(served, "manager")
    newest = manager.get("/api/manage").json()["flags"][0]
    assert (newest["reason"], newest["is_flagged"]) == ("unclear", True)
    assert count(collection, assignment) > 0


def test_hostile_text_of_annotators_is_stored_or_refused(served):
    """Control characters and lone surrogates in every text that the page sends: never an error of the server."""
    client, collection = enter(served, "ben"), served[0]
    hostile = "\x00\ud800\u202e<script>{{7*7}}😀"
    task = client.get("/api/state").json()["tasks"][0]

    def post(path: str, payload: dict) -> int:
        return client.post(path, content=json.dumps(payload)).status_code

    steps = {"pairwise": {"choice": "a"}, "comment/0": hostile}
    draft_of = {"assignment": task["assignment"], "version": task["version"], "steps": steps}
    assert post("/api/draft", draft_of) == 200
    assert post("/api/answer", answer_to(task, hostile)) == 422
    assert post("/api/answer", answer_to(task, "hostile comment") | {"steps": steps}) == 200
    with collection.project.database.read() as connection:
        stored = connection.scalar(select(answer.c.steps).where(answer.c.key == "hostile comment"))
    assert stored == {**steps, "comment/0": hostile.replace("\x00", "\ufffd").replace("\ud800", "\ufffd")}
    task = client.get("/api/state").json()["tasks"][0]
    assert post("/api/skip", answer_to(task, "hostile skip") | {"reason": hostile}) == 200
    manager = enter(served, "manager")
    assert manager.get("/api/manage").json()["flags"][0]["reason"].endswith("<script>{{7*7}}😀")
    assert post("/api/join", {"token": hostile, "name": hostile}) == 403


def test_the_manager_pauses_adds_revokes_and_exports(served):
    address = served[1]
    manager, cleo = enter(served, "manager"), enter(served, "cleo")
    manager.post("/api/manage/pause", json={"is_paused": True})
    assert cleo.get("/api/state").json() | {"tasks": [], "is_paused": True} == cleo.get("/api/state").json()
    manager.post("/api/manage/pause", json={"is_paused": False})
    link = manager.post("/api/manage/add", json={"name": " Zoë\u202e "}).json()
    assert link["name"] == "Zoë"
    assert httpx.get(f"{address}/t/{link['token']}").status_code == 303
    person = next(row for row in manager.get("/api/manage").json()["annotators"] if row["name"] == "cleo")
    assert person["answers"] >= 0
    assert manager.post("/api/manage/revoke", json={"annotator": person["id"]}).status_code == 200
    assert cleo.get("/api/state").status_code == 401
    assert manager.post("/api/manage/revoke", json={"annotator": 1}).status_code == 404  # the manager
    records = [json.loads(line) for line in manager.get("/export/feedback.jsonl").text.splitlines()]
    assert records
    assert all(
        record["positions"] == [0, 1] and set(record["models"]) == {"model-one", "model-two"}
        for record in records
        if len(record["responses"]) == 2
    )
    rows = [json.loads(line) for line in manager.get("/export/answers.jsonl").text.splitlines()]
    assert {"answered", "skipped"} <= {row["state"] for row in rows}
    assert {"chosen", "rejected"} <= json.loads(manager.get("/export/trl.jsonl").text.splitlines()[0]).keys()
    assert all(manager.get(f"/export/{tool}.json").json()[0]["id"] for tool in ("label_studio", "argilla"))
    assert manager.get("/export/trl.json").status_code == manager.get("/export/nothing.jsonl").status_code == 404


def test_a_preloaded_item_is_free_when_its_annotator_leaves_or_the_manager_pauses_or_revokes(tmp_path):
    collection = make_collection(tmp_path, QUESTIONS, ITEMS[:3])

    def states() -> list[str]:
        with collection.project.database.read() as connection:
            assert connection.scalar(select(func.sum(item.c.needed - item.c.free))) == connection.scalar(
                select(func.count()).select_from(assignment).where(assignment.c.state == "open")
            )
            return list(connection.scalars(select(assignment.c.state).order_by(assignment.c.id)))

    with serving(collection) as address:
        ada, manager = enter((collection, address), "ada"), enter((collection, address), "manager")
        for action in (
            lambda: ada.post("/api/leave", json={}),
            lambda: manager.post("/api/manage/pause", json={"is_paused": True}),
            lambda: manager.post("/api/manage/revoke", json={"annotator": 2}),
        ):
            manager.post("/api/manage/pause", json={"is_paused": False})
            tasks = ada.get("/api/state").json()["tasks"]
            assert [task["reserved"] > 200 for task in tasks] == [True, False]
            assert states() == ["open", "open"]
            assert action().status_code == 200
            freed = states()
            assert freed[1] == "expired"
        assert freed == ["expired", "expired"]


def test_the_open_link_asks_for_a_name_that_is_free(served):
    collection, address = served
    client = httpx.Client(base_url=address, follow_redirects=True)
    token = collection.links["join"]
    assert client.get(f"/join/{token}").status_code == 200
    assert client.post("/api/join", json={"token": token, "name": "ADA".lower()}).status_code == 409
    assert client.post("/api/join", json={"token": token, "name": "\u202e "}).status_code == 422
    assert client.post("/api/join", json={"token": "wrong", "name": "dora"}).status_code == 403
    assert client.post("/api/join", json={"token": token, "name": "dora"}).status_code == 200
    assert client.get("/api/state").json()["name"] == "dora"


def test_a_full_disk_or_a_file_that_is_gone_is_said_and_nothing_is_acknowledged(tmp_path):
    """Once there is room again, the same answers are stored once; a file that someone moved away gets none."""
    collection = make_collection(tmp_path, QUESTIONS, ITEMS[:4])
    database, location = collection.project.database, Path(collection.project.database.location)
    with serving(collection) as address:
        client = enter((collection, address), "ada")
        task = client.get("/api/state").json()["tasks"][0]
        sent = answer_to(task, "big")
        sent["steps"] = {**sent["steps"], "comment/0": "x" * 9_000, "comment/1": "y" * 9_000}
        room = database.submit(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1").scalar()).result()
        reply = client.post("/api/answer", json=sent)
        assert (reply.status_code, "full" in reply.json()["error"], count(collection, answer)) == (503, True, 0)
        database.submit(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={room + 1000}").scalar()).result()
        assert [client.post("/api/answer", json=sent).json()["is_new"] for _ in range(2)] == [True, False]
        location.rename(tmp_path / "moved")
        reply = client.post("/api/answer", json=answer_to(task, "gone"))
        assert (reply.status_code, "gone" in reply.json()["error"]) == (503, True)
        assert client.get("/api/state").status_code == 503
        assert "no such page" in client.get("/nowhere").text
        (tmp_path / "moved").rename(location)
        assert client.get("/api/state").status_code == 200
    assert count(collection, answer) == 1


def test_guessing_tokens_is_slowed_down(tmp_path):
    with serving(make_collection(tmp_path, QUESTIONS, ITEMS[:1])) as address:
        codes = [httpx.get(f"{address}/t/guess{i}").status_code for i in range(15)]
    assert codes[:10] == [403] * 10
    assert set(codes[10:]) == {429}


def test_it_works_behind_a_prefix(tmp_path):
    collection = make_collection(tmp_path, QUESTIONS, ITEMS[:1])
    with serving(collection, root_path="/feedback") as address:
        reply = httpx.get(f"{address}/t/{collection.links['ada']}")
        assert reply.headers["location"] == "/feedback/"
        assert 'src="/feedback/static/join.js"' in httpx.get(f"{address}/join/x").text
        assert httpx.get(f"{address}/static/join.js").status_code == 200
        assert "Path=/feedback/" in reply.headers["set-cookie"]
