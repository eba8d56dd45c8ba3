"""The policy: a language model, and a critic where the estimator wants one."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rlhf_lightning.backbone.language_model import LanguageModel
from rlhf_lightning.flow import Rollout
from rlhf_lightning.tensors import entropy_of, log_probs_of


@dataclass
class PolicyOutput:
    """What a forward pass says about the response tokens, each [B, T] and 0 outside the mask; values None without a critic."""

    log_probs: Tensor
    entropy: Tensor
    values: Tensor | None


class Critic(nn.Module):
    """A linear value on hidden states: of the policy's trunk ("shared") or of a trunk of its own ("separate").

    The head starts at zero (Ziegler et al. 2019; Huang et al. 2024): a shared trunk gets no gradient from a critic that knows nothing
    yet. From N(0, 1/(D+1)) the first updates moved the policy by 20 nats a response for nothing.
    """

    def __init__(self, language_model: LanguageModel, separate: bool) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(language_model.model.base_model) if separate else None
        self.head = nn.Linear(language_model.width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, sequences: Tensor, places: tuple[Tensor, Tensor], policy_hidden: Tensor) -> Tensor:
        if self.trunk is not None:
            policy_hidden = self.trunk(input_ids=sequences, use_cache=False).last_hidden_state[places]
        values: Tensor = self.head(policy_hidden.to(self.head.weight.dtype)).squeeze(-1)
        return values.float()


class Policy(nn.Module):
    """Log-probabilities, entropies and values of a rollout's response tokens in one forward pass.

    The output layer runs only where a response token is predicted.
    """

    def __init__(self, language_model: LanguageModel, critic: Critic | None = None) -> None:
        super().__init__()
        self.language_model = language_model
        self.model = language_model.model
        self.critic = critic

    def forward(self, rollout: Rollout) -> PolicyOutput:
        sequences, places, inside = response_places(rollout, self.language_model.pad_id)
        hidden = self.language_model.hidden_states(sequences)[places]
        logits = self.language_model.logits(hidden).float() / rollout.temperature
        tokens = rollout.response_ids[inside]
        values = None if self.critic is None else _spread(self.critic(sequences, places, hidden), inside)
        return PolicyOutput(_spread(log_probs_of(logits, tokens), inside), _spread(entropy_of(logits), inside), values)


def response_places(rollout: Rollout, pad: int) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
    """Prompt and response joined without the prompt's left padding.

    Returns:
        sequences [B, L] right-padded with `pad`; (row, column) of the hidden states that predict each response token, in the order of
        the mask; and the mask as booleans [B, T].
    """
    prompt_lengths = rollout.prompt_mask.sum(1)
    response_lengths = rollout.response_mask.sum(1)
    length = int((prompt_lengths + response_lengths).max())
    sequences = rollout.response_ids.new_full((len(rollout), length), pad)
    columns = torch.arange(length, device=sequences.device)
    in_prompt = columns < prompt_lengths[:, None]
    in_response = (columns >= prompt_lengths[:, None]) & (columns < (prompt_lengths + response_lengths)[:, None])
    inside = rollout.response_mask.bool()
    sequences[in_prompt] = rollout.prompt_ids[rollout.prompt_mask.bool()]
    sequences[in_response] = rollout.response_ids[inside]
    rows, ends = in_response.nonzero(as_tuple=True)
    return sequences, (rows, ends - 1), inside


def _spread(values: Tensor, inside: Tensor) -> Tensor:
    """Values of the masked positions, in order, laid out as [B, T] with 0 elsewhere."""
    return torch.zeros(inside.shape, dtype=values.dtype, device=values.device).masked_scatter(inside, values)
