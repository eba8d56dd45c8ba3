"""A language model that is run here as a judge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from rlhf_lightning.errors import DataError
from rlhf_lightning.judge.questions import Question
from rlhf_lightning.registry import make

BATCH = 8
"""Questions in one forward pass."""


class LocalModel:
    """The probabilities of the choices as continuations of a question, without sampling.

    A choice of several tokens has the product of their probabilities; those of all choices are scaled to sum 1.

    Args:
        path: folder or Hub name of a decoder-only model or an encoder-decoder.
        device: that it is moved to for the answers.
    """

    def __init__(self, path: str, device: torch.device | str = "cpu") -> None:
        from rlhf_lightning.model.language_model import freeze
        from rlhf_lightning.model.trunk import load_config, trunk_kind

        kind = "encoder_decoder" if trunk_kind(load_config(path)) == "encoder_decoder" else "causal"
        self.language_model: Any = make("backbone", kind, {"path": path})(())
        freeze(self.language_model.model)
        self.name, self.device = Path(path).name, torch.device(device)
        weights = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []
        self.identity = repr([str(Path(path).resolve()) if weights else path, [(f.stat().st_size, f.stat().st_mtime_ns) for f in weights]])

    def answer(self, questions: Sequence[Question]) -> Iterator[tuple[int, dict[str, float] | None]]:
        """Yield the index and the answer of each question."""
        self.language_model.model.to(self.device)
        for start in range(0, len(questions), BATCH):
            for offset, answer in enumerate(self._probabilities(questions[start : start + BATCH])):
                yield start + offset, answer

    @torch.no_grad()
    def _probabilities(self, questions: Sequence[Question]) -> list[dict[str, float]]:
        from rlhf_lightning.model.token_log_probs import response_log_probs

        encoder, limit = self.language_model.text_encoder, self.language_model.max_length
        rows = [row._replace(end=[]) for row in encoder.encode_all([(q.messages, choice) for q in questions for choice in q.choices])]
        longest = max(max(len(row.ids), len(row.context)) for row in rows)
        if longest > limit:
            raise DataError(f"judge {self.name} reads {limit} tokens, and a question has {longest}: choose a judge with a longer context")
        with torch.autocast(self.device.type, enabled=False):
            log_probs = response_log_probs(self.language_model, encoder.pack(rows).to(self.device))[0].double().cpu()
        parts = log_probs.split([len(question.choices) for question in questions])
        return [dict(zip(q.choices, part.softmax(0).tolist(), strict=True)) for q, part in zip(questions, parts, strict=True)]
