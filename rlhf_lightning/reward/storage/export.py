"""Export of a reward model for pipelines of transformers and for vLLM."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from rlhf_lightning.config.atomic_write import write_folder
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import Prompt
from rlhf_lightning.model.card import FILE
from rlhf_lightning.model.checkpoint_tensors import quiet_transformers, save_model
from rlhf_lightning.model.trunk import trunk_kind
from rlhf_lightning.reward.model import RewardModel
from rlhf_lightning.reward.net import ClassifierScore
from rlhf_lightning.reward.storage.canary import TEXTS
from rlhf_lightning.reward.storage.card import model_card
from rlhf_lightning.reward.storage.classifier import SETTINGS, classifier_of
from rlhf_lightning.reward.storage.folder import is_feature_score, load_reward_model

TOLERANCE = 1e-5


def export_reward_model(path: str, target: Path) -> None:
    """Write a reward model as an AutoModelForSequenceClassification whose logit is the raw score.

    Its tokenizer adds the end-of-text that the model was trained with, so that a pipeline takes prompt and response as they are.

    Args:
        path: folder or Hub name of a reward model of stage=reward.

    Raises:
        ConfigError: its head isn't one that transformers' classifiers have.
        DataError: the folder can't be loaded, or the exported model gives other scores.
    """
    if is_feature_score(path):
        raise ConfigError(f"{path} can't be exported: reward_head=features is a regression on features, without a network")
    model = load_reward_model(path).eval()
    net: Any = model.net
    classifier, obstacle = (net.classifier, "") if isinstance(net, ClassifierScore) else classifier_of(net, model.tokenizer, model.metadata)
    if obstacle:
        raise ConfigError(f"{path} can't be exported as AutoModelForSequenceClassification: {obstacle}")
    for name, value in SETTINGS.items():
        setattr(classifier.config, name, value)
    tokenizer = _ending_tokenizer(model)
    constants = {"mean": model.mean.item(), "deviation": model.deviation.item(), "max_length": model.max_length}

    def write(folder: Path) -> None:
        save_model(classifier, folder)
        tokenizer.save_pretrained(folder)
        (folder / FILE).write_text(
            model_card({**model.metadata, **constants, "exports": "pipeline"}, trunk_kind(net.trunk.config)), encoding="utf-8"
        )
        _check_scores(model, folder, str(target))

    write_folder(target, write)


def _ending_tokenizer(model: RewardModel) -> Any:
    """The tokenizer, made to end each text as the model's rows end; chats end by their template."""
    from tokenizers.processors import Sequence, TemplateProcessing

    tokenizer: Any = copy.deepcopy(model.tokenizer)
    tokenizer.padding_side = "right"  # GPT-2's positions count from the first column
    end = model.tokenise([("a", "a")]).ids.tolist()[-1]
    if model.layout.chats or _is_pair(model) or tokenizer("a")["input_ids"][-1:] == [end]:
        return tokenizer
    backend, token = tokenizer.backend_tokenizer, tokenizer.convert_ids_to_tokens(end)
    added = TemplateProcessing(single=f"$A {token}", pair=f"$A $B {token}", special_tokens=[(token, end)])
    backend.post_processor = Sequence([*([backend.post_processor] if backend.post_processor else []), added])
    return tokenizer


def _is_pair(model: RewardModel) -> bool:
    net: Any = model.net
    return trunk_kind(net.trunk.config) != "decoder"


@torch.no_grad()
def _check_scores(model: RewardModel, folder: Path, path: str) -> None:
    """Compare the scores of a pipeline with the model's. Raises DataError."""
    from transformers import pipeline

    texts = [text for text in TEXTS if (isinstance(text[0], str) or model.layout.chats) and not _is_cut(model, text)]
    with quiet_transformers():
        score: Any = pipeline("text-classification", model=str(folder), function_to_apply="none", device="cpu")
        scores = [score(_pipeline_input(model, prompt, response), truncation=False) for prompt, response in texts]
    exported = torch.tensor([result["score"] if isinstance(result, dict) else result[0]["score"] for result in scores])
    raw = torch.cat([model.raw_scores(model.tokenise([text])).scores for text in texts]).float()
    gap = float((exported - raw).abs().max())
    if not gap <= TOLERANCE * max(1.0, float(raw.abs().max())):
        raise DataError(
            f"{path}: the exported classifier's scores differ from the reward model's by {gap:.1e}, and nothing was written: its tokenizer "
            "joins prompt and response in another way; use the model by rollout_scorer=reward_model"
        )


def _is_cut(model: RewardModel, text: tuple[Prompt, str]) -> bool:
    """True for a text of more tokens than the model reads, which a pipeline doesn't shorten."""
    model.truncated = 0
    model.tokenise([text])
    return model.truncated > 0


def _pipeline_input(model: RewardModel, prompt: Prompt, response: str) -> Any:
    """A text as the pipeline takes it."""
    prompt = model.layout.prompt(prompt)
    if _is_pair(model):
        return {"text": prompt, "text_pair": response}
    if isinstance(prompt, str):
        return prompt + response
    chat = [*(message.model_dump() for message in prompt), {"role": "assistant", "content": response}]
    return model.tokenizer.apply_chat_template(chat, tokenize=False)
