"""The type of a setting that is a regular expression."""

from __future__ import annotations

import re
from typing import Annotated, TypeAlias

from pydantic import AfterValidator


def valid_pattern(pattern: str) -> str:
    """Require a regular expression; for pydantic's AfterValidator."""
    try:
        re.compile(pattern)
    except re.error as cause:
        raise ValueError(f"no regular expression ({cause})") from cause
    return pattern


Pattern: TypeAlias = Annotated[str, AfterValidator(valid_pattern)]
