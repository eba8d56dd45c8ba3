"""Commands one after the other, each carried out by all processes that torchrun started: several seconds less than starting them anew.

    python -m torch.distributed.run --nproc-per-node 2 several_processes.py COMMANDS.json

COMMANDS.json is a list of [words, folder]. Stops at the first that fails, with what it said in error_RANK.txt beside them.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path

from tests.fixtures.commands import run_command


def main(commands: Path) -> None:
    for words, folder in json.loads(commands.read_text()):
        try:
            outcome = run_command(*words, folder=Path(folder))
            error = outcome.error if outcome.code else ""
        except Exception:
            error = traceback.format_exc()
        if error:
            commands.with_name(f"error_{os.environ['RANK']}.txt").write_text(f"{' '.join(words)}\n{error}")
            sys.exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    os._exit(0)  # as the program does (cli.program)
