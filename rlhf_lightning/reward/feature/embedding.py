"""What a frozen language model makes of a text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from pydantic import PositiveFloat, PositiveInt

from rlhf_lightning.backbone.language_model import frozen, pad_rows, plain_ids
from rlhf_lightning.backbone.loading import load_pretrained, load_tokenizer
from rlhf_lightning.errors import DataError
from rlhf_lightning.registry import register
from rlhf_lightning.reward.feature._family import Family, Text
from rlhf_lightning.schema import ModelPath


@register("reward_feature", "embedding")
class Embedding(Family):
    """Embeddings of a frozen language model: its last hidden states, averaged over the response's tokens, prompt before it.

    A feature per dimension, "embedding 17": they say how much the model's view of the text counts, not why. The model isn't saved with the
    reward model; its folder must still be there, with as many dimensions, when that is loaded.

    Args:
        path: folder or Hub name of any Hugging Face language model.
        max_length: tokens of prompt and response; a longer text loses its prompt's beginning, then its response's end.
        batch_size: texts at a time.
        strength: the deviation of all dimensions together, where any other feature has 1.
    """

    def __init__(
        self, *, path: ModelPath, max_length: PositiveInt = 512, batch_size: PositiveInt = 32, strength: PositiveFloat = 3.0
    ) -> None:
        self.path, self.max_length, self.batch_size, self.together = path, max_length, batch_size, strength
        self.trunk: Any = None
        self.tokenizer: Any = None

    def fit(self, texts: Sequence[Text]) -> None:
        from transformers import AutoModel

        self.tokenizer = load_tokenizer(self.path)
        self.trunk = frozen(load_pretrained(AutoModel, self.path, "reward_feature.embedding.path", dtype=torch.float32))
        self.names = [f"dimension {i}" for i in range(self.trunk.config.get_text_config().hidden_size)]

    def rows(self, texts: Sequence[Text]) -> Iterator[list[float]]:
        for start in range(0, len(texts), self.batch_size):
            yield from self._embedded(texts[start : start + self.batch_size])

    @torch.no_grad()
    def _embedded(self, texts: Sequence[Text]) -> list[list[float]]:
        rows, counted = [], []
        for prompt, response in texts:
            ids = plain_ids(self.tokenizer, prompt, response)
            answer = len(self.tokenizer(response, add_special_tokens=False, split_special_tokens=True)["input_ids"]) if response else 0
            kept = min(answer, self.max_length)
            ids = ids[: len(ids) - (answer - kept)][-self.max_length :]
            rows.append(ids or [0])
            counted.append(kept or len(rows[-1]))
        padded, mask = pad_rows(rows, 0)
        # transformers' encoder-decoders have no single last hidden state of the text: their encoder has.
        trunk = self.trunk.get_encoder() if self.trunk.config.is_encoder_decoder else self.trunk
        hidden = trunk(input_ids=padded, attention_mask=mask).last_hidden_state
        ends = mask.sum(1)
        place = torch.arange(padded.shape[1])
        said = (place < ends[:, None]) & (place >= (ends - torch.tensor(counted))[:, None])
        mean = (hidden * said[:, :, None]).sum(1) / said.sum(1, keepdim=True)
        result: list[list[float]] = mean.double().tolist()
        return result

    def state(self) -> dict[str, Any]:
        return {"dimensions": len(self.names)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.fit([])
        if len(self.names) != state["dimensions"]:
            raise DataError(f"{self.path} has {len(self.names)} dimensions now, and the reward model was trained on {state['dimensions']}")
