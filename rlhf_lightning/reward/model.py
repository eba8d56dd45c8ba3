"""The reward model: a scoring network with its tokenizer and the normalisation of its scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.flow import Prompt, prompt_text
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.prompt_encoding import InputFormat, TextEncoder
from rlhf_lightning.reward.evaluation.score_checks import check_finite, mean_and_deviation
from rlhf_lightning.reward.scored_batch import ScoredBatch
from rlhf_lightning.reward.text_layout import TextLayout

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class RewardModel(nn.Module):
    """Scores prompts with responses, with a tokenizer independent of the policy's.

    Scores are (raw - mean) / deviation, the constants of `normalise`; 0 and 1 until it is called. `storage.folder` saves and loads it.

    Attributes:
        layout: the layout of prompts and responses.
        metadata: the content of its card: pooling and head with their settings, metrics of the training.
        truncated: number of texts longer than max_length since it was last set to 0. rewritten: number of responses of which the chat
            template dropped a part.
        name: for messages; the folder it was loaded from.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, net: nn.Module, tokenizer: PreTrainedTokenizerBase, max_length: int = 512) -> None:
        super().__init__()
        self.net, self.tokenizer, self.max_length = net, tokenizer, max_length
        self.metadata: dict[str, Any] = {}
        self.layout = TextLayout()
        self.truncated = self.rewritten = 0
        self.name = "the reward model"
        self.register_buffer("mean", torch.tensor(0.0))
        self.register_buffer("deviation", torch.tensor(1.0))

    def forward(self, tokens: PackedTokens) -> Tensor:
        """U texts to normalised scores [U], float32."""
        return (self.raw_scores(tokens).scores - self.mean) / self.deviation

    def raw_scores(self, tokens: PackedTokens) -> ScoredBatch:
        """The net's output for U texts before normalisation, the input of losses."""
        output: Tensor | ScoredBatch = self.net(tokens)
        return output if isinstance(output, ScoredBatch) else ScoredBatch(scores=output.float())

    def tokenise(self, texts: Sequence[tuple[Prompt, str]]) -> PackedTokens:
        """Encode texts as rows of ids in the net's layout; `truncated` counts those over max_length."""
        layout = self._rows
        rows = layout.encode_all([(self.layout.prompt(prompt), response) for prompt, response in texts])
        self.truncated += sum(row.is_cut for row in rows)
        self.rewritten += sum(row.is_rewritten for row in rows)
        return layout.pack(rows)

    def response_offsets(self, text: tuple[Prompt, str]) -> tuple[int, list[tuple[int, int]]]:
        """The index of the response's first token, and the response's characters [start, end) of each token.

        Raises:
            ConfigError: the tokenizer is one of transformers' slow ones, without offsets.
        """
        return self._rows.offsets((self.layout.prompt(text[0]), text[1]))

    @property
    def _rows(self) -> TextEncoder:
        return self.layout.rows(self.tokenizer, getattr(self.net, "input_format", InputFormat()), self.max_length)

    @torch.no_grad()
    def score_texts(self, prompts: Sequence[Prompt], responses: Sequence[str], batch_size: int = 64) -> Tensor:
        """Scores [B] of responses to prompts, texts or chats. Raises UserError: one isn't a finite number."""
        texts = list(zip(prompts, responses, strict=True))
        scores = torch.zeros(len(texts))
        order = sorted(range(len(texts)), key=lambda i: len(prompt_text(texts[i][0])) + len(texts[i][1]))
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            scores[rows] = self(self.tokenise([texts[i] for i in rows]).to(self.mean.device)).cpu()
        return check_finite(scores, prompts, responses, self.name)

    def normalise(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalise the scores of these texts to mean 0 and variance 1 (Ziegler et al. 2019).

        Returns:
            their raw scores [B].
        """
        raw = self.score_texts(prompts, responses) * self.deviation.cpu() + self.mean.cpu()
        mean, deviation = mean_and_deviation(raw)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
        return raw
