from __future__ import annotations

import math

import pytest
import torch

from rlhf_lightning.tensors import entropy_of, kl_estimate, log_probs_of, masked_mean, masked_var, masked_whiten

VALUES = torch.tensor([[1.0, 2.0, float("nan")], [6.0, float("inf"), -9.0]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


class TestMasked:
    @pytest.mark.parametrize("dtype", [torch.bool, torch.long, torch.float32])
    def test_mean_and_variance_of_what_is_inside(self, dtype: torch.dtype) -> None:
        assert masked_mean(VALUES, MASK.to(dtype)) == 3.0
        assert masked_mean(VALUES, MASK.to(dtype), dim=1).tolist() == [1.5, 6.0]
        assert masked_var(VALUES, MASK.to(dtype)) == pytest.approx(7.0)
        assert masked_var(VALUES, MASK.to(dtype), unbiased=False) == pytest.approx(14 / 3)

    def test_nothing_inside_is_0_with_zero_gradient(self) -> None:
        values = torch.ones(2, 3, requires_grad=True)
        mean = masked_mean(values, torch.zeros(2, 3))
        mean.backward()
        assert mean == 0
        assert torch.equal(values.grad, torch.zeros(2, 3))  # type: ignore[arg-type]
        assert masked_mean(values, torch.tensor([[1, 1, 1], [0, 0, 0]]), dim=1).tolist() == [1.0, 0.0]

    def test_a_gradient_from_inside_is_not_touched_by_junk_outside(self) -> None:
        values = VALUES.clone().requires_grad_()
        masked_mean(values, MASK).backward()
        assert torch.equal(values.grad, MASK / 3)  # type: ignore[arg-type]

    def test_one_token_has_no_variance(self) -> None:
        assert masked_var(VALUES, torch.tensor([[1, 0, 0], [0, 0, 0]])) == 0

    @pytest.mark.parametrize("shift_mean", [True, False])
    def test_whitening(self, shift_mean: bool) -> None:
        inside = masked_whiten(VALUES, MASK, shift_mean)[MASK.bool()]
        assert inside.std() == pytest.approx(1.0, abs=1e-6)
        assert inside.mean() == pytest.approx(0.0 if shift_mean else 3.0, abs=1e-6)
        assert inside.argsort().tolist() == [0, 1, 2]


class TestLogProbs:
    @pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)])
    def test_it_is_log_softmax_at_the_token(self, dtype: torch.dtype, within: float) -> None:
        torch.manual_seed(0)
        logits, tokens = torch.randn(3, 4, 17, dtype=torch.float64), torch.randint(17, (3, 4))
        given = logits.to(dtype)
        before = given.clone()
        chosen = log_probs_of(given, tokens)
        expected = torch.log_softmax(logits, -1).gather(-1, tokens[..., None])[..., 0]
        assert (chosen.double() - expected).abs().max() < within * 3
        assert chosen.dtype == (torch.float64 if dtype is torch.float64 else torch.float32)
        assert torch.equal(given, before)

    def test_huge_logits_do_not_overflow(self) -> None:
        logits = torch.tensor([[1e4, 0.0, -1e4], [0.0, float("-inf"), 0.0]])
        assert log_probs_of(logits, torch.tensor([1, 0])).tolist() == pytest.approx([-1e4, -math.log(2)])

    def test_entropy_is_that_of_the_distribution(self) -> None:
        assert entropy_of(torch.zeros(2, 5)).tolist() == pytest.approx([math.log(5)] * 2)
        assert entropy_of(torch.tensor([100.0, 0.0])) == pytest.approx(0.0, abs=1e-6)
        half = torch.tensor([0.5, 0.25, 0.25])
        assert entropy_of(half.log()) == pytest.approx(1.5 * math.log(2))


class TestKL:
    def test_the_estimates_of_one_token(self) -> None:
        new, ref = torch.tensor(-1.0), torch.tensor(-1.5)
        assert kl_estimate(new, ref, "k1") == 0.5
        assert kl_estimate(new, ref, "k2") == 0.125
        assert kl_estimate(new, ref, "k3") == pytest.approx(math.exp(-0.5) - 1 + 0.5)

    def test_k1_and_k3_are_unbiased(self) -> None:
        new, ref = torch.log_softmax(torch.tensor([[0.3, -1.0, 2.0], [1.0, 0.0, 0.5]], dtype=torch.float64), -1)
        exact = (new.exp() * (new - ref)).sum()
        for estimator in ("k1", "k3"):
            assert (new.exp() * kl_estimate(new, ref, estimator)).sum() == pytest.approx(exact.item(), rel=1e-12)

    def test_k3_is_never_negative_and_exact_for_small_ratios(self) -> None:
        ratio = torch.tensor([-5.0, -1e-4, 0.0, 1e-4, 5.0])
        estimate = kl_estimate(ratio, torch.zeros(5), "k3")
        assert (estimate >= 0).all()
        assert estimate[1:4].tolist() == pytest.approx([5e-9, 0.0, 5e-9], rel=1e-2)

    def test_an_unknown_estimator_is_refused(self) -> None:
        with pytest.raises(ValueError, match="k1, k2, k3"):
            kl_estimate(torch.zeros(1), torch.zeros(1), "k4")
