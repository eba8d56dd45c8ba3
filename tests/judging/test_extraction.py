"""Programs in responses, and tests of one assertion each."""

from __future__ import annotations

import pytest

from rlhf_lightning.judging.extraction import extract_program, split_test

PROMPT = "from typing import List\nimport math\n\ndef f(x):\n    # from the list import nothing, or so\n"


@pytest.mark.parametrize(
    ("response", "source"),
    [
        ("    return x\n", PROMPT + "    return x\n"),
        ("First:\n```\nf = 1\n```\nBetter:\n```python\nf = 2\n```\nDone.", "f = 2\n"),
        ("~~~py\nf = 3\n~~~", "f = 3\n"),
        ("```python\nf = '''\n```inside'''\n```", "f = '''\n```inside'''\n"),
        ("Cut off:\n```python\nf = 4\n", "f = 4\n"),
        ("No block, but `code`.", PROMPT + "No block, but `code`."),
    ],
)
def test_the_last_block_is_the_program(response: str, source: str) -> None:
    extracted, continues = extract_program(PROMPT, response)
    assert extracted == source if continues else extracted == "from typing import List\nimport math\n" + source
    assert continues == source.startswith(PROMPT)


def test_a_test_is_split_into_its_assertions() -> None:
    source = "import math\ndef check(candidate):\n    y = 1\n    assert candidate(y) == 1\n    y += 1\n    assert candidate(2) == 2\n"
    first, second = split_test(source)
    assert "candidate(y) == 1" in first
    assert "candidate(2)" not in first
    assert "candidate(2) == 2" in second
    assert "y = 1" in second
    assert "import math" in second


@pytest.mark.parametrize(
    "source", ["def check(candidate):\n    for i in range(3):\n        assert candidate(i) == i\n", "x = 1", "def check(:"]
)
def test_a_test_that_cannot_be_split_stays(source: str) -> None:
    assert split_test(source) == [source]
