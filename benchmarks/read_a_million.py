"""How long reading, checking and cleaning a million lines takes, and how much memory it needs (docs/feedback.md states the result).

    python benchmarks/read_a_million.py [--lines 1000000] [--folder DIR]

Writes a file of pairs of made-up English (one line in fifty a duplicate, one in a hundred wrongly decoded), then takes it in through
the same door as `stage=reward` does: source jsonl, format pairwise, filters encoding, identical, duplicates, kept in a file.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from functools import partial
from pathlib import Path

from rlhf_lightning.feedback.filter.duplicates import duplicates
from rlhf_lightning.feedback.filter.encoding import encoding
from rlhf_lightning.feedback.filter.identical import identical
from rlhf_lightning.feedback.format.pairwise import PairwiseFormat
from rlhf_lightning.feedback.intake import ingest
from rlhf_lightning.feedback.reading import Reader
from rlhf_lightning.feedback.source.jsonl import jsonl
from rlhf_lightning.feedback.store import FeedbackFile

TEXT = "the a of to and in is it you that he was for on are with as his they be at one have this from or had by hot but some what"
WORDS = TEXT.split()


def write_lines(file: Path, lines: int) -> None:
    rng = random.Random(0)
    with file.open("w", encoding="utf-8") as out:
        line = ""
        for number in range(lines):
            if number % 50 or not line:
                prompt, chosen, rejected = (" ".join(rng.choices(WORDS, k=count)) for count in (15, 25, 25))
                mojibake = " schÃ¶n" if number % 100 == 1 else ""
                line = json.dumps({"prompt": prompt, "chosen": chosen + mojibake, "rejected": rejected}, ensure_ascii=False) + "\n"
            out.write(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        file = Path(folder) / "pairs.jsonl"
        write_lines(file, given.lines)
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        intake = ingest(
            Reader(jsonl(path=str(file)), [PairwiseFormat()]),
            {"encoding": encoding, "identical": identical, "duplicates": duplicates},
            multi_pass=["duplicates"],
            store=partial(FeedbackFile.write, path=Path(folder) / "clean.jsonl"),
            intermediate_store=partial(FeedbackFile.write, path=Path(folder) / "between.jsonl", keep=False),
        )
        seconds = time.perf_counter() - start
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        size = file.stat().st_size / given.lines
    print(f"{given.lines:,} lines of {size:.0f} bytes: {seconds:.1f} s, memory grew by {grown:.0f} MB, {len(intake.feedback):,} kept")
    for note in intake.notes:
        print(f"  {note}")


if __name__ == "__main__":
    main()
