"""The page of a sweep: every job drawn, settings with their means over seeds, what failed, and nothing from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from rlhf_lightning.cli.sweep.jobs import Job, read_jobs
from rlhf_lightning.cli.sweep.page import jobs_table, settings_table, sweep_page


class Texts(HTMLParser):
    """The cells of the tables, row by row, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data):
        if self.rows and self.rows[-1] and self.tags[-1] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


def test_settings_stand_with_their_mean_and_interval_over_seeds(jobs):
    table = settings_table(read_jobs(jobs), ["advantage"])
    assert table.heads == ["advantage", "mean objective", "low", "high", "seeds", "failed"]
    gae, rloo = table.rows
    assert gae == ["gae", pytest.approx(0.2), pytest.approx(-0.0484, abs=1e-4), pytest.approx(0.4484, abs=1e-4), 3, 0]
    assert rloo == ["rloo", 0.7, None, None, 1, 2]


def test_each_job_stands_with_every_metric(jobs):
    table = jobs_table(read_jobs(jobs))
    assert table.heads == ["job", "advantage", "seed", "objective", "kl", "long/name", "seconds"]
    assert table.rows[1] == ["1", "gae", "2", 0.2, 0.5, 0.5, 3.0]
    assert table.rows[3] == ["3", "rloo", "1", None, None, None, 0.0]


def test_the_page_needs_nothing_else_and_hides_nothing(jobs):
    page = sweep_page(read_jobs(jobs))
    texts = Texts(page)
    assert ["gae", "0.2000", "-0.0484", "0.4484", "3", "0"] in texts.rows
    assert "script" not in texts.tags
    assert not re.search(r"(src|href)=\"(?!#)", page)
    assert "style=" not in page
    assert len(re.findall(r'class="dot', page)) == 4, "jobs with a result are dots"
    assert "RuntimeError: out of [memory]" in page
    assert "a.b=[1,2]" in page
    assert page == sweep_page(read_jobs(jobs))


def test_what_a_job_says_is_text(tmp_path, job):
    job(tmp_path / "0", ["a=<script>alert(1)</script>"], 1.0)
    job(tmp_path / "1", ["a=b"], "<b>bold</b>")
    page = sweep_page(read_jobs(tmp_path))
    assert "<script" not in page
    assert "&lt;b&gt;bold" in page


@pytest.mark.parametrize(
    "jobs",
    [
        [Job("0", {"a": "1"}, 1.0)],
        [Job("0", {"a": "1"}, error="x"), Job("1", {"a": "2"}, error="y")],
        [Job("0", {"a": "1"}, float("nan")), Job("1", {"a": "2"}, float("inf"))],
        [Job("0", {"seed": "1"}, 1.0), Job("1", {"seed": "2"}, 1.0)],
        [Job("0", {"a": "1"}, 2.0), Job("1", {"b": "2"}, 2.0)],
    ],
    ids=["one", "all failed", "not finite", "seeds alone", "equal, with a setting that one has"],
)
def test_a_page_is_made_of_whatever_there_is(jobs):
    assert "<h2" in sweep_page(jobs)
