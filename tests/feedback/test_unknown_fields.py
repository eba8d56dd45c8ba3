"""The guard against mistyped field names: slips are refused, other words are not."""

from __future__ import annotations

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.feedback.unknown_fields import UnknownFields, common_prefix_length, is_typo, list_names


@pytest.mark.parametrize("name", ["chosn", "choosen", "chasen", "chsoen", "Chosen", "hosen", "chosenn", "CHOSN"])
def test_slips(name: str) -> None:
    assert is_typo(name, "chosen")
    with pytest.raises(DataError, match="did you mean 'chosen'"):
        UnknownFields([["chosen"]]).check({name: 1})


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("ratings", "rating"),
        ("prompt", "prompts"),
        ("prompt2", "prompt"),
        ("prompt_2", "prompt"),
        ("exit", "edit"),
        ("mean", "margin"),
        ("chxxen", "chosen"),
    ],
)
def test_other_words(name: str, known: str) -> None:
    assert not is_typo(name, known)


def test_the_first_part_of_a_path_is_read() -> None:
    unread = UnknownFields([["ratings.overall"], ["prompt"]])
    unread.check({"ratings": 1, "prompt": "", "doc": 2})
    assert unread.notes() == ["fields that no chosen feedback_format reads: doc"]


def test_long_lists_are_cut() -> None:
    assert list_names([f"n{i}" for i in range(25)]).endswith("n19 and 5 more")
    assert (common_prefix_length("abc", "abd"), common_prefix_length("ab", "abc"), common_prefix_length("", "a")) == (2, 2, 0)
