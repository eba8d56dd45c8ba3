"""The pages in Chromium, without a network: every question by keys and by pointer, lost connections, hostile texts, accessibility."""

from __future__ import annotations

import os
import shutil
import time

import pytest
from sqlalchemy import func, select

from rlhf_lightning.collect.items import Item
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
    "spans": (SpansQuestion(), ("😀 one two",), "ArrowRight Shift+ArrowRight 1 Enter", {"kind": "spans"}),
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
        if name == "edit":
            assert record["responses"] == ["x 1 ", "x 1 !"]
        if name == "spans":
            [span] = record["judgement"]["spans"]
            assert (span["start"], span["end"], span["label"]) == (2, 9, "error")
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
