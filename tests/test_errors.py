"""Errors of the file system become messages that name the file and the remedy."""

from __future__ import annotations

import errno
import os

import pytest

from rlhf_lightning.errors import FILE_ERRORS, file_error


@pytest.mark.parametrize("number", FILE_ERRORS)
def test_a_file_error_names_file_and_remedy(number):
    message = str(file_error(OSError(number, os.strerror(number), "a/file")))
    assert message.startswith(f"a/file: {os.strerror(number)}; ")


@pytest.mark.parametrize("error", [OSError(errno.EACCES, "denied"), OSError(errno.ENOENT, "no", "a"), ValueError("x"), OSError("text")])
def test_other_errors_keep_their_traceback(error):
    assert file_error(error) is None


@pytest.mark.parametrize(
    "words", [["resume={}"], ["--config-path", "{}"], ["--config-dir", "{}"], ["backbone=causal", "backbone.path=./{}"]]
)
def test_a_name_that_is_too_long_is_a_message(command, words):
    outcome = command(*(word.format("x" * 300) for word in words))
    assert outcome.code == 2
    assert "Traceback" not in outcome.error
