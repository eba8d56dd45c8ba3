"""Logits from a trunk's vectors, equal to the model's own forward.

The form cap · tanh((scale · W h + b) / cap) is read from the config and compared with the model's own code on vectors with large
logits, where a cap shows. A model of another form runs its own code after a trunk that is replaced by the vectors.

Shapes: n tokens, D width, V vocabulary.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from rlhf_lightning.model.token_log_probs import softcap, token_log_probs
from rlhf_lightning.model.trial import READ_ERRORS, agree, trial
from rlhf_lightning.tensors import entropy_of, log_probs_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CAPS = ("final_logit_softcapping", "logits_soft_cap", "output_logit_soft_cap")
FACTORS = ("logit_scale", "lm_head_multiplier", "output_multiplier")
DIVISORS = ("logits_scaling",)
"""Config keys of transformations of the logits."""
MAGNITUDES = (0.1, 1.0, 30.0, 300.0)
"""Root mean squares of the logits at which forms are compared."""


@dataclass(frozen=True)
class LogitForm:
    """cap · tanh((scale · W h + b) / cap), W the output layer.

    Attributes:
        cap: None caps nothing.
        is_biased: b is the model's constant `final_logits_bias` (BART, Marian), else 0 besides the layer's own.
    """

    scale: float = 1.0
    cap: float | None = None
    is_biased: bool = False


_forms: weakref.WeakKeyDictionary[nn.Module, LogitForm | None] = weakref.WeakKeyDictionary()
"""By model; None if its own head is run."""


def trunk_of(model: PreTrainedModel) -> PreTrainedModel:
    """The model without its output layer; the model itself if it has no such part (T5)."""
    trunk: PreTrainedModel = model.base_model
    if trunk is model and not getattr(model.config, "is_encoder_decoder", False):  # base_model_prefix names no part (Llama 4)
        trunk = next((part for name, part in model.named_children() if name in ("model", "transformer")), model)
    return trunk


def output_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """[..., D] vectors of the trunk to logits [..., V], in the model's precision."""
    form = logit_form(model)
    return native_logits(model, hidden) if form is None else _logits(model, hidden, form)


def output_log_probs(
    model: PreTrainedModel, hidden: Tensor, tokens: Tensor, temperature: float = 1.0, entropy: bool = True
) -> tuple[Tensor, Tensor | None]:
    """log softmax(logits / temperature) at the tokens and entropies in nats, [n], float32 at least.

    Args:
        hidden: [n, D] vectors of the trunk.
        tokens: [n].
    """
    form = logit_form(model)
    if form is None:
        logits = native_logits(model, hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature
        return log_probs_of(logits, tokens), entropy_of(logits) if entropy else None
    layer: Any = model.get_output_embeddings()
    return token_log_probs(layer, _scale(model, hidden, form), tokens, temperature, entropy, cap=form.cap, bias=_bias(model, form))


def logit_form(model: PreTrainedModel) -> LogitForm | None:
    """The form of a model's logits, tried once, then cached; None if the model's own head must run."""
    if model not in _forms:
        if not _is_real(model):
            return read_form(model)
        _forms[model] = _find_form(model)
    return _forms[model]


def read_form(model: PreTrainedModel) -> LogitForm:
    """The form by the model's config."""
    config = model.config.get_text_config(decoder=True)
    values: list[tuple[str, Any]] = [(name, getattr(config, name, None)) for name in (*CAPS, *FACTORS, *DIVISORS)]
    numbers = {name: float(value) for name, value in values if isinstance(value, int | float) and value}
    scale = 1.0
    for name in FACTORS:
        scale *= numbers.get(name, 1.0)
    for name in DIVISORS:
        scale /= numbers.get(name, 1.0)
    cap = next((numbers[name] for name in CAPS if name in numbers), None)
    return LogitForm(scale, cap, isinstance(getattr(model, "final_logits_bias", None), Tensor))


def before_output(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The input [..., D] of the output layer: after BERT's transform layer, or scaled (T5)."""
    predictions: Any = getattr(getattr(model, "cls", None), "predictions", None)
    if hasattr(predictions, "transform"):
        transformed: Tensor = predictions.transform(hidden)
        return transformed
    width = int(model.config.get_text_config(decoder=True).hidden_size)
    return hidden * width**-0.5 if getattr(model.config, "scale_decoder_outputs", False) else hidden


def native_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """The logits [..., V] of the model's own forward for a trunk's vectors [..., D]."""
    rows = hidden.reshape(1, -1, hidden.shape[-1])
    ids = torch.zeros(rows.shape[:2], dtype=torch.long, device=hidden.device)
    if getattr(model.config, "is_encoder_decoder", False):
        trunks, inputs = [model.get_decoder()], {"encoder_outputs": (rows[:, :1],), "decoder_input_ids": ids}
    else:
        trunks, inputs = [trunk_of(model), model.get_decoder()], {"input_ids": ids}  # OPT and BART call the decoder in their trunk
    with _replace_outputs([trunk for trunk in trunks if trunk is not model], rows):
        logits: Tensor = model(**inputs, use_cache=False).logits
    return logits.reshape(*hidden.shape[:-1], logits.shape[-1])


class _Vectors(tuple[Tensor]):
    """A trunk's output: its vectors, and None for every other attribute."""

    @property
    def last_hidden_state(self) -> Tensor:
        return self[0]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


@contextmanager
def _replace_outputs(trunks: Sequence[nn.Module], hidden: Tensor) -> Iterator[None]:
    """Make the trunks return these vectors for any input inside the context."""
    shadowed = {trunk: trunk.__dict__.get("forward") for trunk in trunks}
    for trunk in shadowed:
        trunk.__dict__["forward"] = lambda *args, **kwargs: _Vectors((hidden,))
    try:
        yield
    finally:
        for trunk, forward in shadowed.items():
            del trunk.__dict__["forward"]
            if forward is not None:
                trunk.__dict__["forward"] = forward


def _logits(model: PreTrainedModel, hidden: Tensor, form: LogitForm) -> Tensor:
    layer: Any = model.get_output_embeddings()
    logits: Tensor = layer(_scale(model, hidden, form))
    bias = _bias(model, form)
    if bias is not None:
        logits = logits + bias
    return logits if form.cap is None else softcap(logits, form.cap)


def _scale(model: PreTrainedModel, hidden: Tensor, form: LogitForm) -> Tensor:
    inputs = before_output(model, hidden)
    return inputs if form.scale == 1 else inputs * form.scale


def _bias(model: PreTrainedModel, form: LogitForm) -> Tensor | None:
    bias: Any = model.final_logits_bias if form.is_biased else None
    return None if bias is None else bias.reshape(-1)


def _is_real(model: PreTrainedModel) -> bool:
    """True unless the weights are fake or meta tensors, as in a plan."""
    from torch._subclasses.fake_tensor import FakeTensor

    weight = next(model.parameters())
    return not (weight.is_meta or isinstance(weight, FakeTensor))


def _find_form(model: PreTrainedModel) -> LogitForm | None:
    """The form that gives the model's own logits at all of MAGNITUDES; None if none does."""
    if model.get_output_embeddings() is None:
        return None
    config_form = read_form(model)
    with trial(model):
        hidden = _trial_vectors(model)
        try:
            expected = [native_logits(model, part) for part in hidden]
        except READ_ERRORS:
            return config_form  # `check_output_layer` compares it with the model's complete forward pass
        for form in (config_form, LogitForm(), _fit_scale(model, config_form, hidden[0], expected[0])):
            if all(_agrees(model, part, form, logits) for part, logits in zip(hidden, expected, strict=True)):
                return form
    return None


def _agrees(model: PreTrainedModel, hidden: Tensor, form: LogitForm, expected: Tensor) -> bool:
    try:
        return agree(_logits(model, hidden, form), expected)
    except (TypeError, ValueError, RuntimeError):
        return False


def _trial_vectors(model: PreTrainedModel) -> list[Tensor]:
    """Random vectors [8, D] for each of MAGNITUDES of the logits."""
    weight = model.get_output_embeddings().weight
    generator = torch.Generator().manual_seed(0)
    width = int(trunk_of(model).config.get_text_config(decoder=True).hidden_size)
    vectors = torch.randn(8, width, generator=generator).to(weight.device, weight.dtype)
    size = weight.float().norm(dim=1).square().mean().sqrt().clamp(min=1e-6).to(weight.dtype)
    return [vectors * (magnitude / size) for magnitude in MAGNITUDES]


def _fit_scale(model: PreTrainedModel, form: LogitForm, hidden: Tensor, expected: Tensor) -> LogitForm:
    """Fit the form's scale to small logits by least squares."""
    try:
        plain = _logits(model, hidden, LogitForm(is_biased=form.is_biased)).double()
    except (TypeError, ValueError, RuntimeError):
        return form
    scale = (plain * expected.double()).sum() / plain.square().sum().clamp(min=1e-30)
    return LogitForm(float(scale), form.cap, form.is_biased)
