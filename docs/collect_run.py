"""Run docs/howto/collect.md as written, with three scripted people, and take the screenshots of its pages.

    python docs/collect_run.py

The commands under "From prompts to a reward model" run in a new folder. Ada, Ben and Cleo judge over HTTP by the known utility of
task=reviews with more or less noise, and skip now and then. Prints what the commands print. Needs Chromium and playwright.
"""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import Browser, Page, sync_playwright

from rlhf_lightning.registry import make

DOCS = Path(__file__).resolve().parent
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or "google-chrome"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
NOISE = {"ada": 0.1, "ben": 0.3, "cleo": 1.5}
"""Standard deviation of what each person adds to a response's utility."""
DESK, PHONE = {"width": 1000, "height": 620}, {"width": 360, "height": 720}
CHAT = [
    {"role": "system", "content": "You answer for a shop, in two sentences at most."},
    {"role": "user", "content": "Is the lamp bright enough for reading?"},
]
RESPONSES = [
    "Yes: it gives 800 lumen, which is enough for a desk. The head turns, so that nothing dazzles you.",
    "It gives 800 lumen and it are good for reading.",
]
QUESTIONS = {"pairwise": "1", "rating": "4", "thumbs": "", "edit": "", "spans": "ArrowRight Shift+ArrowRight 1"}
"""Questions with the keys that are pressed before their screenshot."""


def commands() -> list[list[str]]:
    """The commands of the how-to's first section."""
    section = (DOCS / "howto" / "collect.md").read_text(encoding="utf-8").split("\n## ")[1]
    blocks = re.findall(r"```bash\n(.*?)```", section, re.DOTALL)
    return [shlex.split(line) for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.strip()]


@contextmanager
def collection(words: list[str], folder: Path, log: str) -> Iterator[tuple[dict[str, str], subprocess.Popen[bytes]]]:
    """A running stage=collect with its links by name."""
    with (folder / log).open("wb") as output:
        process = subprocess.Popen(words, cwd=folder, stdout=output, stderr=subprocess.STDOUT)
    try:
        while "Ctrl-C" not in (folder / log).read_text():
            if process.poll() is not None:
                raise SystemExit((folder / log).read_text())
            time.sleep(0.2)
        yield dict(re.findall(r"^(\w+): (http\S+)$", (folder / log).read_text(), re.MULTILINE)), process
    finally:
        process.terminate()
        process.wait()


def judge(name: str, link: str, most: int) -> None:
    """One person: an order of the reviews by their known utility and noise, or a skip now and then."""
    task, draw, base = make("task", "reviews", {}), random.Random(name), link.partition("/t/")[0]
    client = httpx.Client(follow_redirects=True, timeout=30)
    client.headers["x-csrf-token"] = re.findall(r'name="csrf" content="(\w+)"', client.get(link).text)[0]
    tasks = client.get(f"{base}/api/state").json()["tasks"]
    for _ in range(most):
        if not tasks:
            return
        scores = [task.utility(tasks[0]["prompt"], text) + draw.gauss(0, NOISE[name]) for text in tasks[0]["responses"]]
        ranks = [1 + sum(other > score for other in scores) for score in scores]
        stamp = {"key": f"{name} {tasks[0]['assignment']}", "assignment": tasks[0]["assignment"], "version": tasks[0]["version"]}
        body: dict[str, Any] = {**stamp, "seconds": draw.uniform(3, 15), "elapsed": 20}
        path, more = ("skip", {"reason": "both are cut off"}) if draw.random() < 0.05 else ("answer", {"steps": {"ranking": ranks}})
        try:
            tasks = client.post(f"{base}/api/{path}", json={**body, **more}).json()["tasks"]
        except httpx.TransportError:
            return  # the collection is complete


def judge_all(links: dict[str, str], most: int) -> None:
    """Everybody at once."""
    threads = [threading.Thread(target=judge, args=(name, links[name], most)) for name in NOISE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def open_page(browser: Browser, link: str, selector: str, scheme: Any = "light", viewport: Any = None) -> Page:
    """A page in a window of its own."""
    page = browser.new_context(color_scheme=scheme, viewport=viewport or DESK).new_page()
    page.goto(link)
    page.wait_for_selector(selector)
    page.wait_for_timeout(400)
    return page


def photograph(page: Page, name: str) -> None:
    """A screenshot as docs/collect_NAME.png."""
    page.screenshot(path=str(DOCS / f"collect_{name}.png"))


def photograph_people(browser: Browser, links: dict[str, str]) -> None:
    """The page of one who ranks, light and on a dark phone, and the manager's."""
    for name, scheme, viewport in (("annotate", "light", DESK), ("phone", "dark", PHONE)):
        page = open_page(browser, links["ada"], "#send", scheme, viewport)
        page.keyboard.press("2")
        page.keyboard.press("4")
        page.wait_for_timeout(200)
        photograph(page, name)
        page.context.close()
    page = open_page(browser, links["manager"], "#agreement td", "light", {"width": 1000, "height": 900})
    page.wait_for_function("() => Number(document.querySelector('#people td:nth-child(2)')?.textContent) > 0", timeout=300_000)
    photograph(page, "manage")
    page.context.close()


def photograph_questions(browser: Browser, folder: Path) -> None:
    """The other questions, asked of a chat."""
    (folder / "chats.jsonl").write_text(json.dumps({"prompt": CHAT, "responses": RESPONSES}) + "\n")
    words = [sys.executable, str(DOCS.parent / "train.py"), "stage=collect", "collect.items=chats.jsonl", "collect.annotators=[ada]"]
    words += [f"collect_question=[{','.join(QUESTIONS)}]", "collect_question.pairwise.strengths=3", "collect.database=chats.sqlite"]
    with collection([*words, "collect.port=0"], folder, "questions.log") as (links, _):
        page = open_page(browser, links["ada"], "#send")
        for question, keys in QUESTIONS.items():
            for key in keys.split():
                page.keyboard.press(key)
            if question == "edit":
                area = page.locator("textarea")
                area.fill(area.input_value().replace(" it are ", " it is ").replace(", which is enough", ", and that is enough"))
            page.wait_for_timeout(300)
            photograph(page, question)
            forward(page, question)
        page.context.close()


def forward(page: Page, question: str) -> None:
    """Answer the question, for all responses, and go to the next one."""
    title = page.locator("#question-title").inner_text().rpartition(": ")[2]
    for _ in range(2 * len(RESPONSES)):
        if not page.locator("#send").count() or page.locator("#question-title").inner_text().rpartition(": ")[2] != title:
            return
        page.keyboard.press({"pairwise": "4", "rating": "4", "thumbs": "1"}.get(question, "Control+Enter"))
        page.wait_for_timeout(100)


def main() -> None:
    """Run the commands one after the other, with people and screenshots while the page is served."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as name:
        folder, browser = Path(name), playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        os.environ["PYTHONPATH"] = str(DOCS.parent)
        for number, words in enumerate(commands()):
            print(f"\n$ {shlex.join(words)}", flush=True)
            words = [sys.executable, str(DOCS.parent / "train.py"), *words[2:]]
            if "stage=collect" not in words:
                print(subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout, flush=True)
                continue
            with collection([*words, "collect.port=0"], folder, f"{number}.log") as (links, process):
                judge_all(links, 12)
                photograph_people(browser, links)
                judge_all(links, 10_000)
                process.wait(60)
            print(re.sub(r"(/t/)\S+", r"\1...", (folder / f"{number}.log").read_text()), flush=True)
        photograph_questions(browser, folder)


if __name__ == "__main__":
    main()
