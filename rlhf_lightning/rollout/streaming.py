"""Sampling of one response, shown while it is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from rlhf_lightning.flow import Prompt, Prompts
from rlhf_lightning.model.language_model import LanguageModel

UNFINISHED = "\ufffd"
"""Last character of a decoded text whose last token is a part of a character."""


class TextStreamer:
    """A streamer for transformers' generate, which shows the new end of the text.

    Attributes:
        text: the complete text so far.
    """

    def __init__(self, language_model: LanguageModel, prompts: Prompts, show: Callable[[str], None]) -> None:
        self.text, self._show, self._ids = "", show, list[int]()
        self._model, self._prompts, self._prompt_is_next = language_model, prompts, True

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt first, then a token at a time."""
        if self._prompt_is_next:
            self._prompt_is_next = False
            return
        self._ids += value.flatten().tolist()
        text = self._decode()
        if text.startswith(self.text) and not text.endswith(UNFINISHED):
            self._show(text[len(self.text) :])
            self.text = text

    def end(self) -> None:
        text = self._decode()
        self._show(text[len(self.text) :])
        self.text = text

    def _decode(self) -> str:
        ids = torch.tensor([[token for token in self._ids if token not in self._model.eos_ids]], dtype=torch.long)
        return self._model.decode(ids, torch.ones_like(ids), self._prompts)[0]


@torch.no_grad()
def stream_response(
    language_model: LanguageModel, prompt: Prompt, show: Callable[[str], None], *, max_new_tokens: int, temperature: float, top_p: float
) -> str:
    """Sample a response by transformers' generate; returns the complete text.

    Args:
        prompt: a text or a chat.
        show: gets each new piece of the text.
        temperature: of the softmax; 0 takes the likeliest token.

    Raises:
        UserError: the prompt leaves no positions for the response, or the chat template rejects it.
    """
    from transformers import GenerationConfig

    model: Any = language_model.model
    batch = language_model.encode_prompts([prompt], max_new_tokens).to(model.device)
    sampling: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "top_k": 0} if temperature else {}
    settings = GenerationConfig(
        do_sample=temperature > 0, max_new_tokens=max_new_tokens, eos_token_id=language_model.eos_ids, pad_token_id=language_model.pad_id,
        **sampling,
    )  # fmt: skip
    decoder, prefix = {}, language_model.decoder_prefix
    if prefix is not None:
        decoder["decoder_input_ids"] = torch.tensor([prefix], device=model.device)
        settings.decoder_start_token_id = prefix[0]
    streamer, saved_config = TextStreamer(language_model, batch, show), model.generation_config
    model.generation_config = GenerationConfig()  # generate takes defaults from here
    try:
        model.generate(
            input_ids=batch.prompt_ids, attention_mask=batch.prompt_mask, generation_config=settings, streamer=streamer, **decoder
        )
    finally:
        model.generation_config = saved_config
    return streamer.text
