"""`rlhf-lightning export`: a reward model for pipelines, or a collection for other tools."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rlhf_lightning.config.atomic_write import write_atomic
from rlhf_lightning.config.display import safe_message
from rlhf_lightning.errors import ConfigError, import_extra


def export(args: Sequence[str]) -> None:
    """Write a reward model as a plain sequence classifier, or a collection in a format. Raises UserError."""
    if len(args) not in (2, 3) or any(argument.startswith("-") for argument in args):
        raise ConfigError(
            "write `rlhf-lightning export REWARD_MODEL TARGET`, as in `export runs/REWARD/reward_model classifier`, or "
            "`rlhf-lightning export COLLECTION FORMAT FILE`, as in `export collection.sqlite trl pairs.jsonl`"
        )
    if len(args) == 3:
        export_collection(*args)
    else:
        from rlhf_lightning.reward.storage.export import export_reward_model

        export_reward_model(args[0], Path(args[1]))
    print(safe_message(args[-1]))


def export_collection(location: str, kind: str, target: str) -> None:
    """Write the judgements of a collection, a file of SQLite or a URL postgresql://, into a file.

    Raises:
        ConfigError: no collection there, an unknown format, or sqlalchemy isn't installed.
    """
    import_extra("sqlalchemy", "the export of a collection", "collect")
    from rlhf_lightning.collect.export import FILES, export_text
    from rlhf_lightning.database.connection import Database

    if kind not in FILES:
        raise ConfigError(f"export: the format must be one of {', '.join(FILES)}, not {kind}")
    database = Database(location, must_exist=True)
    try:
        with database.read() as connection:
            write_atomic(Path(target).absolute(), "".join(export_text(connection, kind)), private=True)
    except OSError as cause:
        raise ConfigError(f"{target} can't be written ({cause.strerror}): choose another file") from cause
    finally:
        database.close()
