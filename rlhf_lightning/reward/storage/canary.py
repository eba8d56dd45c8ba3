"""Canary texts: their scores show a changed reward model, or one that reads texts differently."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message, Prompt
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.storage.card import DIVERGED

ScoreFunction = Callable[[Sequence[Prompt], Sequence[str]], Tensor]
TEXTS: list[tuple[Prompt, str]] = [
    ("What is it?", " A lamp."),
    ("", "No."),
    ("Write about the sea:\n", "In 1851 the sea was grey, and Zoë — quite naïvely — said: “It's 水.”\nNobody\tlaughed."),
    ((Message(role="user", content="Hello, who are you?"),), "Somebody who answers questions, one after the other."),
]  # fmt: skip
"""Texts of unequal length, with a chat, and with characters that tokenizers treat differently."""
TOLERANCE = 1e-5
RECORDED_TOLERANCE = 1e-3
"""For scores of the card, which may come from a machine with other rounding."""
LOW_PRECISION = {torch.float16: 1e3, torch.bfloat16: 1e4}
"""Factors on the tolerances for weights of half precision."""


def score_canary(model: RewardModel) -> list[dict[str, Any]]:
    """The canary texts with their scores, for the card."""
    prompts = [prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt] for prompt, _ in TEXTS]
    answers = [response for _, response in TEXTS]
    scores = _scores_alone(model, TEXTS).tolist()
    return [{"prompt": p, "response": r, "score": s} for p, r, s in zip(prompts, answers, scores, strict=True)]


def check_canary(model: RewardModel, score: ScoreFunction, path: str) -> None:
    """Compare a scorer's scores of the canary texts with those of each text alone, and with the card's.

    The first comparison catches padding and batching that change scores; the second, for folders of stage=reward, a tokenizer, template
    or weights other than the saved ones.

    Args:
        score: prompts and responses to normalised scores, as the scorer computes them. path: of the model, for messages.

    Raises:
        DataError: they differ by more than 1e-5 (1e-3 from the card's) of the raw scores' size, more where weights have half precision.
    """
    coarseness = max((LOW_PRECISION.get(parameter.dtype, 1.0) for parameter in model.parameters()), default=1.0)
    prompts, responses = [text[0] for text in TEXTS], [text[1] for text in TEXTS]
    try:
        together, alone = score(prompts, responses), _scores_alone(model, TEXTS)
    except IndexError as cause:
        raise DataError(f"{path}: its tokenizer makes tokens that the model doesn't have ({cause}): it is another model's") from cause
    if not alone.isfinite().all():
        raise DataError(f"{path}: its scores aren't finite numbers: {DIVERGED}")
    gap = _gap(model, together, alone)
    if not gap <= TOLERANCE * coarseness:
        raise DataError(
            f"{path}: scores of texts together differ from the scores of each alone by {gap:.1e}: "
            "padding changes them; check the pad token of its tokenizer and pad_token_id in its config.json"
        )
    rows: list[Mapping[str, Any]] = model.metadata.get("canary", [])
    if not rows:
        return
    texts = [(_prompt(row["prompt"]), str(row["response"])) for row in rows]
    gap = _gap(model, score([p for p, _ in texts], [r for _, r in texts]), torch.tensor([float(row["score"]) for row in rows]))
    if not gap <= RECORDED_TOLERANCE * coarseness:
        raise DataError(
            f"{path}: its scores of the texts in its card differ by {gap:.1e} from those when it was saved: the tokenizer, the chat "
            "template or the weights in the folder aren't the ones that it was trained with; save or copy the complete folder again"
        )


@torch.no_grad()
def _scores_alone(model: RewardModel, texts: Sequence[tuple[Prompt, str]]) -> Tensor:
    """Scores [B] of each text in a batch of one, without counting truncations."""
    truncated, device = model.truncated, model.mean.device
    with torch.autocast(device.type, enabled=False):
        scores = torch.cat([model(model.tokenise([text]).to(device)).float().cpu() for text in texts])
    model.truncated = truncated
    return scores


def _gap(model: RewardModel, scores: Tensor, expected: Tensor) -> float:
    """The largest difference of raw scores over their size (at least 1); NaN if a score is NaN."""
    mean, deviation = float(model.mean), float(model.deviation)
    size = max(1.0, float((expected * deviation + mean).abs().max()))
    return float((scores - expected).abs().max()) * deviation / size


def _prompt(value: Any) -> Prompt:
    return value if isinstance(value, str) else tuple(Message(**message) for message in value)
