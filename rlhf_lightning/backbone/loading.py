"""Load pretrained models, configs and tokenizers from local folders or the Hub, never running code from them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
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


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Inside, transformers logs errors only and draws no progress bars; its settings are restored after that."""
    from transformers.utils import logging

    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()


def some_of(names: Iterable[str], shown: int = 4) -> str:
    """The number of names, with the first few of them."""
    names = list(names)
    more = ", ..." if len(names) > shown else ""
    return f"{len(names)} tensor{'s' if len(names) != 1 else ''} ({', '.join(names[:shown])}{more})"
