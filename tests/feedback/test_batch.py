"""One batch for all kinds: every judgement found again by its texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from rlhf_lightning.feedback.batch import JudgementBatch, collate, judgement_kind, prompt_share, split_by_prompt, standardised
from rlhf_lightning.feedback.standardise import rating_z_scores
from rlhf_lightning.flow import Edit, Feedback, Ranking, Rating


def ranked(prompt: str, texts: Sequence[str], ranks: Sequence[int], margin: float | None = None, weight: float = 1.0) -> Feedback:
    return Feedback(prompt=prompt, responses=tuple(texts), judgement=Ranking(ranks=tuple(ranks), margin=margin), weight=weight)


def edited(prompt: str, before: str, after: str, weight: float = 1.0) -> Feedback:
    return Feedback(prompt=prompt, responses=(before, after), judgement=Edit(), weight=weight)


def rated(prompt: str, text: str, value: float, annotator: str | None = None, weight: float = 1.0) -> Feedback:
    return Feedback(prompt=prompt, responses=(text,), judgement=Rating(value=value, scale=(0, 10)), annotator=annotator, weight=weight)


def collated(records: Sequence[Feedback]) -> tuple[JudgementBatch, list[tuple[str, str]]]:
    """The batch, and the texts that it tokenised."""
    asked: list[tuple[str, str]] = []

    def tokenise(texts: Sequence[tuple[str, str]]) -> tuple[Tensor, Tensor]:
        asked.extend(texts)
        return torch.arange(len(texts))[:, None], torch.ones(len(texts), 1, dtype=torch.long)

    return collate(standardised(records), tokenise), asked


RECORDS = [
    ranked("p", ["a", "b"], [1, 0], margin=2.5, weight=0.5),
    edited("p", "b", "c", weight=2.0),
    ranked("p", ["a", "c", "d"], [5, -1, 5], weight=3.0),
    rated("p", "a", 7, weight=0.25),
    rated("q", "a", 1),
    ranked("q", ["x", "y", "a", "z"], [3, 2, 1, 0]),
]


def test_each_distinct_response_is_there_once_and_every_judgement_points_at_its_own() -> None:
    batch, texts = collated(RECORDS)
    assert texts == [("p", "a"), ("p", "b"), ("p", "c"), ("p", "d"), ("q", "a"), ("q", "x"), ("q", "y"), ("q", "z")]
    assert batch.input_ids.flatten().tolist() == list(range(8))
    assert [[texts[i] for i in pair] for pair in batch.pairs.tolist()] == [[("p", "b"), ("p", "a")], [("p", "c"), ("p", "b")]]
    assert (batch.pair_weight.tolist(), batch.pair_margin.tolist()) == ([0.5, 2.0], [2.5, 0.0])
    assert [[texts[i][1] if i >= 0 else None for i in order] for order in batch.orders.tolist()] == [["a", "c", "d", None], [*"xyaz"]]
    assert batch.levels.tolist() == [[1, 0, 1, -1], [3, 2, 1, 0]]
    assert batch.order_weight.tolist() == [3.0, 1.0]
    assert [texts[i] for i in batch.rated.tolist()] == [("p", "a"), ("q", "a")]
    assert batch.ratings.tolist() == pytest.approx([1.0, -1.0])
    assert batch.rating_weight.tolist() == [0.25, 1.0]
    assert len(batch) == 6


def test_a_judgement_without_information_adds_nothing() -> None:
    said_nothing = [
        edited("p", "a", "a"),
        ranked("p", ["a", "b"], [3, 3]),
        ranked("p", ["a", "a"], [0, 1]),
        ranked("p", ["a", "b", "c"], [1, 1, 1]),
        ranked("p", ["a", "a", "a"], [0, 1, 2]),
    ]
    batch, _ = collated(said_nothing)
    assert len(batch) == 0
    assert (batch.pairs.shape, batch.orders.shape, batch.levels.shape, batch.rated.shape) == ((0, 2), (0, 0), (0, 0), (0,))
    assert batch.pairs.dtype == batch.orders.dtype == batch.levels.dtype == batch.rated.dtype == torch.long
    assert len(batch.input_ids) == 3  # a batch that says nothing can still be scored
    full, empty = collated([*RECORDS, *said_nothing])[0], collated(RECORDS)[0]
    for name in ("pairs", "pair_weight", "orders", "levels", "order_weight", "rated", "rating_weight"):
        assert getattr(full, name).tolist() == getattr(empty, name).tolist()


def test_moving_a_batch_moves_every_tensor() -> None:
    moved = collated(RECORDS)[0].to("meta")
    assert {tensor.device.type for tensor in vars(moved).values()} == {"meta"}


def test_ratings_carry_their_z_score_and_others_none() -> None:
    records = [rated("p", "a", 1, "ann"), edited("p", "a", "b"), rated("p", "b", 4, "ann"), rated("q", "a", 7, "ann"), rated("q", "b", 7)]
    judged = standardised(records)
    assert [record.feedback for record in judged] == records
    assert judged[1].z_score is None
    assert [r.z_score for r in judged if r.z_score is not None] == rating_z_scores([records[i] for i in (0, 2, 3, 4)])


def test_kinds() -> None:
    assert [judgement_kind(record) for record in RECORDS] == ["pair", "edit", "ranking", "rating", "rating", "ranking"]


def test_a_split_shares_no_prompt_and_a_prompts_side_is_its_own() -> None:
    records = standardised([ranked(f"prompt {i % 2000}", [f"a{i}", "b"], [0, 1]) for i in range(6000)])
    training, held_out = split_by_prompt(records, 0.15)
    sides = [{record.feedback.prompt for record in side} for side in (training, held_out)]
    assert not sides[0] & sides[1]
    assert sorted(map(id, training + held_out)) == sorted(map(id, records))
    assert len(sides[1]) / 2000 == pytest.approx(0.15, abs=0.03)
    fewer = split_by_prompt(records[::-7], 0.15)
    assert all({record.feedback.prompt for record in side} <= prompts for side, prompts in zip(fewer, sides, strict=True))
    assert {record.feedback.prompt for record in split_by_prompt(records, 0.3)[1]} > sides[1]


def test_the_share_of_a_prompt_never_changes() -> None:
    """Held-out prompts of a finished run must stay held out in the next version too."""
    assert prompt_share("Review of a kettle for a student:\n") == 0.8476391900493518
    assert prompt_share("") == 0.8894159948913374


@given(st.text(max_size=20))
def test_the_share_is_blind_to_form_case_and_white_space(prompt: str) -> None:
    share = prompt_share(prompt)
    assert 0 <= share < 1
    assert prompt_share(f" \n{prompt}\t ") == share
    assert prompt_share(unicodedata.normalize("NFD", prompt)) == share
    assert prompt_share(f"{prompt}Ä b  C") == prompt_share(unicodedata.normalize("NFD", f"{prompt}ä B c"))
