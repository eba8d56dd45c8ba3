"""The policy: a language model, and a critic where the estimator wants one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlhf_lightning.flow import Rollout
from rlhf_lightning.model.adapters import without_adapters
from rlhf_lightning.model.language_model import LanguageModel, freeze
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.response_log_probs import response_log_probs
from rlhf_lightning.model.text_vectors import text_vectors


class PolicyOutput(NamedTuple):
    """What a forward pass says about the response tokens, each [B, T] and 0 outside the mask; None where nobody asked or nothing can tell:
    entropy, and values without a critic."""

    log_probs: Tensor
    entropy: Tensor | None
    values: Tensor | None


def zero_init_value_head(width: int) -> nn.Linear:
    """A value head that starts at 0 (Ziegler et al. 2019; Huang et al. 2024)."""
    head = nn.Linear(width, 1)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class Critic(nn.Module):
    """A linear value on hidden states: of the policy's trunk, or of a trunk of its own. The options are in policy/critic/.

    Args:
        head: from vectors [n, D] to values [n, 1].
        trunk: its own; None reads the policy's.
        warmup: updates at the start in which it learns and the policy is held.
    """

    def __init__(self, head: nn.Linear, trunk: nn.Module | None = None, warmup: int = 0) -> None:
        super().__init__()
        self.trunk, self.head, self.warmup = trunk, head, warmup

    def forward(self, tokens: PackedTokens, places: Tensor, policy_hidden: Tensor) -> Tensor:
        """Values [n] at the places of the packed row, which the policy's own vectors [n, D] stand for."""
        if self.trunk is not None:
            policy_hidden = text_vectors(self.trunk, tokens).index_select(0, places)
        values: Tensor = self.head(policy_hidden.to(self.head.weight.dtype)).squeeze(-1)
        return values.float()


class Policy(nn.Module):
    """Log-probabilities, entropies and values of a rollout's response tokens in one forward pass.

    Prompts and responses run without padding where the model can (backbone.packing), and the output layer only where a response token is
    predicted.
    """

    def __init__(self, language_model: LanguageModel, critic: Critic | None = None) -> None:
        super().__init__()
        self.language_model = language_model
        self.model = language_model.model
        self.critic = critic

    def forward(self, rollout: Rollout, entropy: bool = True, values: bool = True) -> PolicyOutput:
        tokens, places, inside = response_places(rollout, self.language_model.decoder_prefix)
        hidden = text_vectors(self.language_model.trunk, tokens).index_select(0, places)
        log_probs, entropies = self.language_model.log_probs(hidden, rollout.response_ids[inside], rollout.temperature, entropy)
        return PolicyOutput(
            log_probs=_spread(log_probs, inside),
            entropy=None if entropies is None else _spread(entropies, inside),
            values=None if self.critic is None or not values else _spread(self.critic(tokens, places, hidden), inside),
        )

    def sequence_log_probs(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        """`response_log_probs` of texts that aren't a rollout's."""
        return response_log_probs(self.language_model, tokens)


class StartPolicy(nn.Module):
    """A policy as it was before its adapters were trained: the same weights in memory, read with the adapters switched off.

    It has no parameters of its own, so that freezing it or moving it leaves the policy alone.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = (policy,)  # in a tuple: no submodule

    def forward(self, rollout: Rollout, entropy: bool = True) -> PolicyOutput:
        (policy,) = self._policy
        with without_adapters(policy.model):
            output: PolicyOutput = policy(rollout, entropy, values=False)
        return output


def reference_policy(policy: LanguageModel, reference: LanguageModel) -> nn.Module:
    """The frozen reference: the policy's own start where both are the same model, else the other one."""
    return StartPolicy(Policy(policy)) if reference.model is policy.model else freeze(Policy(reference))


def response_places(rollout: Rollout, decoder_prefix: list[int] | None = None) -> tuple[PackedTokens, Tensor, Tensor]:
    """Prompts and responses joined, without any padding.

    Args:
        decoder_prefix: of an encoder-decoder: stands before each response instead of the prompt, which is the texts' context.

    Returns:
        the B texts; [n] the places in their row of the vectors that predict each response token, in the order of the mask; and the mask as
        booleans [B, T].
    """
    inside = rollout.response_mask.bool()
    before, before_mask, context = rollout.prompt_ids, rollout.prompt_mask.bool(), None
    if decoder_prefix is not None:
        context = PackedTokens(before[before_mask], before_mask.sum(1))
        before = before.new_tensor(decoder_prefix).expand(len(rollout), -1)
        before_mask = torch.ones_like(before, dtype=torch.bool)
    real = torch.cat([before_mask, inside], dim=1)
    ids = torch.cat([before, rollout.response_ids], dim=1)[real]
    is_response = torch.cat([torch.zeros_like(before_mask), inside], dim=1)[real]
    return PackedTokens(ids, real.sum(1), context=context), is_response.nonzero()[:, 0] - 1, inside


def _spread(values: Tensor, inside: Tensor) -> Tensor:
    """Values of the masked positions, in order, laid out as [B, T] with 0 elsewhere."""
    return torch.zeros(inside.shape, dtype=values.dtype, device=values.device).masked_scatter(inside, values)
