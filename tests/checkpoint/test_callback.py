"""After the state is put back every generator draws what it drew before, also from a file loaded with weights only."""

from __future__ import annotations

import io
import random

import numpy as np
import torch

from rlhf_lightning.checkpoint.callback import random_state, set_random_state


def drawn() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.normal(), torch.rand(()).item(), torch.randn(7)[3].item()]


def test_every_generator_draws_the_same_again():
    for skipped in range(3):
        for _ in range(skipped):
            drawn()  # an odd number of normal draws leaves one in store
        file = io.BytesIO()
        torch.save(random_state(), file)
        first = [drawn() for _ in range(3)]
        file.seek(0)
        set_random_state(torch.load(file, weights_only=True))
        assert [drawn() for _ in range(3)] == first
