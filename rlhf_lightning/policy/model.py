"""The policy: a language model, and a critic if the advantage estimator needs one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from rlhf_lightning.flow import Rollout
from rlhf_lightning.model.adapters import without_adapters
from rlhf_lightning.model.language_model import LanguageModel, freeze
from rlhf_lightning.model.packing import PackedTokens
from rlhf_lightning.model.text_vectors import text_vectors
from rlhf_lightning.model.token_log_probs import response_log_probs


class PolicyOutput(NamedTuple):
    """Outputs of a forward pass for the response tokens, each [B, T] and 0 outside the mask.

    Entropy is None unless requested, values without a critic.
    """

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
    """A linear value head on the policy's trunk or on a separate one (policy/critic/).

    Details: docs/ppo_details.md#value-head-starts-at-0.

    Args:
        head: from vectors [n, D] to values [n, 1].
        trunk: None for the policy's.
        warmup: updates at the start that train only the critic.
    """

    def __init__(self, head: nn.Linear, trunk: nn.Module | None = None, warmup: int = 0) -> None:
        super().__init__()
        self.trunk, self.head, self.warmup = trunk, head, warmup

    def forward(self, tokens: PackedTokens, positions: Tensor, policy_hidden: Tensor) -> Tensor:
        """Values [n] at positions of the packed row; policy_hidden [n, D] are the policy's vectors there."""
        if self.trunk is not None:
            policy_hidden = text_vectors(self.trunk, tokens).index_select(0, positions)
        values: Tensor = self.head(policy_hidden.to(self.head.weight.dtype)).squeeze(-1)
        return values.float()


class Policy(nn.Module):
    """Log-probabilities, entropies and values of a rollout's response tokens in one forward pass.

    Prompts and responses run without padding if the model supports it (model.packing); the output layer runs only at positions that
    predict a response token.
    """

    def __init__(self, language_model: LanguageModel, critic: Critic | None = None) -> None:
        super().__init__()
        self.language_model = language_model
        self.model = language_model.model
        self.critic = critic

    def forward(self, rollout: Rollout, entropy: bool = True, values: bool = True) -> PolicyOutput:
        tokens, positions, inside = response_positions(rollout, self.language_model.decoder_prefix)
        hidden = text_vectors(self.language_model.trunk, tokens).index_select(0, positions)
        log_probs, entropies = self.language_model.log_probs(hidden, rollout.response_ids[inside], rollout.temperature, entropy)
        return PolicyOutput(
            log_probs=_scatter(log_probs, inside),
            entropy=None if entropies is None else _scatter(entropies, inside),
            values=None if self.critic is None or not values else _scatter(self.critic(tokens, positions, hidden), inside),
        )

    def sequence_log_probs(self, tokens: PackedTokens) -> tuple[Tensor, Tensor]:
        """`response_log_probs` of texts outside a rollout."""
        return response_log_probs(self.language_model, tokens)


class StartPolicy(nn.Module):
    """The policy at the start of LoRA training: the same weights with the adapters switched off.

    It has no parameters: freezing it or moving it doesn't touch the policy.
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
    """The frozen reference: the policy without adapters if both are one model, else the reference model."""
    return StartPolicy(Policy(policy)) if reference.model is policy.model else freeze(Policy(reference))


def response_positions(rollout: Rollout, decoder_prefix: list[int] | None = None) -> tuple[PackedTokens, Tensor, Tensor]:
    """Concatenate prompts and responses without padding.

    Args:
        decoder_prefix: of an encoder-decoder: precedes each response instead of the prompt, which is the encoder's input.

    Returns:
        the B texts; [n] the positions in the packed row that predict each response token, in the order of the mask; and the mask as
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


def _scatter(values: Tensor, inside: Tensor) -> Tensor:
    """Scatter values of the masked positions to [B, T], 0 elsewhere."""
    return torch.zeros(inside.shape, dtype=values.dtype, device=values.device).masked_scatter(inside, values)
