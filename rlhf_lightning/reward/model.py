"""The reward model: a net that scores packed tokens, with the tokenizer that makes them and the constants of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.reward.evaluation.score_checks import check_finite, scale_of
from rlhf_lightning.reward.scored_batch import Scored
from rlhf_lightning.reward.text_layout import TextLayout, own_layout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RewardModel(nn.Module, PyTorchModelHubMixin):
    """Scores prompts with responses. Tokenises them itself, so that the policy may have another tokenizer.

    Scores are (raw - mean) / deviation, the constants of `normalise`; 0 and 1 until it is called. huggingface_hub's from_pretrained,
    save_pretrained and push_to_hub read and write the folder of reward.folder: safetensors only.

    Attributes:
        layout: how it reads prompts and responses.
        about: what its card says: pooling and head with their settings, metrics of the training.
        truncated: how many texts were longer than max_length since it was last set to 0. rewritten: of how many responses the chat template
            dropped a part.
        name: for messages; the folder it was loaded from.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int = 512) -> None:
        super().__init__()
        self.net, self.tokenizer, self.max_length = net, tokenizer, max_length
        self.about: dict[str, Any] = {}
        self.layout = TextLayout()
        self.truncated = self.rewritten = 0
        self.name = "the reward model"
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
        """Encode (prompt, response) texts as the net reads them; `truncated` counts those
        that were longer than max_length."""
        layout = self._rows
        rows = layout.encode_all([(self.layout.prompt(prompt), response) for prompt, response in texts])
        self.truncated += sum(row.is_cut for row in rows)
        self.rewritten += sum(row.is_rewritten for row in rows)
        return layout.pack(rows)

    def response_offsets(self, text: tuple[Prompt, str]) -> tuple[int, list[tuple[int, int]]]:
        """Where the response's tokens begin in the text's row, and the characters [start, end) of the response that each stands for.

        Raises:
            ConfigError: the tokenizer is one of transformers' slow ones, which don't say where their tokens stand.
        """
        return self._rows.offsets((self.layout.prompt(text[0]), text[1]))

    @property
    def _rows(self) -> TextEncoder:
        return self.layout.rows(self.tokenizer, getattr(self.net, "input_format", InputFormat()), self.max_length)

    @torch.no_grad()
    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        """Scores [B] of responses to prompts, texts or chats, in batches of like length. Raises UserError: one isn't a finite number."""
        texts = list(zip(prompts, responses, strict=True))
        scores = torch.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(prompt_text(texts[i][0])) + len(texts[i][1]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            scores[rows] = self(self.tokenise([texts[i] for i in rows]).to(self.mean.device)).cpu()
        return check_finite(scores, prompts, responses, self.name)

    def normalise(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Set the constants so that the scores of these reference samples have mean 0 and variance 1 (Ziegler et al. 2019).

        Returns:
            their scores [B] before that.
        """
        raw = self.score_texts(prompts, responses) * self.deviation.cpu() + self.mean.cpu()
        mean, deviation = scale_of(raw)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return raw

    def save(self, folder: Path, about: dict[str, Any]) -> None:
        """Write the folder of reward.folder, whole or not at all.

        Args:
            about: what loading needs and a reader wants: pooling and head with their settings, metrics of the training.
        """
        from rlhf_lightning.config.atomic_write import write_folder

        self.about, self.layout = dict(about), own_layout(about)
        write_folder(folder, self._save_pretrained)

    def _save_pretrained(self, save_directory: Path) -> None:
        from rlhf_lightning.reward.storage.folder import write_reward_model

        write_reward_model(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, max_length: int = 512, revision: str | None = None, **download: Any) -> RewardModel:
        from rlhf_lightning.reward.storage.folder import downloaded, load_reward_model

        download = {name: download.get(name) for name in ("cache_dir", "force_download", "local_files_only", "token")}
        return load_reward_model(downloaded(model_id, revision=revision, **download), max_length)
