"""The account that filters give."""

from __future__ import annotations

from rlhf_lightning.feedback.filter.cleaning import Cleaning
from rlhf_lightning.flow import Edit, Feedback


def test_lines_count_and_show_a_few_places() -> None:
    done = Cleaning(kept=[], notes=["a note"])
    for line in (1, 1, 2, 3, 4, 5, 6):
        done.remove(Feedback(prompt="p", responses=("a", "b"), judgement=Edit(), origin=f"f:{line}"), "silly")
    nowhere = Feedback(prompt="p", responses=("a", "b"), judgement=Edit())
    done.keep(nowhere, "mended")
    done.keep(nowhere)
    assert done.kept == [nowhere, nowhere]
    assert done.lines() == ["removed 7: silly (f:1, f:2, f:3, f:4, f:5)", "changed 1: mended", "a note"]
