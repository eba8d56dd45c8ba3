"""The column that a scorer reads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rlhf_lightning.config.schema import did_you_mean
from rlhf_lightning.errors import ConfigError
from rlhf_lightning.flow import Rollout


def column_of(rollout: Rollout, column: str, scorer: str) -> list[Any]:
    """The values [B] of a column; None where a row has none. Raises ConfigError if no row has the column."""
    require_column(rollout.columns, column, scorer)
    return rollout.columns[column]


def row_columns(rollout: Rollout) -> list[dict[str, Any]]:
    """The other columns of each of B rows by name."""
    return [{name: values[i] for name, values in rollout.columns.items()} for i in range(len(rollout))]


def require_column(names: Iterable[str], column: str, scorer: str) -> None:
    """Check that a scorer's column is among these. Raises ConfigError."""
    columns = list(names)
    if column not in columns:
        raise ConfigError(
            f"rollout_scorer.{scorer}.column={column}: the rows of the task have no such column{did_you_mean(column, columns)}; beside the "
            f"prompt they have: {', '.join(columns) or 'none'}"
        )
