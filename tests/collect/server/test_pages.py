"""The pages in Chromium, without a network: every question by keys and by pointer, lost connections, hostile texts, accessibility."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import time

import pytest
from sqlalchemy import func, select

from rlhf_lightning.collect.answers import Answer, skip, store_answer
from rlhf_lightning.collect.assignment import open_assignments
from rlhf_lightning.collect.export import FILES, export_text
from rlhf_lightning.collect.items import Item, add_items
from rlhf_lightning.collect.question.comment import CommentQuestion
from rlhf_lightning.collect.question.edit import EditQuestion
from rlhf_lightning.collect.question.pairwise import PairwiseQuestion
from rlhf_lightning.collect.question.ranking import RankingQuestion
from rlhf_lightning.collect.question.rating import RatingQuestion
from rlhf_lightning.collect.question.spans import SpansQuestion
from rlhf_lightning.collect.question.thumbs import ThumbsQuestion
from rlhf_lightning.database.tables import answer, assignment
from rlhf_lightning.flow import Message
from tests.fixtures.collection import make_collection, serving

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM"),
    pytest.mark.xdist_group("chromium"),
]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync"]
HOSTILE = [
    "<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked = 1'>", "{{7*7}} {% raw %} ${7*7}",
    "\u202etxet\u202c \u2066x\u2069",
    "bell \x07 escape \x1b[31m nul \x00", "[link](javascript:window.hacked=1) http://evil.example/x.png", "emoji 😀 עברית مرحبا e\u0301",
    "</p></main><style>body{display:none}</style>",
]  # fmt: skip


SENT = """n => document.getElementById("count").textContent.includes(`: ${n} judged`)
    && document.getElementById("saved").textContent.startsWith("Sent")"""


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield chromium
        chromium.close()


class Visitor:
    """A browser window of one person, in which nothing may leave this machine, break the policy or fail."""

    def __init__(self, browser, address: str, link: str, **settings) -> None:
        self.context = browser.new_context(**settings)
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.note(message.text))
        self.page.on("request", lambda request: request.url.startswith((address, "data:")) or self.faults.append(request.url))
        self.page.goto(link)

    def note(self, text: str) -> None:
        if "Failed to load resource" not in text:
            self.faults.append(text)

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def wait_sent(self, count: int) -> None:
        self.page.wait_for_function(SENT, arg=count)


def records(collection) -> list[dict]:
    with collection.project.database.read() as connection:
        current = select(answer.c.records).join(assignment, assignment.c.answer == answer.c.key).order_by(answer.c.time)
        return [record for rows in connection.scalars(current) for record in rows]


def rows(collection) -> int:
    with collection.project.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(answer))


def open_items(collection) -> int:
    with collection.project.database.read() as connection:
        return connection.scalar(select(func.count()).select_from(assignment).where(assignment.c.state == "open"))


CHAT = (Message(role="user", content="hi"), Message(role="assistant", content="hello"), Message(role="user", content="how?"))
BY_KEYS = {
    "pairwise": (PairwiseQuestion(strengths=2), ("x 1", "y 2"), "1 4", {"ranks": [1, 2], "margin": 2}),
    "ranking": (RankingQuestion(), ("x 1", "y 2", "z 3"), "3 = 1 Enter", {"ranks": [1, 2, 1]}),
    "rating": (RatingQuestion(), ("x 1",), "4", {"value": 4}),
    "slider": (RatingQuestion(low=0, high=100, display="slider"), ("x 1",), "ArrowRight ArrowRight Enter", {"value": 52}),
    "thumbs": (ThumbsQuestion(turns=True), ("x 1",), "2", {"up": False}),
    "edit": (EditQuestion(), ("x 1 ",), "End ! Control+Enter", {"kind": "edit"}),
    "edit_crlf": (EditQuestion(), ("x\r\n1 ",), "Control+End ! Control+Enter", {"kind": "edit"}),
    "spans": (SpansQuestion(), ("😀 one two",), "ArrowRight Shift+ArrowRight 1 Enter", {"kind": "spans"}),
    "spans_rtl": (SpansQuestion(), ("אחת שתים שלוש",), "ArrowLeft Shift+ArrowLeft 2 Enter", {"kind": "spans"}),
    "comment": (CommentQuestion(required=True), ("x 1",), "g u Control+Enter", {"text": "gu"}),
}
"""A question, its item's responses, the keys, and what the record's judgement then has."""


@pytest.mark.parametrize("name", BY_KEYS)
def test_each_question_is_answered_by_keys_alone(name, browser, tmp_path):
    question, responses, keys, expected = BY_KEYS[name]
    collection = make_collection(tmp_path, {name: question}, [Item(CHAT, responses)], ["ada"])
    collection.project.questions = {question.script.stem: question}
    with serving(collection) as address:
        visitor = Visitor(browser, address, f"{address}/t/{collection.links['ada']}")
        visitor.page.wait_for_selector("#send")
        visitor.press(*keys.split())
        visitor.wait_sent(1)
        [record] = records(collection)
        assert record["judgement"] | expected == record["judgement"]
        if name.startswith("edit"):
            assert record["responses"] == [responses[0], f"{responses[0]}!"]
        if name.startswith("spans"):
            [span] = record["judgement"]["spans"]
            assert (span["start"], span["end"], span["label"]) == ((2, 9, "error") if name == "spans" else (4, 13, "good"))
        assert visitor.faults == []
        visitor.context.close()


def test_each_question_is_answered_by_the_pointer_alone(browser, tmp_path):
    questions = {
        "pairwise": PairwiseQuestion(), "ranking": RankingQuestion(), "rating": RatingQuestion(), "thumbs": ThumbsQuestion(turns=True),
        "spans": SpansQuestion(), "edit": EditQuestion(), "comment": CommentQuestion(),
    }  # fmt: skip
    collection = make_collection(tmp_path, questions, [Item(CHAT, ("one two", "three four"))], ["ada"])
    with serving(collection) as address:
        visitor = Visitor(browser, address, f"{address}/t/{collection.links['ada']}")
        page = visitor.page
        page.get_by_role("button", name="B is better").click()
        page.get_by_role("button", name="B is best").click()
        handle = page.locator("ol.ranking .handle").nth(1)
        box = handle.bounding_box()
        page.mouse.move(box["x"] + 5, box["y"] + 5)
        page.mouse.down()
        for step in range(6):
            page.mouse.move(box["x"] + 5, box["y"] + 5 - 12 * step)
        page.mouse.up()
        page.locator("#send").click()
        for _ in range(2):
            page.locator("label[for=star-2]").click()
        for _ in range(2):
            page.get_by_role("button", name="good", exact=False).first.click()
            page.get_by_role("button", name="Bad").last.click()
        for _ in range(2):
            page.locator("#question .text").dblclick(position={"x": 8, "y": 10})
            page.get_by_role("button", name="error").click()
            page.locator("#send").click()
        for word in ("first", "second"):
            page.locator("textarea").fill(f"{word} edit")
            page.locator("#send").click()
        for word in ("a comment", ""):
            page.locator("textarea").fill(word)
            page.locator("#send").click()
        visitor.wait_sent(1)
        kinds = [record["judgement"]["kind"] for record in records(collection)]
        assert sorted(kinds) == sorted(["ranking"] * 2 + ["rating"] * 2 + ["thumbs"] * 4 + ["spans"] * 2 + ["edit"] * 2 + ["comment"])
        first, dragged = (record["judgement"]["ranks"] for record in records(collection)[:2])
        assert (first, dragged) == ([2, 1], [1, 2])
        assert all(len(r["judgement"]["spans"]) == 1 for r in records(collection) if r["judgement"]["kind"] == "spans")
        assert visitor.faults == []
        visitor.context.close()


def test_nothing_is_lost_or_doubled(browser, tmp_path):
    """Offline and online, a reload with a draft, two tabs, a double click, undo."""
    items = [Item(f"p {i}", (f"x {i}", f"y {i}")) for i in range(8)]
    collection = make_collection(tmp_path, {"pairwise": PairwiseQuestion(), "comment": CommentQuestion()}, items, ["ada"])
    with serving(collection) as address:
        visitor = Visitor(browser, address, f"{address}/t/{collection.links['ada']}")
        page = visitor.page
        page.wait_for_selector("#send")
        visitor.context.set_offline(True)
        visitor.press("1", "Control+Enter", "Control+Enter")
        page.wait_for_function("() => document.getElementById('saved').textContent.includes('No connection')")
        assert rows(collection) == 0
        visitor.context.set_offline(False)
        visitor.wait_sent(1)
        assert rows(collection) == 1
        visitor.press("2")
        page.locator("textarea").fill("half a comm")
        page.wait_for_function("() => document.getElementById('saved').textContent.startsWith('Draft saved')")
        page.reload()
        page.wait_for_selector("#send")
        assert page.locator('button[aria-pressed="true"]').inner_text().startswith("B is better")
        twin = visitor.context.new_page()
        twin.goto(f"{address}/")
        twin.wait_for_selector("#send")
        visitor.press("Enter")
        assert page.locator("textarea").input_value() == "half a comm"
        page.locator("#send").click()
        page.locator("#send").click()
        page.locator("textarea").wait_for(state="detached")
        visitor.wait_sent(2)
        twin.keyboard.press("1")
        twin.keyboard.press("Control+Enter")
        twin.keyboard.press("Control+Enter")
        twin.wait_for_function("() => document.getElementById('notice').textContent.includes('another window')")
        assert rows(collection) == 2
        visitor.press("1", "Control+Enter")
        page.locator("#send").dblclick()
        time.sleep(0.5)
        assert rows(collection) == 3
        page.keyboard.press("Escape")
        visitor.press("u")
        page.wait_for_function("() => document.getElementById('question').textContent.includes('Which response')")
        visitor.press("0", "Control+Enter")
        page.wait_for_function("() => document.getElementById('saved').textContent.startsWith('Sent')")
        assert len({record["prompt"] for record in records(collection)}) <= 4
        assert open_items(collection) == 2
        twin.close()
        page.goto("about:blank")
        deadline = time.monotonic() + 5
        while open_items(collection) > 1 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert open_items(collection) == 1
        page.go_back()
        page.wait_for_selector("#send")
        visitor.context.close()


def test_unsent_answers_survive_a_closed_page_and_idle_time_is_not_counted(browser, tmp_path):
    """Leaving with an unsent answer asks; it is sent when its own annotator comes back, not by another one in the same browser."""
    collection = make_collection(tmp_path, {"rating": RatingQuestion(low=0, high=100, display="slider")}, [Item("p", "a"), Item("q", "b")])
    with serving(collection) as address:
        visitor = Visitor(browser, address, f"{address}/t/{collection.links['ada']}")
        page, questions = visitor.page, []
        page.on("dialog", lambda dialog: (questions.append(dialog.type), dialog.accept()))
        page.clock.install()
        page.reload()
        page.wait_for_selector("#send")
        page.route("**/api/answer", lambda route: route.abort())
        page.clock.run_for(5_000)
        visitor.press("Enter")
        assert "needed" in page.locator("#error").inner_text()  # an untouched slider is no answer
        page.clock.run_for(600_000)
        visitor.press("ArrowRight", "Enter")
        page.wait_for_function("() => document.getElementById('saved').textContent.includes('kept in this browser')")
        page.goto(f"{address}/t/{collection.links['ben']}")
        assert questions == ["beforeunload"]
        page.wait_for_selector("#send")
        page.unroute("**/api/answer")
        page.clock.run_for(3_000)
        assert rows(collection) == 0
        page.goto(f"{address}/t/{collection.links['ada']}")
        visitor.wait_sent(1)
        [record] = records(collection)
        assert (record["judgement"]["value"], record["annotator"]) == (51, "ada")
        assert 60 <= record["seconds"] <= 70
        with collection.project.database.read() as connection:
            assert connection.scalar(select(answer.c.elapsed)) >= 600
        visitor.context.close()


def test_an_edit_survives_a_restart_of_the_server_and_a_full_disk(browser, tmp_path):
    """What was typed while the server was away is stored once it is back; a refused write is said and sent again."""
    collection = make_collection(tmp_path, {"edit": EditQuestion()}, [Item("p", ("one",)), Item("q", ("two " * 50_000,))], ["ada"])
    database = collection.project.database
    with serving(collection) as address:
        visitor = Visitor(browser, address, f"{address}/t/{collection.links['ada']}")
        page = visitor.page
        page.locator("textarea").fill("better")
        page.wait_for_function("() => document.getElementById('saved').textContent.startsWith('Draft saved')")
    page.locator("textarea").fill("much better")
    page.wait_for_function("() => document.getElementById('saved').textContent.startsWith('No connection: the draft')")
    with serving(collection, int(address.rpartition(":")[2])):
        visitor.press("Control+Enter")
        visitor.wait_sent(1)
        room = database.submit(lambda connection: connection.exec_driver_sql("PRAGMA max_page_count=1").scalar()).result()
        page.locator("textarea").fill("w" * 20_000)
        visitor.press("Control+Enter")
        page.wait_for_function("() => document.getElementById('saved').textContent.includes('full')")
        assert "No answer from the server" in page.locator("#item").inner_text()
        database.submit(lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={room + 1000}").scalar()).result()
        visitor.wait_sent(2)
    assert [record["responses"][1][:11] for record in records(collection)] == ["much better", "w" * 11]
    assert visitor.faults == []
    visitor.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible_fit_a_phone_and_show_texts_literally(scheme, browser, tmp_path):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    questions = {
        "ranking": RankingQuestion(),
        "rating": RatingQuestion(),
        "spans": SpansQuestion(),
        "edit": EditQuestion(),
        "comment": CommentQuestion(),
    }
    chat = tuple(Message(role=role, content=text) for role, text in zip(("user", "assistant", "user"), HOSTILE[:3], strict=True))
    items = [Item(chat, tuple(HOSTILE), tuple(HOSTILE), HOSTILE[0]), Item(HOSTILE[5], ("long " * 2000, "W" * 500))]
    collection = make_collection(tmp_path, questions, items, [HOSTILE[0][:60], "ada"], guidelines=HOSTILE[1])
    with serving(collection) as address:
        links = {name: f"{address}/{'join' if name == 'join' else 't'}/{token}" for name, token in collection.links.items()}
        for link in (links["ada"], links["manager"], links["join"], f"{address}/t/wrong"):
            visitor = Visitor(browser, address, link, color_scheme=scheme, viewport={"width": 360, "height": 700})
            page = visitor.page
            page.wait_for_timeout(700)
            visitor.press("Escape")  # the guidelines, which come first
            result, titles = None, set()
            for _ in range(14 if link == links["ada"] else 1):
                title = page.locator("#question-title").inner_text().rpartition(": ")[2] if page.locator("#send").count() else ""
                result = axe.run(page) if title not in titles else result
                titles.add(title)
                serious = [
                    (v["id"], v["nodes"][0]["html"][:200]) for v in result.response["violations"] if v["impact"] in ("serious", "critical")
                ]
                assert serious == []
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), link
                if link != links["ada"] or not page.locator("#send").count():
                    break
                visitor.press(*(["1", "2", "3", "4", "5", "6", "7"] if "order" in title else ["3"] if "good is" in title else []))
                if "good is" not in title:
                    visitor.press("Control+Enter")
            if link == links["ada"]:
                shown = page.locator("#item").evaluate("element => [...element.querySelectorAll('.text')].map(p => p.textContent)")
                assert any(text in shown for text in HOSTILE)
                visitor.press("Escape", "g")
                assert page.locator("dialog .text").text_content() == HOSTILE[1]
            assert page.evaluate("window.hacked") is None
            assert visitor.faults == []
            visitor.context.close()


def hostile_collection(tmp_path):
    """Two people judged hostile items by hostile labels, with hostile comments, and skipped one for a hostile reason."""
    every = storable(" | ".join(HOSTILE))
    questions = {
        "rating": RatingQuestion(aspect=HOSTILE[0], question=HOSTILE[1], labels=(HOSTILE[2], HOSTILE[5])),
        "spans": SpansQuestion(labels={HOSTILE[0]: -1.0, HOSTILE[3]: 1.0}, question=HOSTILE[4]),
        "comment": CommentQuestion(question=HOSTILE[7]),
    }
    roles = ("system", "user", "assistant", "user")
    chat = tuple(Message(role=role, content=text) for role, text in zip(roles, (every, *HOSTILE[:3]), strict=True))
    items = [Item(chat, (f"{number} {every}",), (HOSTILE[number],), HOSTILE[1]) for number in range(7)]
    items.append(Item("W" * 500, (f"{'W' * 3000} \ud800\x00",), (every,), every))
    names = [HOSTILE[0], "</td><img src=x onerror='window.hacked = 1'>"]
    collection = make_collection(tmp_path, questions, items, names, overlap=2, guidelines=every)
    project = collection.project
    with project.database.write() as connection:
        for person, (number, _) in itertools.product((2, 3), enumerate(items)):
            row = open_assignments(connection, person, 0.0, project.rules)[0]
            spans = [{"start": 0, "end": 5, "label": HOSTILE[0]}]
            values = {"rating/0": 1 + (row.item + person) % 3, "spans/0": spans, "comment/0": f"{every} {row.item}"}
            sent = Answer(f"{person} {number}", row.id, 0, values if number < 7 else {}, 2.0, 3.0)
            if number < 7:
                store_answer(connection, person, sent, questions, 1000.0 + number)
            else:
                skip(connection, person, sent, every, True, 2000.0)
    return collection, items, every


def test_hostile_texts_in_every_field_stay_texts(browser, tmp_path, command):
    """On the pages, in every export and in the reports of the feedback: shown or written as they are; nothing runs or is fetched."""
    collection, items, every = hostile_collection(tmp_path)
    location = collection.project.database.location
    with collection.project.database.write() as connection:
        add_items(connection, [Item(items[0].prompt, (every,), (every,), every)], overlap=1, overlap_share=0, seed=0)
    with serving(collection) as address:
        ada = Visitor(browser, address, f"{address}/t/{collection.links[HOSTILE[0]]}")
        ada.page.wait_for_selector("#send")
        assert ada.page.locator("#item .text").all_text_contents() == [*(turn.content for turn in items[0].prompt), every]
        assert ada.page.locator("#count").text_content().startswith(HOSTILE[0])
        assert HOSTILE[1] in ada.page.locator("#question-title").text_content()
        assert all(label in ada.page.locator("legend").text_content() for label in (HOSTILE[2], HOSTILE[5]))
        assert ada.page.locator("dialog .text").text_content() == every
        ada.press("Escape", "r")
        ada.page.wait_for_selector("dialog li")
        assert any(items[0].responses[0][:60] in text for text in ada.page.locator("dialog li").all_text_contents())
        ada.press("Escape", "3")
        ada.page.wait_for_selector("#question [aria-label^=Response]")
        assert ada.page.locator("#question-title").text_content() == HOSTILE[4]
        ada.press("ArrowRight", "1")
        assert HOSTILE[0] in ada.page.locator("#question ul").text_content()
        manager = Visitor(browser, address, f"{address}/t/{collection.links['manager']}")
        manager.page.wait_for_selector("#flags td:nth-child(2)")
        assert every in manager.page.locator("#flags").text_content()
        assert all(name in manager.page.locator("#people").text_content() for name in collection.links if "<" in name)
        joining = Visitor(browser, address, f"{address}/join/%22%3E%3Cscript%3Ewindow.hacked=1")
        joining.page.wait_for_selector("#name")
        for visitor in (ada, manager, joining):
            assert visitor.page.evaluate("window.hacked") is None
            assert visitor.faults == []
            visitor.context.close()
    exported = {kind: "".join(export_text(connection, kind)) for kind in FILES for connection in [read_connection(collection)]}
    for kind, text in exported.items():
        text.encode("ascii")
        rows = json.loads(text) if FILES[kind] == "json" else [json.loads(line) for line in text.splitlines()]
        assert kind == "trl" or every in list(texts_of(rows)), kind
    collection.project.database.close()
    ratings = [line for line in exported["feedback"].splitlines() if '"kind": "spans"' not in line]
    (tmp_path / "f.jsonl").write_text("\n".join(ratings))
    collected = ["feedback_source=collected", f"feedback_source.collected.path={location}"]
    exports = ["feedback_source=jsonl", f"feedback_source.jsonl.path={tmp_path / 'f.jsonl'}", "reward_head=features"]
    outcomes = [
        command(f"stage={stage}", *source, "feedback_format=[record]", "logger=none")
        for stage, source in (("inspect", collected), ("reward", exports))
    ]
    for outcome in outcomes:
        assert outcome.code == 0, outcome.error
        page = (outcome.folder / "report.html").as_uri()
        report = Visitor(browser, page, page)
        assert report.page.evaluate("window.hacked") is None
        assert report.page.evaluate("document.querySelectorAll('script, img:not([src^=data]), [onerror], a[href^=javascript]').length") == 0
        assert report.faults == []
        assert "{{7*7}} {% raw %} ${7*7}" in report.page.locator("body").text_content()
        report.context.close()


def read_connection(collection):
    """A transaction that ends with its database."""
    return collection.project.database._engine.connect()


def storable(text: str) -> str:
    return text.replace("\x00", "\ufffd")


def texts_of(value):
    """All texts of a JSON value."""
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)
    elif isinstance(value, str):
        yield value
