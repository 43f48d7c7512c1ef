"""One fuzz target under atheris: `python tests/fuzz/run.py pickle -max_total_time=600`, options of libFuzzer.

New inputs go to a folder beside the corpus that git does not know; what breaks a target is written as
`crash-*`, `timeout-*` or `oom-*` where the command runs, and belongs into the corpus once it is mended.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).parents[1]))
with atheris.instrument_imports(include=["audiogen_core", "audiogen_onnx", "yaml"]):
    from fuzz.targets import TARGETS, run

CORPUS = Path(__file__).parent / "corpus"


def main(target: str, *options: str) -> None:
    found = CORPUS.with_name("found") / target
    found.mkdir(parents=True, exist_ok=True)
    limits = ["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]
    atheris.Setup(
        [sys.argv[0], *limits, *options, str(found), str(CORPUS / target)], lambda data: run(target, data)
    )
    atheris.Fuzz()


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        sys.exit(f"usage: run.py {{{','.join(TARGETS)}}} [OPTIONS OF LIBFUZZER]")
    main(*sys.argv[1:])
