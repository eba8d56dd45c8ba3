"""The parameters of a training in groups, and the settings that optimizers and schedules share."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field
from torch import nn

from rlhf_lightning.errors import ConfigError

Beta = Annotated[float, Field(ge=0, lt=1)]
Betas = tuple[Beta, Beta]
NoDecay = Literal["biases", "norms", "embeddings"]
"""Parameters that a setting `no_decay` leaves out of weight decay."""


def _check_warmup(warmup: int | float) -> int | float:
    if not math.isfinite(warmup) or warmup < 0 or (isinstance(warmup, float) and warmup >= 1):
        raise ValueError("give a number of steps (an int >= 0), or a fraction of the training (a float >= 0 and < 1)")
    return warmup


Warmup = Annotated[int | float, AfterValidator(_check_warmup)]
"""The type of a warm-up: steps, or a fraction of the training."""


@dataclass(frozen=True)
class OptimizationDefaults:
    """A training's values for the settings of its optimizer and schedule that are null.

    Attributes:
        warmup: fraction of the training.
    """

    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    weight_decay: float = 0.01
    warmup: float = 0.1


@dataclass(frozen=True)
class TrainedParameter:
    """A parameter of a training.

    Attributes:
        kinds: those of NoDecay that it is.
        is_hidden_matrix: a matrix of a repeated layer: neither embedding, output layer nor head.
    """

    name: str
    parameter: nn.Parameter
    kinds: frozenset[str]
    is_hidden_matrix: bool


@dataclass(frozen=True)
class ParameterGroup:
    """The trained parameters of modules that share a learning rate.

    Attributes:
        name: for logs.
        weight_decay: null: the optimizer's.
    """

    name: str
    members: Sequence[TrainedParameter]
    learning_rate: float
    weight_decay: float | None = None


@dataclass(frozen=True)
class TrainedParameters:
    """The parameters that an optimizer trains, with their learning rates: its first argument.

    Attributes:
        is_fused: torch's optimizers may take their fused kernels.
    """

    groups: Sequence[ParameterGroup]
    defaults: OptimizationDefaults
    is_fused: bool = False

    @property
    def learning_rate(self) -> float:
        """The learning rate of the first group."""
        return self.groups[0].learning_rate

    def param_groups(
        self,
        weight_decay: float | None = None,
        no_decay: Collection[str] = (),
        where: Callable[[TrainedParameter], bool] = lambda parameter: True,
    ) -> list[dict[str, Any]]:
        """The groups of parameters as torch's optimizers take them.

        Args:
            weight_decay: None takes the training's default.
            no_decay: kinds of parameters without weight decay.
            where: selects parameters.
        """
        decay = self.defaults.weight_decay if weight_decay is None else weight_decay
        groups = []
        for group in self.groups:
            group_decay = decay if group.weight_decay is None else group.weight_decay
            members = [member for member in group.members if where(member)]
            plain = [member for member in members if group_decay and member.kinds & set(no_decay)]
            decayed = [member for member in members if not (group_decay and member.kinds & set(no_decay))]
            for name, part, part_decay in ((group.name, decayed, group_decay), (f"{group.name}_no_decay", plain, 0.0)):
                if part:
                    parameters = [member.parameter for member in part]
                    groups.append({"params": parameters, "lr": group.learning_rate, "weight_decay": part_decay, "name": name})
        return groups


def trained_parameters(module: nn.Module, exclude: Collection[nn.Parameter] = ()) -> list[TrainedParameter]:
    """The parameters of a module that take gradients, in its order, without the excluded."""
    members, visited = [], {id(parameter) for parameter in exclude}
    for path, owner in module.named_modules():
        for attribute, parameter in owner.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in visited:
                visited.add(id(parameter))
                name = f"{path}.{attribute}".lstrip(".")
                in_layer = any(part.isdigit() for part in name.split("."))
                is_hidden_matrix = parameter.dim() == 2 and in_layer and not isinstance(owner, nn.Embedding)
                members.append(TrainedParameter(name, parameter, frozenset(_kinds(owner, attribute)), is_hidden_matrix))
    return members


def _kinds(owner: nn.Module, attribute: str) -> Iterator[str]:
    if attribute.endswith("bias"):
        yield "biases"
    if "norm" in type(owner).__name__.lower():
        yield "norms"
    if isinstance(owner, nn.Embedding):
        yield "embeddings"


def warmup_steps(warmup: int | float | None, default: float, steps: int) -> int:
    """Steps of a warm-up, fewer than those of the training.

    A fraction is rounded up, as in transformers.

    Args:
        default: fraction of the training where warmup is None.

    Raises:
        ConfigError: a warm-up as long as the training.
    """
    if isinstance(warmup, int) and warmup >= steps and warmup > 0:
        raise ConfigError(
            f"schedule.warmup={warmup} leaves a training of {steps} steps no step at its full learning rate: give fewer steps, or a "
            "fraction such as schedule.warmup=0.1"
        )
    return warmup if isinstance(warmup, int) else min(math.ceil((default if warmup is None else warmup) * steps), steps - 1)
