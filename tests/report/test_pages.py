"""Every kind of page in Chromium, wide and narrow, light and dark: nothing overflows, is cut off, or lies beyond its axis."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf_lightning.cli.sweep.jobs import Job
from rlhf_lightning.cli.sweep.page import sweep_page
from rlhf_lightning.report.explanation import explanation_page
from rlhf_lightning.report.page import page
from rlhf_lightning.report.report import Curve, Level, Series, Table
from tests.report.test_explanation import CASES
from tests.report.test_report import BARE, FULL

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium, or set CHROMIUM"),
    pytest.mark.xdist_group("chromium"),
]
PEOPLE = ["ada", "ben", "an annotator with a very long name indeed", "worker-000000000000000000000017", "z"]
CURVES = [
    Curve("Accuracy", "update", "%", [Series("held out", [1, 2, 3], [0.97, 0.99, 1.0], [0.9, 0.95, 0.97], [1.0, 1.0, 1.0])]),
    Curve("KL", "update", "nats", [Series("kl", [float(i) for i in range(400)], [0.01 * i for i in range(400)])]),
    Curve("Reliability", "reliability", "", [Series("reliability", [1, 2, 3, 4, 5], [0.99, 0.9, 0.5, 0.1, -0.2])],
          levels=[Level("a coin", 0.0)], bounds=(0.0, 1.0), names=PEOPLE),
]  # fmt: skip
WIDE = Table(
    title="A wide table",
    heads=["name", *(f"feedback_source.jsonl.setting_{i}" for i in range(8))],
    rows=[["a/very/long/path/without/any/blank/" * 3, *(float(i) / 7 for i in range(8))]],
)


def jobs(*keys: str) -> list[Job]:
    settings = [{key: str(10.0 ** -(3 + (i + shift) % 3)) for shift, key in enumerate(keys)} for i in range(6)]
    return [Job(str(i), chosen, 0.1 * i, {"score": 0.1 * i}, 3.0) for i, chosen in enumerate(settings)]


PAGES = {
    "report": lambda: page(dataclasses.replace(FULL, curves=CURVES, tables=[WIDE])),
    "bare": lambda: page(BARE),
    "explanation": lambda: explanation_page("Explained", "a/folder", CASES, None),
    "sweep of one setting": lambda: sweep_page(jobs("reward.learning_rate")),
    "sweep of five settings": lambda: sweep_page(jobs("reward.learning_rate", "ppo.epochs", "ppo.clip_max", "advantage.gamma", "seed")),
}
PROBE = """() => {
  const wide = document.documentElement.scrollWidth > innerWidth + 1;
  const scrolls = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
  const cut = [...document.querySelectorAll("h1,h2,h3,p,td,th,figcaption,li,text")].filter((e) => {
    const box = e.getBoundingClientRect();
    return box.width > 0 && !scrolls(e) && (box.right > innerWidth + 1 || box.left < -1);
  }).map((e) => e.textContent.trim().slice(0, 40));
  const outside = [...document.querySelectorAll("svg.plot")].flatMap((svg) => {
    const frame = svg.getBoundingClientRect();
    return [...svg.querySelectorAll("circle,text,path.line")].filter((e) => {
      const box = e.getBoundingClientRect();
      return box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 || box.bottom > frame.bottom + 1;
    }).map((e) => e.outerHTML.slice(0, 80));
  });
  const empty = [...document.querySelectorAll(".card,figure,td:only-child")].filter((e) => !e.textContent.trim()).length;
  const invisible = [...document.querySelectorAll("h1,p,td,th")].filter((e) => {
    const style = getComputedStyle(e);
    return e.textContent.trim() && style.color === getComputedStyle(document.body).backgroundColor;
  }).length;
  return {wide, cut, outside, empty, invisible};
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.mark.parametrize("name", PAGES)
def test_nothing_overflows_is_cut_off_or_beyond_its_axis(name: str, browser: Any, tmp_path: Path):
    (tmp_path / "page.html").write_text(PAGES[name](), "utf-8")
    for scheme in ("light", "dark"):
        tab = browser.new_page(color_scheme=scheme)
        tab.goto(f"file://{tmp_path}/page.html")
        for width in (1280, 390):
            tab.set_viewport_size({"width": width, "height": 900})
            problems = tab.evaluate(PROBE)
            assert problems == {"wide": False, "cut": [], "outside": [], "empty": 0, "invisible": 0}, (scheme, width)
        tab.close()
