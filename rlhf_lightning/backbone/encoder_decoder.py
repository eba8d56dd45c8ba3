"""Any encoder-decoder of transformers, for reward models: T5, BART and the like."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlhf_lightning.backbone.trunk import trunk_and_tokenizer
from rlhf_lightning.registry import register


@register("backbone", "encoder_decoder", needs=["reading"])
def encoder_decoder(corpus: Iterable[str], *, path: str) -> tuple[Any, Any]:
    """A pretrained encoder-decoder by Hub name or local folder, as the trunk of a reward model; as a policy it isn't supported yet.

    Its encoder reads the prompt, its decoder the response; phi is made of the decoder's vectors. Trained in float32.

    Returns:
        transformers' model and tokenizer.

    Args:
        corpus: not read; a pretrained model brings its tokenizer.
        path: Hub name or folder with config, safetensors and tokenizer. Code in the folder is never run.

    Raises:
        DataError: the folder or name can't be loaded.
        ConfigError: it isn't an encoder-decoder.
    """
    return trunk_and_tokenizer(path, "encoder_decoder")
