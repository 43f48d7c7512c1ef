"""A process that loads the audio files it is told of, one path a line, and answers in JSON.

The decoder is C code: a fault in it must end this process, not the tests.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import traceback
import warnings

from audiogen_core.audio import Audio, stream
from audiogen_core.errors import AudioError
from audiogen_core.progress import peak_memory


def load(path: str) -> dict[str, object]:
    """What became of a file: "loaded", "refused", or the name of an error that should not be."""
    started = cpu_seconds()
    try:
        audio = Audio.load(path, max_seconds=60)
        total = sum(block.shape[1] for block in stream(path, channels=1, max_seconds=60, block_seconds=0.1))
        Audio.load(path, sample_rate=24_000, max_seconds=60)
        result = "loaded" if total == audio.samples.shape[1] else "stream and load differ"
        text = ""
    except AudioError as error:
        result, text = "refused", str(error)
    except BaseException as error:  # noqa: BLE001 - this is what the tests look for
        result, text = type(error).__name__, traceback.format_exc()
    return {"result": result, "text": text, "seconds": cpu_seconds() - started}


def cpu_seconds() -> float:
    """Of this process and of those it started."""
    return sum(os.times()[:4])


def main() -> None:
    warnings.simplefilter("ignore")
    for line in sys.stdin:
        answer = load(json.loads(line))
        children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # in KiB on Linux, bytes on macOS
        answer["memory"] = max(peak_memory(), children * (1 if sys.platform == "darwin" else 1024))
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
