from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from rlhf_lightning.flow import Edit, Experience, Feedback, Ranking, Rating, ScoredRollout
from rlhf_lightning.tensors import score_on_last_token


class TestScoreOnLastToken:
    @pytest.mark.parametrize(
        ("mask", "rewards"),
        [
            ([1, 1, 1, 1], [0, 0, 0, 7]),  # cut off: no EOS
            ([1, 1, 0, 0], [0, 7, 0, 0]),  # EOS, then padding
            ([1, 0, 0, 0], [7, 0, 0, 0]),  # EOS at once
            ([0, 0, 0, 0], [0, 0, 0, 0]),  # nothing: no reward
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
    def test_the_mask_decides(self, mask: list[int], rewards: list[int], dtype: torch.dtype) -> None:
        laid = score_on_last_token(torch.tensor([7.0]), torch.tensor([mask], dtype=dtype))
        assert laid.dtype == torch.float32
        assert laid.tolist() == [rewards]

    def test_with_pad_equal_to_eos_the_ids_play_no_part(self, scored_of: Any) -> None:
        """HF's sequence classifiers look for the pad id, and with pad == eos read the token before the EOS."""
        ids = torch.tensor([[5, 0, 6, 0, 0, 0]])  # 0 is pad and EOS; it also occurs inside the response
        scored = scored_of(torch.tensor([[1, 1, 1, 1, 0, 0]]), response_ids=ids, scores=torch.tensor([2.0]))
        assert scored.rewards.tolist() == [[0, 0, 0, 2.0, 0, 0]]

    def test_a_score_that_is_not_finite_stays_in_its_row(self) -> None:
        laid = score_on_last_token(torch.tensor([float("nan"), 1.0]), torch.tensor([[0, 0], [1, 0]]))
        assert laid.tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.fixture
def scored(scored_of: Any) -> ScoredRollout:
    mask = torch.tensor([[1, 1, 0], [1, 1, 1], [1, 0, 0]])
    made: ScoredRollout = scored_of(mask, scores=torch.tensor([1.0, 2.0, 3.0]), group=torch.tensor([4, 5, 6]), kl_coef=0.2)
    return made


class TestRecords:
    def test_select_takes_the_same_rows_of_everything(self, scored: ScoredRollout) -> None:
        chosen = scored.select(torch.tensor([2, 0]))
        assert len(chosen) == 2
        assert chosen.prompts == ["prompt 2", "prompt 0"]
        assert chosen.responses == ["response 2", "response 0"]
        assert chosen.scores.tolist() == [3.0, 1.0]
        assert chosen.rewards.tolist() == [[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
        assert chosen.group.tolist() == [6, 4]
        assert chosen.values is None
        assert chosen.kl_coef == 0.2
        for field in dataclasses.fields(chosen):
            value = getattr(chosen, field.name)
            assert not isinstance(value, torch.Tensor | list) or len(value) == 2, field.name

    def test_select_none(self, scored: ScoredRollout) -> None:
        assert len(scored.select(torch.tensor([], dtype=torch.long))) == 0

    def test_repeat_makes_neighbours(self, scored: ScoredRollout) -> None:
        repeated = scored.repeat(2)
        assert repeated.prompts == ["prompt 0", "prompt 0", "prompt 1", "prompt 1", "prompt 2", "prompt 2"]
        assert repeated.group.tolist() == [4, 4, 5, 5, 6, 6]

    def test_to_moves_every_tensor(self, scored: ScoredRollout) -> None:
        moved = scored.to("meta")
        for field in dataclasses.fields(scored):
            before, after = getattr(scored, field.name), getattr(moved, field.name)
            assert not isinstance(before, torch.Tensor) or after.device.type == "meta", field.name
        assert moved.prompts == scored.prompts

    def test_an_experience_adds_to_all_of_a_scored_rollout(self, scored: ScoredRollout) -> None:
        made = Experience.of(scored, torch.ones(3, 3))
        assert made.returns is None
        for field in dataclasses.fields(scored):
            assert getattr(made, field.name) is getattr(scored, field.name)
        assert made.select(torch.tensor([1])).advantages.tolist() == [[1.0, 1.0, 1.0]]


class TestFeedback:
    @pytest.mark.parametrize(
        ("responses", "judgement"),
        [
            (("a", "b"), Ranking(ranks=(1,))),
            (("a",), Ranking(ranks=(1,))),
            (("a", "b"), Rating(value=1, scale=(0, 5))),
            (("a",), Edit()),
        ],
    )
    def test_a_judgement_must_fit_the_responses(self, responses: tuple[str, ...], judgement: Any) -> None:
        with pytest.raises(ValidationError):
            Feedback(prompt="p", responses=responses, judgement=judgement)

    @pytest.mark.parametrize(
        "rating", [{"value": 6.0}, {"value": float("nan")}, {"value": "3"}, {"value": True}, {"value": 1.0, "scale": (5, 0)}]
    )
    def test_a_rating_off_its_scale_is_refused(self, rating: dict[str, Any]) -> None:
        with pytest.raises(ValidationError):
            Rating(**{"scale": (0.0, 5.0), **rating})

    def test_what_fits_is_taken(self) -> None:
        made = Feedback(prompt="p", responses=("a", "b"), judgement=Ranking(ranks=(2, 1), margin=0.5))
        assert made.weight == 1.0
        assert Feedback.model_validate_json(made.model_dump_json()) == made
