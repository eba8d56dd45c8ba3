"""Sums that hold and sums that don't."""

from __future__ import annotations

import math

import pytest

from rlhf_lightning.reward.feature.numbers import Numbers


def of(response: str, prompt: str = "") -> dict[str, float]:
    return dict(zip(Numbers.names, Numbers()(prompt, response), strict=True))


@pytest.mark.parametrize(
    "text",
    [
        "3 x 4 = 12",
        "<<100/5=20.0>>20",
        "He pays $1,200 + $300 = $1,500 now",
        "60/100 * 140 = 84.0",
        "(2+3)*4=20",
        "1/3 = .33",
        "20% * 50 = 10",
        "5 - -3 = 8",
        "so 7 × 6 ÷ 2 = 21.",
        "In 2012 3 x 4 = 12",
        "there are 5. 2 + 2 = 4",
    ],
)
def test_right_sums(text):
    found = of(text)
    assert (found["log right sums"], found["wrong sums"]) == (pytest.approx(math.log(2)), 0)


@pytest.mark.parametrize("text", ["3 x 4 = 13", "<<100/5=25>>", "(2+3)*4 = 14", "1/3 = .5"])
def test_wrong_sums(text):
    found = of(text)
    assert (found["log right sums"], found["wrong sums"], found["log wrong sums"]) == (0, 1, pytest.approx(math.log(2)))


@pytest.mark.parametrize(
    "text", ["x = 5", "5 = 5", "a / b = 3", "1/0 = 3", "((2 = 3", "2++ = 4", "1+" * 500 + "1 = 501", "2 + 2 =", "= 4", ""]
)
def test_what_is_no_sum_is_passed_over(text):
    found = of(text)
    assert (found["log right sums"], found["log wrong sums"]) == (0, 0)


def test_the_share_of_wrong_ones():
    assert of("1+1=2, 2+2=4, 3+3=7 and 1*1=1")["wrong sums"] == pytest.approx(1 / 4)


def test_the_last_number():
    found = of("4 + 0.5 = 4.5, so 7 of 4.5", prompt="give 7")
    assert (found["the last number is whole"], found["the last number was there before"], found["the last number is the prompt's"]) == (
        0,
        1,
        0,
    )
    assert found["log of the last number"] == pytest.approx(math.log(5.5))
    found = of("A: 7", prompt="give 7")
    assert (found["the last number is whole"], found["the last number was there before"], found["the last number is the prompt's"]) == (
        1,
        0,
        1,
    )


def test_a_number_that_no_float_holds():
    assert math.isfinite(of("9" * 500)["log of the last number"])
