"""From feedback to what a loss learns from: which pairs and thumbs, with which weights, and in which batches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhf_lightning.feedback.judgements import standardise
from rlhf_lightning.flow import Feedback, Ranking, Rating, Thumbs
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.preference.examples import (
    TOO_LONG,
    TextTable,
    batch_of,
    compared_examples,
    count_unused,
    preference_loader,
    thumbed_examples,
)


@pytest.fixture
def table(tiny_of) -> TextTable:
    return TextTable(tiny_of("llama").tokenizer, 64)


def named(table: TextTable, place: int) -> tuple[str, str]:
    return {table.row_of(text): text for text in list(table._rows_by_text) if table.row_of(text) >= 0}[place]


def test_pairs_rankings_edits_and_ratings_become_weighed_pairs(feedback, table):
    examples = compared_examples(standardise(feedback), table)
    found = {
        (*named(table, better), named(table, worse)[1], round(weight, 6))
        for better, worse, weight in zip(examples.rows["chosen"], examples.rows["rejected"], examples.weight, strict=True)
    }
    assert found == {
        ("It", " costs", " boils", 1.0),
        ("It", " is a fan", " costs", 2.0),  # a ranking of three of weight 3: each of its pairs 2/3 of it
        ("It", " is a fan", " boils", 2.0),
        ("It", " costs", " boils", 2.0),
        ("The", " quiet kettle", " kettle", 1.0),
        ("The", " fan", " lamp", 1.0),  # by one annotator; the other's rating is compared with nobody's
    }


@pytest.mark.parametrize("k", [2, 3, 5])
def test_a_ranking_of_k_counts_k_less_one_times_its_weight(table, k):
    responses = tuple(f" {i}" for i in range(k))
    ranking = Feedback(prompt="It", responses=responses, judgement=Ranking(ranks=tuple(range(k))), weight=0.5)
    ratings = [
        Feedback(prompt="A", responses=(text,), judgement=Rating(value=i, scale=(0, 9)), annotator="a") for i, text in enumerate(responses)
    ]
    examples = compared_examples(standardise([ranking, *ratings]), table)
    assert len(examples) == k * (k - 1)
    by_prompt = [examples.weight[examples.prompt == prompt].sum() for prompt in dict.fromkeys(examples.prompt.tolist())]
    assert by_prompt == pytest.approx([0.5 * (k - 1), k - 1])


def test_ratings_that_hardly_differ_are_not_compared(table):
    records = [
        Feedback(prompt="A", responses=(f" {i}",), judgement=Rating(value=v, scale=(0, 9)), annotator="a") for i, v in enumerate([1, 2, 9])
    ]
    judged = standardise(records)
    gaps = sorted(abs(a.z_score - b.z_score) for a, b in ((judged[0], judged[1]), (judged[1], judged[2]), (judged[0], judged[2])))
    for gap, left in ((0.0, 3), (gaps[0], 2), (gaps[1], 1), (gaps[2], 0)):
        assert len(compared_examples(judged, table, gap)) == left


def test_thumbs_are_taken_as_they_are_and_from_pairs_if_set(feedback, table):
    judged = standardise([*feedback, Feedback(prompt="It", responses=(" costs", " x"), judgement=Ranking(ranks=(0, 0), all_bad=True))])

    def found(from_pairs: bool) -> dict[tuple[str, str, float], float]:
        made = thumbed_examples(judged, table, from_pairs)
        assert made.up is not None
        rows = zip(made.rows["judged"], made.up, made.weight, strict=True)
        return {(*named(table, place), up): weight for place, up, weight in rows}

    alone = {("A", " rug", 1.0): 1.0, ("A", " pen", 0.0): 2.0, ("It", " is", 1.0): 1.0, ("It", " costs", 0.0): 1.0, ("It", " x", 0.0): 1.0}
    assert found(False) == alone
    both = found(True)
    assert both["It", " costs", 1.0] == pytest.approx(1.0 + 2.0), "equal thumbs are one of their summed weight"
    assert both["It", " costs", 0.0] == pytest.approx(1.0 + 2.0)
    assert both["It", " boils", 0.0] == pytest.approx(1.0 + 2.0 + 2.0)
    assert both["The", " quiet kettle", 1.0] == both["The", " kettle", 0.0] == 1.0
    assert alone.items() - {("It", " costs", 0.0): 1.0}.items() <= both.items()


def test_a_mismatched_response_answers_another_prompt(table):
    records = [Feedback(prompt=p, responses=(f" to {p}",), judgement=Thumbs(up=True)) for p in ("It", "A", "The", "An")]
    for seed in range(5):
        made = thumbed_examples(standardise(records), table, False, seed=seed)
        for given, other in zip(made.rows["judged"], made.rows["mismatched"], strict=True):
            (prompt, _), (asked, answered) = named(table, given), named(table, other)
            assert asked == prompt
            assert answered != f" to {prompt}"
    drawn = [thumbed_examples(standardise(records), table, False, seed=seed).rows["mismatched"].tolist() for seed in (0, 0, 1, 2, 3)]
    assert drawn[0] == drawn[1]
    assert len({tuple(one) for one in drawn}) > 1


def test_a_judgement_of_a_text_that_is_too_long_is_left_out(feedback, tiny_of):
    table = TextTable(tiny_of("llama").tokenizer, 12)
    long = Feedback(prompt="It", responses=(" costs", " boils" * 12), judgement=Ranking(ranks=(0, 1)))
    whole, without = (compared_examples(standardise(records), table) for records in ([*feedback, long], feedback))
    assert whole.left_out - without.left_out == 1
    assert len(whole) == len(without)


def test_what_the_loss_does_not_learn_from_is_counted(feedback):
    judged = standardise(feedback)
    assert count_unused(judged, thumbs=False, from_pairs=False) == {"thumbs": 3}
    assert count_unused(judged, thumbs=True, from_pairs=False) == {"pair": 1, "ranking": 1, "edit": 1, "rating": 3}
    assert count_unused(judged, thumbs=True, from_pairs=True) == {}


def test_a_batch_holds_each_text_once_and_points_at_the_right_ones(feedback, table):
    examples = compared_examples(standardise(feedback), table)
    rows = np.array([3, 0, 1])
    batch = batch_of(examples, table, rows)
    assert sorted(set(batch.text_rows.tolist())) == batch.text_rows.tolist()
    for side in ("chosen", "rejected"):
        assert batch.text_rows[batch.index[side]].tolist() == examples.rows[side][rows].tolist()
    assert batch.tokens.ids.tolist() == table.pack(batch.text_rows.tolist()).ids.tolist()
    assert torch.equal(batch.weight, torch.from_numpy(examples.weight[rows]).float())


def test_processes_share_every_epoch_without_overlap(table):
    records = [Feedback(prompt=f"{i % 12}", responses=(f" a{i}", f" b{i}"), judgement=Ranking(ranks=(0, 1))) for i in range(36)]
    examples = compared_examples(standardise(records), table)

    def seen(rank: int, world: int, seed: int = 0) -> list[list[int]]:
        return [
            sorted(batch.text_rows[batch.index["chosen"]].tolist()) for batch in preference_loader(examples, table, 12, seed, rank, world)
        ]

    shares = [seen(rank, 2) for rank in range(2)]
    assert len(shares[0]) == len(shares[1])
    everything = sorted(place for share in shares for batch in share for place in batch)
    assert everything == sorted(examples.rows["chosen"].tolist())
    assert seen(0, 1) == seen(0, 1) != seen(0, 1, seed=1)
    assert all((batch.weight == 0).all() for batch in preference_loader(examples, table, 12, 0, 98, 99)), "who has no row has no say"


TEXTS = [("It", " costs"), ("The kettle", ""), ("", "A quiet fan"), ("It", " costs"), ("It", " is")]


def test_a_text_has_one_place_and_its_rows_are_those_of_the_text_encoder(either_tokenizer):
    tokenizer = either_tokenizer.tokenizer
    table = TextTable(tokenizer, 64)
    places = [table.row_of(text) for text in TEXTS]
    assert places == [0, 1, 2, 0, 3]
    assert len(table) == 4
    wanted, _ = TextEncoder(tokenizer, InputFormat(), 64).encode_packed([TEXTS[4], TEXTS[0]])
    packed = table.pack([3, 0])
    for name in ("ids", "lengths", "response_start"):
        assert getattr(packed, name).tolist() == getattr(wanted, name).tolist()
    assert [table.length(3), table.length(0)] == wanted.lengths.tolist()
    assert len(table.pack([])) == 0


def test_the_tokens_of_an_answer_are_those_that_something_predicts(language_model):
    from rlhf_lightning.model.token_log_probs import response_log_probs

    table = TextTable(language_model.tokenizer, 64)
    places = [table.row_of(text) for text in dict.fromkeys(TEXTS)]
    assert [table.response_length(place) for place in places] == response_log_probs(language_model, table.pack(places))[1].tolist()


@pytest.mark.parametrize("limit", [5, 8])
def test_what_would_be_cut_is_left_out_and_counted_once(language_model, limit):
    table = TextTable(language_model.tokenizer, limit)
    long = ("It", " costs" * 20)
    assert [table.row_of(long), table.row_of(("It", " costs")), table.row_of(long)] == [TOO_LONG, 0, TOO_LONG]
    assert (len(table), table.too_long) == (1, 1)
