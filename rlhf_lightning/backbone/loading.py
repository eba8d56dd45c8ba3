"""Load pretrained models, configs and tokenizers from local folders or the Hub, never running code from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf_lightning.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def load_pretrained(auto_class: Any, path: str, what: str, **options: Any) -> Any:
    """`auto_class.from_pretrained(path)` in float32, never running code from the folder, with an error that says what to mend."""
    from transformers.utils import logging

    if "/" in path and not Path(path).is_dir() and path.startswith((".", "/", "~")):
        raise DataError(f"{what}: no folder {path!r}; give a local Hugging Face folder or a Hub name")
    logging.disable_progress_bar()
    try:
        return auto_class.from_pretrained(path, trust_remote_code=False, **options)
    except (OSError, ValueError, KeyError) as cause:
        raise DataError(f"{what}: {path!r} can't be loaded: {cause}") from cause


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return load_pretrained(AutoTokenizer, path, "tokenizer")
