"""Batches of judgements for the reward room's tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import torch

from rlhf_lightning.feedback.batch import JudgementBatch, JudgementColumns, collate
from rlhf_lightning.feedback.judgements import PromptResponse, standardise
from rlhf_lightning.flow import Feedback, Ranking
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.trunk import clamp_length, load_trunk, trunk_width
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ComposedScore
from rlhf_lightning.reward.pooling.last import last


class NoTokens:
    """A token for each text: the loss alone is looked at."""

    def tokenise(self, texts: Sequence[PromptResponse]) -> PackedTokens:
        return PackedTokens.of([[0]] * len(texts))

    def response_offsets(self, text: PromptResponse) -> tuple[int, list[tuple[int, int]]]:
        raise NotImplementedError


@pytest.fixture
def model_of(trunk_folder: Callable[[str], str]) -> Callable[..., RewardModel]:
    """A reward model on a tiny trunk by family, in eval mode, and how to save it: `model_of("bert", pooling=mean)`."""

    def make(family: str, pooling: Callable[..., torch.Tensor] = last, head: Callable[[int], torch.nn.Module] = LinearHead) -> RewardModel:
        torch.manual_seed(0)
        trunk, tokenizer = load_trunk(trunk_folder(family))
        net = ComposedScore(trunk, pooling, head(trunk_width(trunk)))
        return RewardModel(net, tokenizer, clamp_length(trunk, 64)).eval()

    return make


@pytest.fixture
def batch_of() -> Callable[[Sequence[tuple[str, list[str], list[int], float]]], JudgementBatch]:
    """A batch from (prompt, responses, ranks, margin)."""

    def make(rankings: Sequence[tuple[str, list[str], list[int], float]]) -> JudgementBatch:
        records = [
            Feedback(prompt=prompt, responses=tuple(responses), judgement=Ranking(ranks=tuple(ranks), margin=margin))
            for prompt, responses, ranks, margin in rankings
        ]
        return collate(standardise(records), NoTokens())

    return make


@pytest.fixture
def batch_with() -> Callable[..., JudgementBatch]:
    """A batch of the given columns by kind, `pairs={"better": ..., "worse": ...}`; what isn't given weighs 1, else is 0 or empty."""

    def make(**given: dict[str, torch.Tensor]) -> JudgementBatch:
        empty: dict[str, JudgementColumns] = {name: kind for name, kind in vars(collate([], NoTokens())).items() if name != "tokens"}
        made = {}
        for name in empty:
            columns = given.get(name, {})
            kind = type(empty[name])
            count = len(next(iter(columns.values()))) if columns else 0
            blank = {field.name: torch.zeros(count, dtype=getattr(empty[name], field.name).dtype) for field in dataclasses.fields(kind)}
            made[name] = kind(**{**blank, "weight": torch.ones(count), **columns})
        return JudgementBatch(tokens=PackedTokens.of([]), **made)

    return make


@pytest.fixture
def minimised() -> Callable[[Sequence[torch.Tensor], Callable[[], torch.Tensor]], None]:
    """Moves parameters to the nearest minimum of a loss, by L-BFGS."""

    def minimise(parameters: Sequence[torch.Tensor], loss: Callable[[], torch.Tensor]) -> None:
        optimizer = torch.optim.LBFGS(parameters, max_iter=300, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe")

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            value = loss()
            value.backward()
            return value

        optimizer.step(closure)

    return minimise
