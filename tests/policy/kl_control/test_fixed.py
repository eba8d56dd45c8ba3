from __future__ import annotations

import torch

from rlhf_lightning.policy.kl_control.fixed import FixedKL


def test_it_stays() -> None:
    control = FixedKL(coef=0.07)
    control.update(kl=100.0, responses=64)
    assert control.value() == 0.07


def test_it_is_in_the_checkpoint_to_the_last_bit(tmp_path: object) -> None:
    path = f"{tmp_path}/state.pt"
    torch.save(FixedKL(coef=0.1 + 1e-16).state_dict(), path)
    restored = FixedKL(coef=0.5)
    restored.load_state_dict(torch.load(path, weights_only=True))
    assert restored.value() == 0.1 + 1e-16
