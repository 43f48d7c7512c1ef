"""A decoder of a MusicGen's size with random weights, in a process of its own, making updates when told.

    python tuning_steps.py ours|peft small|medium [--checkpoint] [--dtype float16] [--clips 1] [--seconds 10]

Each line on stdin is a count of updates; the answer is a line of JSON: seconds per update, the loss, and peak
memory of the process in bytes. An update is of clips with 32 tokens of text each: a forward pass, gradients
of LoRAs of rank 16 beside q, v and out of both attentions, AdamW. The codes are the same each time.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np

BOOKS, SIZE, TEXT, RATE = 4, 2048, 32, 50
RANK, TARGETS = 16, ("q_proj", "v_proj", "out_proj")
SHAPES = {"small": (1024, 24, 16, 4096), "medium": (1536, 48, 24, 6144)}

Steps = Callable[[], float]


def ours(asked: argparse.Namespace) -> Steps:
    import audiogen_mlx  # noqa: F401, I001  before mlx, for its BLAS
    import mlx.core as mx
    import mlx.optimizers as optim

    from audiogen_mlx import blas, cpu
    from audiogen_mlx.musicgen import adapted
    from support.musicgen_models import SMALL, transformer

    blas.set_threads(None)
    cpu.keep_memory(True)
    width, layers, heads, hidden = SHAPES[asked.size]
    config = replace(SMALL, width=width, layers=layers, heads=heads, hidden=hidden)
    network = transformer(config, dtype=asked.dtype)
    modules = adapted.targeted(config, TARGETS)
    model = adapted.Adapted(network, dict.fromkeys(modules, 1.0), checkpoint=asked.checkpoint)
    factors = adapted.fresh(network, modules, RANK, 0)
    optimiser = optim.AdamW(2e-4, weight_decay=0.01, bias_correction=True)
    optimiser.init(factors)
    rng = np.random.default_rng(0)
    codes = [rng.integers(0, SIZE, (BOOKS, asked.frames), np.int32) for _ in range(asked.clips)]
    texts = [rng.standard_normal((TEXT, config.text_width)).astype(np.float32) for _ in codes]
    given = adapted.batch(config, codes, texts)

    def step() -> float:
        nonlocal factors
        loss, gradients = model.gradients(factors, given)
        factors = optimiser.apply_gradients(gradients, factors)
        mx.eval(factors, optimiser.state)
        return loss

    return step


def peft(asked: argparse.Namespace) -> Steps:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import MusicgenDecoderConfig, MusicgenForCausalLM

    torch.manual_seed(0)
    width, layers, heads, hidden = SHAPES[asked.size]
    config = MusicgenDecoderConfig(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads, ffn_dim=hidden
    )
    config.dropout = config.attention_dropout = config.activation_dropout = 0.0
    made = MusicgenForCausalLM(config).to(getattr(torch, asked.dtype))
    model = get_peft_model(made, LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS)))
    model.train()
    if asked.checkpoint:
        made.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    learned = [each for each in model.parameters() if each.requires_grad]
    optimiser = torch.optim.AdamW(learned, lr=2e-4, weight_decay=0.01)
    rng = np.random.default_rng(0)
    steps = asked.frames + BOOKS - 1
    tokens = torch.tensor(rng.integers(0, SIZE, (asked.clips * BOOKS, steps)))
    targets = torch.tensor(rng.integers(0, SIZE, (asked.clips * BOOKS, steps)))
    text = torch.tensor(rng.standard_normal((asked.clips, TEXT, width)).astype(np.float32)).to(made.dtype)

    def step() -> float:
        logits = model(tokens, encoder_hidden_states=text, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits.reshape(-1, SIZE).float(), targets.reshape(-1))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return float(loss.detach())

    return step


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("whose", choices=("ours", "peft"))
    parser.add_argument("size", choices=SHAPES)
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--clips", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    asked.frames = round(asked.seconds * RATE)
    step = {"ours": ours, "peft": peft}[asked.whose](asked)
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        count = int(line)
        began = time.perf_counter()
        losses = [step() for _ in range(count)]
        took = (time.perf_counter() - began) / count
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        print(json.dumps({"step": took, "loss": losses[-1], "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
