"""Scores from a trained reward model."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh

from rlhf_lightning.config.schema import ModelPath
from rlhf_lightning.flow import Prompt, Rollout
from rlhf_lightning.model.kernels import use_fast_kernels
from rlhf_lightning.model.language_model import freeze
from rlhf_lightning.registry import register
from rlhf_lightning.rollout.scoring import Scorer, WeightedScorers


@register("rollout_scorer", "reward_model")
class RewardModelScorer:
    """A reward model from stage=reward, or a sequence classifier with one label, by folder or Hub name.

    Responses are passed as text: policy and reward model may have different tokenizers. At loading, the scores of a few texts are
    compared with their scores alone and with those in the folder (reward.storage.canary).

    A features model (reward_head=features) scores on the CPU.

    Args:
        path: folder or Hub name of the reward model.
        layout: text format of a classifier from another program: "chat" the chat template with the prompt as a user's message, "pair" the
            tokenizer's template for pairs, "joined" prompt and response as one text; "auto" takes pair for encoders, chat where the
            tokenizer has a template, else joined. A model of stage=reward reads texts as it was trained.
        eos: for such a classifier, end each text with the tokenizer's EOS, or without; null adds one to joined texts alone.

    Attributes:
        note: on the text format, for the log; empty if it is unambiguous.

    Raises:
        DataError: no such folder, or scores that padding, a wrong tokenizer or wrong weights have changed.
        ConfigError: a layout for a model of stage=reward, or one that the classifier's tokenizer doesn't have.
    """

    def __init__(self, *, path: ModelPath, layout: Literal["auto", "chat", "pair", "joined"] = "auto", eos: bool | None = None) -> None:
        # huggingface_hub, which the model is built on, takes a third of a second that the menu hasn't.
        from rlhf_lightning.reward.model import layout_note
        from rlhf_lightning.reward.regression.feature_score import FeatureScore
        from rlhf_lightning.reward.storage.canary import check_canary
        from rlhf_lightning.reward.storage.folder import load_any_reward_model

        self.model = load_any_reward_model(path, layout=layout, eos=eos)
        use_fast_kernels(freeze(self.model))
        self.device = torch.device("cpu")
        self.note = ""
        if not isinstance(self.model, FeatureScore):
            self.note = layout_note(self.model.layout, self.model.tokenizer, path)
            check_canary(self.model, self.score, path)

    def __call__(self, rollout: Rollout) -> Tensor:
        """Normalised scores [B]."""
        self.device = rollout.prompt_ids.device
        self.model.to(self.device)
        return self.score(rollout.prompts, rollout.responses)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalised scores [B], without autocast: they stay comparable between runs."""
        with torch.autocast(self.device.type, enabled=False):
            return self.model.score_texts(prompts, responses)


def shard_scorer(scorer: Scorer, mesh: DeviceMesh) -> Scorer:
    """Shard a scorer's model over the processes, which then must call it equally often.

    A scorer without a model is returned unchanged.
    """
    if isinstance(scorer, WeightedScorers):
        return dataclasses.replace(scorer, scorers={name: shard_scorer(part, mesh) for name, part in scorer.scorers.items()})
    model = getattr(scorer, "model", None)
    if not isinstance(model, nn.Module):
        return scorer
    from rlhf_lightning.training.sharding import shard

    sharded = copy.copy(scorer)
    sharded.model = shard(model, mesh)  # type: ignore[attr-defined]
    return sharded
