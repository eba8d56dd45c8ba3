"""Features and scores of a pool of responses under the present reward model, for feedback_selection.

Shapes: U texts, N responses of the pool, D features, M members, C comparisons.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.interfaces import SelectionPool
from rlhf_lightning.reward.components import needs_of
from rlhf_lightning.reward.evaluation.comparisons import Comparison
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.regression.feature_score import FeatureScore
from rlhf_lightning.statistics.laplace import evidence_precision, likeliest_error_rate

MAX_WIDTH = 1024
"""Features beyond which their COMPONENTS principal components are taken: selection costs D² for each question."""
COMPONENTS = 512
Text = tuple[Prompt, str]


def selection_pool(
    model: RewardModel | FeatureScore,
    groups: Sequence[tuple[Prompt, Sequence[str]]],
    past: Iterable[Comparison],
    *,
    seconds: Callable[[Prompt, Sequence[str]], float] | None = None,
) -> SelectionPool:
    """Score the responses and the earlier comparisons by the present reward model.

    The prior's precision and the share of random answers are those under which the earlier comparisons are likeliest.

    Args:
        past: answered comparisons. seconds: as in `SelectionPool`.
    """
    compared = [((order.prompt, order.better), (order.prompt, order.worse)) for order in past]
    texts = list(dict.fromkeys([*((prompt, text) for prompt, of in groups for text in of), *(text for pair in compared for text in pair)]))
    features, scores, members = pool_features(model, texts)
    index = {text: i for i, text in enumerate(texts)}
    rows = torch.tensor([index[prompt, text] for prompt, of in groups for text in of], dtype=torch.long)
    better = torch.tensor([index[pair[0]] for pair in compared], dtype=torch.long)
    worse = torch.tensor([index[pair[1]] for pair in compared], dtype=torch.long)
    differences, gaps = features[better] - features[worse], scores[better] - scores[worse]
    return SelectionPool(
        groups=groups,
        scores=scores[rows],
        features=features[rows],
        members=None if members is None else members[:, rows],
        past_differences=differences,
        past_scores=gaps,
        precision=evidence_precision(differences, gaps, linear_weight(features, scores)),
        error_rate=likeliest_error_rate(gaps),
        seconds=seconds,
    )


@torch.no_grad()
def pool_features(model: RewardModel | FeatureScore, texts: Sequence[Text], batch_size: int = 64) -> tuple[Tensor, Tensor, Tensor | None]:
    """Features [U, D], scores [U] in log-odds and members' scores [M, U] of texts, in float64.

    Features are the input of the head's last layer: phi(x, y) of a linear head or an ensemble, the hidden layer of an MLP, the mean over
    the response of a token head, the standardised features of a regression. More than MAX_WIDTH are projected.

    Raises:
        ConfigError: a foreign classifier whose head scores every token.
    """
    if isinstance(model, FeatureScore):
        phi = model.phi([(prompt_text(prompt), response) for prompt, response in texts])
        return project(phi), (phi @ model.weight + model.bias) * model.deviation, None
    model.eval()
    order = sorted(range(len(texts)), key=lambda i: len(prompt_text(texts[i][0])) + len(texts[i][1]))
    parts, scores, members = [], [], []
    with recorded_features(model) as batches:
        for start in range(0, len(order), batch_size):
            output = model.raw_scores(model.tokenise([texts[i] for i in order[start : start + batch_size]]).to(model.mean.device))
            parts.append(batches.pop().double().cpu())
            scores.append(output.scores.double().cpu())
            if output.members is not None:
                members.append(output.members.double().cpu())
    back = torch.tensor(order).argsort()
    features = torch.cat(parts)[back]
    features = features / features.std().clamp(min=1e-12)
    return project(features), torch.cat(scores)[back], torch.cat(members, 1)[:, back] if members else None


@contextmanager
def recorded_features(model: RewardModel) -> Iterator[list[Tensor]]:
    """Append the features [U, D] of each forward pass to the list."""
    head: nn.Module = getattr(model.net, "head", model.net)
    layers = [module for module in head.modules() if isinstance(module, nn.Linear) and module.out_features == 1]
    batches: list[Tensor] = []

    def record(module: nn.Module, args: tuple[Any, ...]) -> None:
        features = args[0].detach()
        if "tokens" in needs_of(head):
            inside = args[2].to(features.dtype)[..., None]
            total = (features * inside).sum(1)
            features = total if getattr(head, "reduction", "mean") == "sum" else total / inside.sum(1).clamp(min=1)
        if features.dim() != 2:
            raise ConfigError(
                "feedback_selection reads one vector for each text, and this classifier's head scores every token: train a model by "
                "stage=reward, or choose feedback_selection=random"
            )
        batches.append(features)

    is_single = len(layers) == 1 and "tokens" not in needs_of(head)
    hook = (layers[0] if is_single else head).register_forward_pre_hook(record)
    try:
        yield batches
    finally:
        hook.remove()


def project(features: Tensor) -> Tensor:
    """The principal components of more than MAX_WIDTH features, alike on every process."""
    if features.shape[1] <= MAX_WIDTH:
        return features
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        u, s, _ = torch.svd_lowrank(features - features.mean(0), q=min(COMPONENTS, *features.shape), niter=2)
    return u * s


def linear_weight(features: Tensor, scores: Tensor) -> Tensor:
    """The weights [D] of the linear function that is nearest to the scores."""
    centred = features - features.mean(0)
    weight: Tensor = torch.linalg.lstsq(centred, (scores - scores.mean())[:, None], driver="gelsd").solution[:, 0]
    return weight
