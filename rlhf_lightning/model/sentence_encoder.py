"""Embeddings of texts by a frozen language model or a sentence-transformers folder.

Shapes: B texts, L tokens of the longest, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from rlhf_lightning.errors import ConfigError, DataError
from rlhf_lightning.model.language_model import freeze, pad_rows
from rlhf_lightning.model.loading import find_file, load_pretrained
from rlhf_lightning.model.trunk import clamp_length, load_config, trunk_kind
from rlhf_lightning.tokenization.vocabulary import check_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_LENGTH = 512
"""Tokens of a text, where neither setting nor folder names a number."""
MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The switches in older 1_Pooling/config.json, in the order in which several are concatenated, and their newer names."""
ACTIVATIONS: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in (nn.Identity, nn.Tanh, nn.ReLU, nn.GELU, nn.SiLU, nn.Sigmoid)}


class SentenceEncoder:
    """One vector for each text, with the special tokens of the model's tokenizer.

    - sentence-transformers folder (modules.json): its pooling, dense and normalising layers, max_seq_length and lower-casing.
    - encoder, and the encoder of an encoder-decoder: the mean over all tokens, special ones too.
    - decoder: begin-of-text first if the tokenizer has one; the mean over the others, as decoders put outliers on the first token.

    Args:
        path: folder or Hub name of any Hugging Face model.
        what: the setting with this path, for errors.
        max_length: tokens of a text, special ones too, at most the model's positions; default the folder's max_seq_length, else
            MAX_LENGTH.

    Attributes:
        width: D.

    Raises:
        DataError: the model can't be loaded.
        ConfigError: an unsupported module of sentence-transformers, or a max_length of special tokens only.
    """

    def __init__(self, path: str, what: str, max_length: int | None = None) -> None:
        modules = _read_json(path, "modules.json", [])
        by_kind = [(str(module["type"]).rsplit(".", 1)[-1], str(module["path"])) for module in modules]
        folder = by_kind[0][1] if by_kind else ""
        self.trunk, self.tokenizer = _load_trunk(path, folder, what)
        self.kind = "encoder" if type(self.trunk).__name__.endswith("EncoderModel") else trunk_kind(self.trunk.config)
        self.modes = ["mean"]
        self.layers: list[Callable[[Tensor], Tensor]] = []
        self.width = int(self.trunk.config.get_text_config().hidden_size)
        for kind, module_folder in by_kind[1:]:
            self._add(kind, path, module_folder, what)
        self.is_sentence_model = bool(by_kind)
        settings = _read_json(path, _join(folder, "sentence_bert_config.json"), {})
        self.is_lower_cased = bool(settings.get("do_lower_case"))
        self.max_length = clamp_length(self.trunk, max_length or settings.get("max_seq_length") or MAX_LENGTH)
        added = self.tokenizer.num_special_tokens_to_add() + self._starts_decoder
        if self.max_length <= added:
            raise ConfigError(f"{what}: {self.max_length} tokens of a text leave none beside the {added} special tokens; allow more")

    @torch.no_grad()
    def encode(
        self,
        texts: Sequence[str],
        *,
        cut_beginning: bool = False,
        batch_size: int = 32,
        progress: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Embed texts as float32 vectors [B, D], in batches of similar length.

        Args:
            cut_beginning: truncate texts beyond `max_length` at their beginning, else at their end.
            progress: called with the number of finished texts after each batch.
        """
        vectors = torch.zeros(len(texts), self.width)
        rows = [self.token_ids(text, cut_beginning=cut_beginning) for text in texts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            vectors[part] = self._embed([rows[i] for i in part])
            if progress is not None:
                progress(start + len(part))
        return vectors

    def token_ids(self, text: str, *, cut_beginning: bool = False) -> list[int]:
        """Encode a text with the tokenizer's special tokens; special-token strings in it are plain text."""
        tokenizer = self.tokenizer
        text = text.lower() if self.is_lower_cased else text
        tokenizer.truncation_side = "left" if cut_beginning else "right"
        limit = self.max_length - (1 if self._starts_decoder else 0)
        ids: list[int] = tokenizer(text, truncation=True, max_length=limit, split_special_tokens=True)["input_ids"]
        if self._starts_decoder and ids[:1] != [tokenizer.bos_token_id]:
            ids = [int(tokenizer.bos_token_id), *ids]
        return ids or [int(tokenizer.eos_token_id or tokenizer.pad_token_id or 0)]

    @property
    def _starts_decoder(self) -> bool:
        """True if begin-of-text is prepended: for decoders without a sentence-transformers folder."""
        return self.kind == "decoder" and not self.is_sentence_model and self.tokenizer.bos_token_id is not None

    def _embed(self, rows: Sequence[list[int]]) -> Tensor:
        """Vectors [B, D] of rows of ids."""
        ids, mask = pad_rows(rows, int(self.tokenizer.pad_token_id or 0))
        hidden = self.trunk(input_ids=ids, attention_mask=mask).last_hidden_state
        if self._starts_decoder:  # begin-of-text counts in empty texts only
            mask[:, 0] = mask.sum(1) == 1
        vectors = torch.cat([_pool(hidden, mask, mode) for mode in self.modes], 1)
        for layer in self.layers:
            vectors = layer(vectors)
        return vectors

    def _add(self, kind: str, path: str, folder: str, what: str) -> None:
        """Append a module of sentence-transformers."""
        settings = _read_json(path, _join(folder, "config.json"), {})
        if kind == "Pooling":
            mode = settings.get("pooling_mode") or [name for switch, name in MODES.items() if settings.get(switch)]
            self.modes = [mode] if isinstance(mode, str) else list(mode)
            unknown = set(self.modes) - set(MODES.values())
            if unknown or not self.modes:
                raise ConfigError(f"{what}: {path!r} pools by {sorted(unknown) or 'nothing'}; supported are {', '.join(MODES.values())}")
            self.width *= len(self.modes)
        elif kind == "Dense":
            layer = _dense(path, folder, settings, what)
            self.layers.append(layer)
            self.width = int(settings["out_features"])
        elif kind == "Normalize":
            self.layers.append(lambda vectors: nn.functional.normalize(vectors, dim=1))
        elif kind != "Dropout":
            raise ConfigError(f"{what}: {path!r} has the module {kind}, and Transformer, Pooling, Dense, Normalize are supported")


def _load_trunk(path: str, folder: str, what: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the frozen trunk in float32 without pooler, and its tokenizer, from a subfolder if given."""
    from transformers import AutoModel, AutoModelForTextEncoding, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES

    location = path
    options: dict[str, Any] = {}
    if folder and Path(path).is_dir():
        location = str(Path(path) / folder)
    elif folder:
        options = {"subfolder": folder}
    config = load_config(location, what, **options)
    # Folders of sentence-transformers contain only the encoder of a T5, and their config names no encoder-decoder.
    is_encoder_alone = MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES.get(config.model_type, "").endswith("EncoderModel")
    auto_class = AutoModelForTextEncoding if is_encoder_alone else AutoModel
    trunk = load_pretrained(auto_class, location, what, dtype=torch.float32, **options)
    if getattr(trunk, "pooler", None) is not None:
        trunk.pooler = None
    if config.is_encoder_decoder and not is_encoder_alone:
        trunk = trunk.get_encoder()
    tokenizer = load_pretrained(AutoTokenizer, location, what, **options)
    check_tokens(trunk, tokenizer, f"{what}: {path!r}")
    return cast("PreTrainedModel", freeze(trunk)), tokenizer


def _pool(hidden: Tensor, mask: Tensor, mode: str) -> Tensor:
    """Pool vectors [B, L, D] of right-padded texts to [B, D] by a mode of sentence-transformers."""
    weights = mask.to(hidden.dtype)[:, :, None]
    if mode == "cls":
        return hidden[:, 0]
    if mode == "lasttoken":
        return hidden[torch.arange(len(hidden)), mask.sum(1) - 1]
    if mode == "max":
        return hidden.masked_fill(mask[:, :, None] == 0, -torch.inf).max(1).values
    if mode == "weightedmean":
        weights = weights * torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype)[None, :, None]
    total, mass = (hidden * weights).sum(1), weights.sum(1)
    return total / (mass.sqrt() if mode == "mean_sqrt_len_tokens" else mass)


def _dense(path: str, folder: str, settings: dict[str, Any], what: str) -> nn.Module:
    """Load a dense layer with its activation from safetensors."""
    from safetensors.torch import load_file

    name = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh")).rsplit(".", 1)[-1]
    if name not in ACTIVATIONS:
        raise ConfigError(f"{what}: {path!r} has a dense layer with the activation {name}; supported are {', '.join(ACTIVATIONS)}")
    weights = find_file(path, _join(folder, "model.safetensors"))
    if weights is None:
        raise DataError(f"{what}: {path!r} has no {_join(folder, 'model.safetensors')}; save the model again with safetensors")
    linear = nn.Linear(settings["in_features"], settings["out_features"], bias=settings.get("bias", True))
    linear.load_state_dict({key.removeprefix("linear."): value.float() for key, value in load_file(weights).items()})
    return freeze(nn.Sequential(linear, ACTIVATIONS[name]()))


def _read_json(path: str, name: str, default: Any) -> Any:
    """Read a JSON file of a folder or Hub model, or return `default`. Raises DataError if it is damaged."""
    file = find_file(path, name)
    if file is None:
        return default
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise DataError(f"{file} is not valid JSON: {cause}") from cause


def _join(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name
