"""A MusicGen in a process of its own, making a clip when told.

    python musicgen_clips.py onnx|mlx|transformers|transformers-int8 FOLDER THREADS

Each line on stdin is a number of seconds; the answer is a line of JSON: seconds until the first sound and
until the whole clip, and the peak memory of the process in bytes, its files mapped into memory included.
What cannot run says why instead of "ready".
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from measured import peak_memory  # beside this file, and not that of the process it was started from

PROMPT = "80s pop track with bassy drums and synth"
GUIDANCE, TOP_K = 3.0, 250

Make = Callable[[float], Iterator[int]]
"""Seconds -> the samples of each piece, as it can be heard."""


def ours(package: str, folder: Path, threads: int) -> Make:
    from importlib import import_module

    from audiogen_core.sampling import Sampling

    model = import_module(package).MusicGen.load(folder, threads=threads)
    sampling = Sampling(top_k=TOP_K, seed=1)

    def make(seconds: float) -> Iterator[int]:
        for piece in model.stream(PROMPT, seconds=seconds, guidance_scale=GUIDANCE, sampling=sampling):
            yield piece.samples.shape[1]

    return make


def transformers(folder: Path, threads: int, *, small: bool) -> Make:
    import torch
    from transformers import MusicgenForConditionalGeneration, PreTrainedTokenizerFast

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model: Any = MusicgenForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), pad_token="<pad>")
    if small:
        model.decoder = torch.ao.quantization.quantize_dynamic(
            model.decoder, {torch.nn.Linear}, dtype=torch.qint8
        )
    rate, special = model.config.audio_encoder.frame_rate, model.config.decoder.vocab_size
    for name in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):  # of a folder that does not say
        setattr(model.generation_config, name, special)

    @torch.inference_mode()
    def make(seconds: float) -> Iterator[int]:
        given = tokenizer([PROMPT], return_tensors="pt")
        sound = model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["attention_mask"],
            max_new_tokens=round(seconds * rate) + 3,
            guidance_scale=GUIDANCE,
            do_sample=True,
            top_k=TOP_K,
        )
        yield int(sound.shape[-1])

    return make


def main() -> None:
    who, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    makers: dict[str, Callable[[], Make]] = {
        "onnx": lambda: ours("audiogen_onnx", folder, threads),
        "mlx": lambda: ours("audiogen_mlx", folder, threads),
        "transformers": lambda: transformers(folder, threads, small=False),
        "transformers-int8": lambda: transformers(folder, threads, small=True),
    }
    try:
        make = makers[who]()
        for _ in make(0.4):
            pass
    except (AttributeError, ImportError, NotImplementedError, RuntimeError) as error:
        if not who.startswith("transformers"):
            raise
        print(json.dumps(f"{type(error).__name__}: {error}"), flush=True)
        return
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        seconds, samples, first = float(line), 0, 0.0
        began = time.perf_counter()
        for made in make(seconds):
            first = first or time.perf_counter() - began
            samples += made
        took = time.perf_counter() - began
        print(
            json.dumps({"first": first, "whole": took, "samples": samples, "peak": peak_memory()}), flush=True
        )


if __name__ == "__main__":
    main()
