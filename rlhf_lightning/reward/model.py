"""The reward model: trunk, pooling and head, or a transformers sequence classifier with one label as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.backbone.chat import prompt_ids
from rlhf_lightning.backbone.language_model import load_pretrained, load_tokenizer, write_folder
from rlhf_lightning.backbone.packing import PackedTokens, packed_hidden, padded_hidden, supports_packing, unpacked
from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.registry import make
from rlhf_lightning.reward.head.linear import LinearHead
from rlhf_lightning.reward.parts import head_arguments, pooling_arguments, said
from rlhf_lightning.reward.scored import Scored

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

CARD, HEAD_WEIGHTS = "reward_model.json", "reward_head.safetensors"
POOLING = "pooling."


class ComposedScore(nn.Module):
    """score(x, y) = head(pooling(trunk(x, y))).

    The trunk runs without padding where it can (`supports_packing`), padded elsewhere, with equal scores but for rounding. A pooling takes
    the vectors of a text's tokens as [B, L, D] with the mask [B, L] in either case.
    """

    def __init__(self, trunk: PreTrainedModel, pooling: Callable[[Tensor, Tensor], Tensor], head: nn.Module) -> None:
        super().__init__()
        self.trunk, self.pooling, self.head = trunk, pooling, head

    def forward(self, tokens: PackedTokens) -> Tensor | Scored:
        if supports_packing(self.trunk):
            hidden, mask = unpacked(packed_hidden(self.trunk, tokens), tokens.lengths)
        else:
            hidden, mask = padded_hidden(self.trunk, tokens)
        return said(self.pooling, self.head, hidden, mask, tokens)


class ClassifierScore(nn.Module):
    """The one logit of a transformers AutoModelForSequenceClassification, run padded: it finds the last token by the pad's id."""

    def __init__(self, classifier: PreTrainedModel) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, tokens: PackedTokens) -> Tensor:
        input_ids, mask = tokens.padded(int(self.classifier.config.pad_token_id))
        logits: Tensor = self.classifier(input_ids=input_ids, attention_mask=mask).logits
        return logits[:, 0].float()


class RewardModel(nn.Module):
    """Scores prompts with responses. Tokenises them itself, so that the policy may have another tokenizer.

    Scores are (raw - mean) / deviation, the constants of `normalise`; 0 and 1 until it is called.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int = 512) -> None:
        super().__init__()
        self.net, self.tokenizer, self.max_length = net, tokenizer, max_length
        self.truncated = 0
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("deviation", torch.tensor(1.0))

    def forward(self, tokens: PackedTokens) -> Tensor:
        """U texts to normalised scores [U], float32."""
        return (self.scored(tokens).scores - self.mean) / self.deviation

    def scored(self, tokens: PackedTokens) -> Scored:
        """What the net says about U texts, before it is normalised: what losses learn from."""
        found: Tensor | Scored = self.net(tokens)
        return found if isinstance(found, Scored) else Scored(scores=found.float())

    def tokenise(self, texts: Sequence[tuple[Prompt, str]]) -> PackedTokens:
        """(prompt, response) texts as rows of ids: prompt (a chat through the tokenizer's template), response, end-of-text.

        What is longer than max_length loses the beginning of its prompt (not the begin-of-text token), then the end of its response;
        `truncated` counts them.
        """
        rows, starts = [], []
        for text in texts:
            before, answer, end = self._parts(text)
            whole = len(before) + len(answer) + len(end)
            before, answer = self._fitting(before, answer, len(end))
            self.truncated += len(before) + len(answer) + len(end) < whole
            rows.append([*before, *answer, *end])
            starts.append(len(before))
        return PackedTokens.of(rows, starts)

    def response_offsets(self, text: tuple[Prompt, str]) -> tuple[int, list[tuple[int, int]]]:
        """Where the response's tokens begin in the text's row, and the characters [start, end) of the response that each stands for.

        Raises:
            ConfigError: the tokenizer is one of transformers' slow ones, which don't say where their tokens stand.
        """
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"feedback on stretches of a text needs a fast tokenizer, and {type(self.tokenizer).__name__} is none: "
                "save the model with its tokenizer.json, or leave out that kind of feedback"
            )
        before, answer, end = self._parts(text)
        before, answer = self._fitting(before, answer, len(end))
        told = self.tokenizer(text[1], add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True)
        return len(before), [(int(a), int(b)) for a, b in told["offset_mapping"][: len(answer)]]

    def _parts(self, text: tuple[Prompt, str]) -> tuple[list[int], list[int], list[int]]:
        prompt, response = text
        answer = self.tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"] if response else []
        end = [] if self.tokenizer.eos_token_id is None else [int(self.tokenizer.eos_token_id)]
        return prompt_ids(self.tokenizer, prompt), answer, end

    def _fitting(self, before: list[int], answer: list[int], end: int) -> tuple[list[int], list[int]]:
        """Prompt and response cut to max_length less `end` tokens."""
        if len(before) + len(answer) + end <= self.max_length:
            return before, answer
        start = before[: int(before[:1] == [self.tokenizer.bos_token_id])]
        room = self.max_length - end - len(start)
        kept = max(0, room - len(answer))
        return [*start, *(before[len(start) :][-kept:] if kept else [])], answer[:room]

    @torch.no_grad()
    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        """Scores [B] of responses to prompts, texts or chats, in batches of like length."""
        texts = list(zip(prompts, responses, strict=True))
        scores = torch.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(prompt_text(texts[i][0])) + len(texts[i][1]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            scores[rows] = self(self.tokenise([texts[i] for i in rows]).to(self.mean.device)).cpu()
        return scores

    def normalise(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> None:
        """Set the constants so that the scores of these reference samples have mean 0 and variance 1 (Ziegler et al. 2019)."""
        raw = self.score_texts(prompts, responses) * self.deviation.cpu() + self.mean.cpu()
        self.mean.copy_(raw.mean())
        self.deviation.copy_(raw.std().clamp(min=1e-6))

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """A folder of safetensors, tokenizer and config. transformers loads a linear head on the last token as
        AutoModelForSequenceClassification(num_labels=1), anything else as its trunk, AutoModel.

        Args:
            about: what `load` needs and a reader wants: pooling and head with their settings, figures of the training.
        """

        def write(target: Path) -> None:
            card = {**about, "mean": self.mean.item(), "deviation": self.deviation.item(), "max_length": self.max_length}
            if isinstance(self.net, ComposedScore):
                from safetensors.torch import save_file

                exported(self.net, self.tokenizer, about).save_pretrained(target)
                save_file(parts_state(self.net), target / HEAD_WEIGHTS)
                (target / CARD).write_text(json.dumps(card, indent=2))
            elif isinstance(self.net, ClassifierScore):
                self.net.classifier.save_pretrained(target)
            self.tokenizer.save_pretrained(target)

        write_folder(folder, write)


def parts_state(net: ComposedScore) -> dict[str, Tensor]:
    """The weights of the head by their names, and those of a pooling that has some as "pooling.<name>"."""
    found = dict(net.head.state_dict())
    if isinstance(net.pooling, nn.Module):
        found |= {POOLING + name: value for name, value in net.pooling.state_dict().items()}
    return {name: value.contiguous() for name, value in found.items()}


def load_parts(net: ComposedScore, weights: Mapping[str, Tensor]) -> None:
    """Put what `parts_state` gave back."""
    net.head.load_state_dict({name: value for name, value in weights.items() if not name.startswith(POOLING)})
    if isinstance(net.pooling, nn.Module):
        net.pooling.load_state_dict({name.removeprefix(POOLING): value for name, value in weights.items() if name.startswith(POOLING)})


def exported(net: ComposedScore, tokenizer: PreTrainedTokenizerBase, about: dict[str, Any]) -> Any:
    """The trunk, inside a sequence classifier where a linear head on the last token allows."""
    from transformers import AutoModelForSequenceClassification

    net.trunk.config.pad_token_id = tokenizer.pad_token_id
    if not isinstance(net.head, LinearHead) or about["pooling"] != "last":
        return net.trunk
    config = type(net.trunk.config).from_dict({**net.trunk.config.to_dict(), "num_labels": 1, "pad_token_id": tokenizer.pad_token_id})
    classifier = AutoModelForSequenceClassification.from_config(config)
    classifier.base_model.load_state_dict(net.trunk.state_dict())
    classifier.score.weight.data.copy_(net.head.weight.weight.data)
    return classifier


def trunk_and_tokenizer(path: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The trunk of a folder or Hub model, with a pad token that is no end-of-text: transformers' classifiers find the last token by it."""
    from transformers import AutoModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # the language model's output layer is left behind on purpose
    trunk = load_pretrained(AutoModel, path, "reward model", dtype=torch.float32)
    tokenizer = load_tokenizer(path)
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
        trunk.resize_token_embeddings(len(tokenizer))
    return trunk, tokenizer


def load_reward_model(path: str, max_length: int = 512) -> RewardModel:
    """A reward model from its folder, or any AutoModelForSequenceClassification with one label by folder or Hub name.

    Raises:
        DataError: no such folder, or a classifier with more than one label.
    """
    card_file = Path(path) / CARD
    if not card_file.is_file():
        return _load_classifier(path, max_length)
    from safetensors.torch import load_file

    card = json.loads(card_file.read_text())
    trunk, tokenizer = trunk_and_tokenizer(path)
    width = trunk.config.get_text_config().hidden_size
    arguments = head_arguments(card["head"], width, card.get("aspects", [None]))
    head = make("reward_head", card["head"], card["head_settings"], *arguments)
    pooling = make("reward_pooling", card["pooling"], card.get("pooling_settings", {}), *pooling_arguments(card["pooling"], width))
    net = ComposedScore(trunk, pooling, head)
    load_parts(net, load_file(Path(path) / HEAD_WEIGHTS))
    model = RewardModel(net, tokenizer, card["max_length"])
    model.mean.fill_(card["mean"])
    model.deviation.fill_(card["deviation"])
    return model


def _load_classifier(path: str, max_length: int) -> RewardModel:
    from transformers import AutoModelForSequenceClassification

    classifier = load_pretrained(AutoModelForSequenceClassification, path, "reward model")
    if classifier.config.num_labels != 1:
        raise DataError(f"{path} has {classifier.config.num_labels} labels; a reward model has one (num_labels=1 in its config.json)")
    tokenizer = load_tokenizer(path)
    if tokenizer.pad_token_id is None:
        raise DataError(f"{path}: its tokenizer has no pad token, by which transformers finds the last token; set one and save it again")
    if classifier.config.pad_token_id is None:
        classifier.config.pad_token_id = tokenizer.pad_token_id
    limit = int(getattr(classifier.config, "max_position_embeddings", max_length))
    return RewardModel(ClassifierScore(classifier), tokenizer, min(max_length, limit))
