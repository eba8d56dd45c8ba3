"""Chat templates run within limits of time and memory, and what they do wrong is a message."""

from __future__ import annotations

import threading
import time

import pytest

from rlhf_lightning.errors import DataError
from rlhf_lightning.flow import Message
from rlhf_lightning.tokenization import template_limits
from rlhf_lightning.tokenization.chat_template import prompt_ids
from rlhf_lightning.tokenization.template_limits import render_bounded

CHAT = [Message(role="user", content="hello")]
GOOD = (
    "{% for m in messages %}<{{ m.role }}>{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}{{ 2 ** 3 }}{{ 1.25 | round(1) }}"
)

ENDLESS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "output": "{% for i in range(99999) %}{% for j in range(99999) %}xxxxxxxxxxxxxxxx{% endfor %}{% endfor %}",
    "recursion": "{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}",
    "two calls each": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
    "a range": "{% for i in range(10 ** 9) %}x{% endfor %}",
    "lorem ipsum": "{{ lipsum(n=10000000) }}",
    "doubling": "{% set s = namespace(x='xxxxxxxx') %}{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}{{ s.x }}",
    "repetition": "{{ 'x' * 9000000000 }}",
    "long text": "{{ 'x' * 20000000 }}",
    "padding": "{{ 'x' | center(9000000000) }}",
    "format": "{{ '%9000000000d' | format(1) }}",
    "power": "{{ 10 ** 1000000000 }}",
    "power of a power": "{{ (10 ** 60) ** 60 }}",
    "power of a variable": "{% set n = 9 %}{{ n ** n }}",
    "rounding": "{{ 1 | round(1000000000, 'ceil') }}",
    "rounding by name": "{{ 1 | round(precision=1000000000, method='floor') }}",
    "depth": "{% if a %}" * 3000,
}


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(template_limits, "SECONDS", 0.3)
    monkeypatch.setattr(template_limits, "_failed", {})


@pytest.fixture(scope="module")
def tokenizer(tiny_of):
    return tiny_of("llama").tokenizer


@pytest.mark.parametrize("name", ENDLESS)
def test_a_template_without_end_is_stopped(tokenizer, monkeypatch, name):
    monkeypatch.setattr(tokenizer, "chat_template", ENDLESS[name])
    for _ in range(2):  # the second time at once
        start = time.monotonic()
        with pytest.raises(DataError, match="the chat template"):
            prompt_ids(tokenizer, CHAT)
        assert time.monotonic() - start < 8


@pytest.mark.parametrize(
    "text",
    [
        "{{ 1 / 0 }}",
        "{{ 'a' + 1 }}",
        "{{ x.y.z }}",
        "{{ {}['a'].b }}",
        "{% endfor %}",
        "{{ raise_exception('no') }}",
        "{{ ''.__class__ }}{{ cycler.__init__.__globals__.os.system('true') }}",
    ],
)
def test_what_fails_in_a_template_is_a_message(tokenizer, monkeypatch, text):
    monkeypatch.setattr(tokenizer, "chat_template", text)
    with pytest.raises(DataError, match="the chat template"):
        prompt_ids(tokenizer, CHAT)


def test_a_good_template_runs_and_leaves_no_limit(tokenizer, monkeypatch):
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    monkeypatch.setattr(tokenizer, "chat_template", GOOD)
    assert tokenizer.decode(prompt_ids(tokenizer, CHAT)).replace(" ", "") == "<user>hello81.2"
    assert resource.getrlimit(resource.RLIMIT_AS) == before


def test_the_limit_holds_in_every_thread():
    caught: list[BaseException] = []

    def run() -> None:
        try:
            render_bounded("{{ 1 }}", lambda: "".join("x" for _ in iter(int, 1)))
        except DataError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(20)
    assert "takes more than 0.3 s" in str(caught[0])
