"""Checks of the outputs of components from outside the package; errors name the file and line."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from rlhf_lightning.errors import UserError
from rlhf_lightning.flow import Experience, Feedback, Rollout, ScoredRollout
from rlhf_lightning.interfaces import Choice
from rlhf_lightning.isolation.zygote import Isolation

Check = Callable[[Sequence[Any], Any], str]
"""Given the arguments and the output of a call, what was expected; empty if the output is right."""


def guard(label: str, target: Callable[..., Any], group: str, built: Any) -> Any:
    """Check the outputs of a built component at each call. Built-in components are tested instead.

    Args:
        label: the option, as on the command line. target: its class or function. built: an instance of the class, or a partial.
    """
    checks = CHECKS.get(group, {})
    if not checks or target.__module__.startswith("rlhf_lightning."):
        return built
    file, line = inspect.getsourcefile(target), inspect.getsourcelines(target)[1]
    origin = f"{label} ({file}:{line})"
    if isinstance(built, functools.partial):
        if "__call__" not in checks:
            return built
        return CheckedPartial.of(built, functools.partial(check_output, origin, checks["__call__"]))
    if isinstance(built, nn.Module) and "__call__" in checks:
        built.register_forward_hook(functools.partial(_check_forward, origin, checks["__call__"]))
        return built
    methods = {name: _checked_method(getattr(type(built), name), origin, check) for name, check in checks.items() if hasattr(built, name)}
    object.__setattr__(built, "__class__", type(type(built).__name__, (type(built),), methods))
    return built


class CheckedPartial(functools.partial[Any]):
    """A partial whose output is checked.

    Attributes:
        check: called with the arguments and the output, which it returns.
    """

    check: Callable[[Sequence[Any], Any], Any]

    @classmethod
    def of(cls, function: functools.partial[Any], check: Callable[[Sequence[Any], Any], Any]) -> CheckedPartial:
        checked = cls(function.func, *function.args, **function.keywords)
        checked.check = check
        return checked

    def __call__(self, /, *args: Any, **keywords: Any) -> Any:
        return self.check(args, super().__call__(*args, **keywords))


def check_output(origin: str, check: Check, args: Sequence[Any], output: Any) -> Any:
    """Return the output, or a checked iterator. Raises UserError if it is wrong."""
    if isinstance(output, Iterator):
        return _checked_items(origin, check, args, output)
    expected = check(args, output)
    if expected:
        raise UserError(f"{origin} returned {describe(output)}; it must return {expected}")
    return output


def describe(output: Any) -> str:
    """An output for a message: the shape of a tensor, the types of a tuple's parts."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {list(output.shape)}"
    if isinstance(output, tuple):
        return f"({', '.join(map(describe, output))})"
    if isinstance(output, ScoredRollout):
        shapes = {name: list(value.shape) for name, value in vars(output).items() if isinstance(value, Tensor) and value.dim() == 2}
        return f"{type(output).__name__} with {', '.join(f'{name} {shape}' for name, shape in shapes.items())}"
    return "None" if output is None else f"{type(output).__name__} {output!r:.60}"


def _checked_items(origin: str, check: Check, args: Sequence[Any], items: Iterable[Any]) -> Iterable[Any]:
    for item in items:
        expected = check(args, [item])
        if expected:
            raise UserError(f"{origin} yielded {describe(item)}; it must return {expected}")
        yield item


def _check_forward(origin: str, check: Check, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    check_output(origin, check, args, output)


def _checked_method(method: Callable[..., Any], origin: str, check: Check) -> Callable[..., Any]:
    @functools.wraps(method)
    def checking(self: Any, *args: Any, **keywords: Any) -> Any:
        return check_output(origin, check, args, method(self, *args, **keywords))

    return checking


def _has_shape(output: Any, shape: Sequence[int]) -> bool:
    return isinstance(output, Tensor) and tuple(output.shape) == tuple(shape)


def _record(expected: type) -> Check:
    """A check for a record of the given rollout's rows and tokens."""

    def check(args: Sequence[Any], output: Any) -> str:
        shape = args[-1].response_mask.shape
        names = [name for name in ("rewards", "advantages", "returns") if getattr(output, name, None) is not None]
        if isinstance(output, expected) and all(_has_shape(getattr(output, name), shape) for name in names):
            return ""
        return f"{expected.__name__} with {', '.join(names or ['rewards'])} of shape [B, T] = {list(shape)}"

    return check


def _per_token(args: Sequence[Any], output: Any) -> str:
    shape = args[0].response_mask.shape
    if isinstance(output, tuple) and len(output) == 2 and _has_shape(output[0], shape) and isinstance(output[1], Mapping):
        wrong = [name for name, value in output[1].items() if not (isinstance(value, Tensor) and value.numel() == 1)]
        return f"metrics that are tensors of one number; {wrong[0]!r} is {describe(output[1][wrong[0]])}" if wrong else ""
    return f"a tensor [B, T] = {list(shape)} and a dict of metrics"


def _values(args: Sequence[Any], output: Any) -> str:
    return "" if _has_shape(output, (len(args[-1]),)) else f"a tensor [B] = [{len(args[-1])}], a value for each response"


def _rollout(args: Sequence[Any], output: Any) -> str:
    rows = len(args[-1])
    if isinstance(output, Rollout) and len(output.responses) == rows:
        shape = output.response_ids.shape
        if len(shape) == 2 and shape[0] == rows and all(_has_shape(x, shape) for x in (output.response_mask, output.sampled_log_probs)):
            return ""
    return f"a Rollout of {rows} responses, with response_ids, response_mask and sampled_log_probs of one shape [B, T]"


def _score_rows(args: Sequence[Any], output: Any) -> str:
    texts, output = args[0].shape[0], getattr(output, "scores", output)
    right = isinstance(output, Tensor) and output.dim() and output.shape[0] == texts
    return "" if right else f"a tensor [U], a score for each of {texts} texts"


def _pooled_rows(args: Sequence[Any], output: Any) -> str:
    hidden = args[-2]
    right = isinstance(output, Tensor) and output.dim() == 2 and output.shape[0] == hidden.shape[0]
    return "" if right else f"a tensor [U, D], a vector for each of {hidden.shape[0]} texts"


def _losses(args: Sequence[Any], output: Any) -> str:
    right = isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor) and output[0].dim() == 1
    return "" if right and _has_shape(output[1], output[0].shape) else "two tensors [J]: the judgements' losses and their weights"


def _returns(expected: str, is_right: Callable[[Any], bool]) -> Check:
    """A check of the output alone."""
    return lambda args, output: "" if is_right(output) else expected


_number = _returns("a number", lambda output: isinstance(output, int | float) and not isinstance(output, bool))
_feedback = _returns(
    "Feedback records",
    lambda output: output is None or (isinstance(output, Iterable) and all(isinstance(item, Feedback) for item in output)),
)
_tuned_model = _returns("nothing, or the model", lambda output: output is None or isinstance(output, nn.Module))
_list = _returns("a list", lambda output: isinstance(output, list))
CHECKS: dict[str, dict[str, Check]] = {
    "advantage": {"__call__": _record(Experience)},
    "rollout_shaping": {"__call__": _record(ScoredRollout)},
    "rollout_sampler": {"__call__": _rollout},
    "policy_loss": {"__call__": _per_token},
    "policy_value_loss": {"__call__": _per_token},
    "policy_correction": {"__call__": _per_token},
    "policy_reduction": {"__call__": _returns("a tensor with one number, shape []", lambda output: _has_shape(output, ()))},
    "policy_kl": {
        "shape_rewards": _record(ScoredRollout),
        "per_token_loss": lambda args, output: "" if output is None else _per_token(args, output),
    },
    "policy_kl_control": {"value": _number},
    "evaluation_metric": {"__call__": _values},
    "reward_pooling": {"__call__": _pooled_rows},
    "reward_head": {"__call__": _score_rows},
    "reward_loss": {"__call__": _losses},
    "preference_loss": {
        "__call__": _returns("a tensor [J], a loss for each judgement", lambda output: isinstance(output, Tensor) and output.dim() == 1)
    },
    "optimizer": {"__call__": _returns("a torch.optim.Optimizer", lambda output: isinstance(output, Optimizer))},
    "schedule": {"__call__": _returns("a torch.optim.lr_scheduler.LRScheduler", lambda output: isinstance(output, LRScheduler))},
    "policy_critic": {"__call__": _returns("a Critic", lambda output: isinstance(output, nn.Module))},
    "policy_tuning": {"__call__": _tuned_model},
    "reward_tuning": {"__call__": _tuned_model},
    "reward_feature": {
        "__call__": _returns(
            "a number", lambda output: hasattr(output, "__len__") or (isinstance(output, int | float) and not isinstance(output, bool))
        )
    },
    "backbone": {
        "__call__": _returns(
            "a LanguageModel, or (trunk, tokenizer)",
            lambda output: hasattr(output, "model") or (isinstance(output, tuple) and len(output) == 2),
        )
    },
    "feedback_source": {
        "__call__": _returns(
            "rows (feedback.row.Row)", lambda output: isinstance(output, Iterable) and all(hasattr(item, "origin") for item in output)
        )
    },
    "feedback_format": {"__call__": _feedback},
    "feedback_filter": {"__call__": _feedback},
    "feedback_comment": {"__call__": _number},
    "collect_question": {"feedback": _feedback},
    "feedback_annotator": {"judge": _feedback},
    "feedback_selection": {
        "__call__": _returns(
            "a list of Choice", lambda output: isinstance(output, list) and all(isinstance(item, Choice) for item in output)
        )
    },
    "task": {"train_prompts": _list, "test_prompts": _list, "demonstrations": _list},
    "stage": {"__call__": _number},
    "sandbox": {"isolation": _returns("an Isolation", lambda output: isinstance(output, Isolation))},
}
"""By group and method; scorers are checked in rollout/scoring.py, callbacks in runtime/run.py."""
