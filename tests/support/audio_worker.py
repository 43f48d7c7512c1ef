"""A process that loads the audio files it is told of, one path a line, and answers in JSON.

The decoder is C code: a fault in it must end this process, not the tests.
"""

from __future__ import annotations

import json
import sys
import time
import traceback

from audiogen_core.audio import Audio, stream
from audiogen_core.errors import AudioError
from audiogen_core.progress import peak_memory


def load(path: str) -> dict[str, object]:
    """What became of a file: "loaded", "refused", or the name of an error that should not be."""
    started = time.process_time()
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
    return {"result": result, "text": text, "seconds": time.process_time() - started}


def main() -> None:
    for line in sys.stdin:
        answer = load(json.loads(line))
        answer["memory"] = peak_memory()
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
