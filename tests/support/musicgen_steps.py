"""One decoder of musicgen-small's size with random weights, in a process of its own, taking steps when told.

    python musicgen_steps.py ours|transformers|mlx-audiogen [--blas]

Each line on stdin is a count of steps; the answer is a line of JSON: seconds per step, and peak memory of
the process in bytes. A step is one frame of one clip: two rows for guidance, 16 tokens of text, a token of
each codebook drawn from the 250 likeliest. `--blas` loads the fast BLAS of audiogen-mlx beforehand, which
must be on PYTHONPATH, and alters nothing else.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Callable

WIDTH, LAYERS, HEADS, HIDDEN, BOOKS, SIZE, TEXT = 1024, 24, 16, 4096, 4, 2048, 16
GUIDANCE, TOP_K = 3.0, 250


def ours() -> Callable[[int], None]:
    import audiogen_mlx  # noqa: F401, I001  before mlx, for its BLAS
    import mlx.core as mx

    from support.musicgen_models import SMALL, WindowRuns

    runs = WindowRuns(SMALL, mx.random.normal((1, TEXT, WIDTH)), GUIDANCE, TOP_K)
    return lambda count: runs.run(count - max(SMALL.delays))


def transformers() -> Callable[[int], None]:
    import torch
    from transformers import DynamicCache, MusicgenDecoderConfig, MusicgenForCausalLM

    torch.manual_seed(0)
    config = MusicgenDecoderConfig(
        hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS, ffn_dim=HIDDEN
    )
    model = MusicgenForCausalLM(config).eval()
    text = torch.randn(2, TEXT, WIDTH)
    text[1] = 0

    @torch.inference_mode()
    def steps(count: int) -> None:
        cache = DynamicCache(config=config)
        tokens = torch.full((BOOKS, 1), SIZE)
        for _ in range(count):
            out = model(
                tokens.repeat(2, 1), encoder_hidden_states=text, past_key_values=cache, use_cache=True
            )
            asked, other = out.logits[:, -1].reshape(2, BOOKS, -1)
            best = torch.topk(other + GUIDANCE * (asked - other), TOP_K)
            drawn = torch.multinomial(torch.softmax(best.values, -1), 1)
            tokens = best.indices.gather(1, drawn)

    return steps


def mlx_audiogen() -> Callable[[int], None]:
    import mlx.core as mx
    from mlx_audiogen.models.musicgen import model as their

    their.tqdm = lambda steps, **options: steps
    network = their.MusicGenModel(their.MusicGenConfig())
    mx.eval(network.parameters())
    text = mx.random.normal((1, TEXT, 768))
    return lambda count: mx.eval(network.generate(text, max_steps=count, top_k=TOP_K, guidance_coef=GUIDANCE))


def main() -> None:
    if "--blas" in sys.argv:
        import audiogen_mlx  # noqa: F401
    steps = {"ours": ours, "transformers": transformers, "mlx-audiogen": mlx_audiogen}[sys.argv[1]]()
    steps(8)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        count = int(line)
        began = time.perf_counter()
        steps(count)
        took = (time.perf_counter() - began) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"step": took, "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
