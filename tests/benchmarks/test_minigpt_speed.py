"""How fast a GPT trains and generates on a CPU, beside transformers' GPT-2 of the same shape.

The rounds take turns and the best counts; `OMP_NUM_THREADS` sets the threads.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from audiogen_core.sampling import Sampling
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.device import autocast
from audiogen_minigpt.model import GPT
from audiogen_minigpt.sampling import Rollout, Sampler
from support.bench import race, report
from support.figures import compare

pytestmark = pytest.mark.benchmark

BATCH = 2
DEVICE = torch.device("cpu")
NO_DROPOUT = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0}


def gpt2(**options: float) -> torch.nn.Module:
    """transformers' GPT-2 in the shape of the seed preset."""
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"vocab_size": 1024, "n_positions": 2048, "n_embd": 256, "n_layer": 6, "n_head": 8}
    config = GPT2Config(**shape, bos_token_id=None, eos_token_id=None, **options)
    return GPT2LMHeadModel(config)


def their_update(**options: float) -> Callable[[], None]:
    model = gpt2(**options).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    tokens = torch.randint(1024, (BATCH, 2048))

    def update() -> None:
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return update


def our_update(config: ModelConfig, dtype: torch.dtype, batch: int = BATCH) -> Callable[[], None]:
    model = GPT(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    frames = model.layout.window(config.context)
    codes = torch.randint(config.codebook_size, (batch, frames, config.codebooks))
    inputs, targets, mask = model.layout.apply(codes)

    def update() -> None:
        with autocast(DEVICE, dtype):
            loss, _ = model.loss(inputs, targets, mask)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return update


def test_training_speed() -> None:
    seed = ModelConfig.seed_preset()
    best = race(
        {
            "transformers, its defaults, float32": their_update(),
            "transformers, no dropout, float32": their_update(
                attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0
            ),
            "ours, float32": our_update(seed, torch.float32),
            "ours, bfloat16": our_update(seed, torch.bfloat16),
        }
    )
    title = f"Training, 5.5 M parameters, {BATCH} x 2048 tokens, {torch.get_num_threads()} threads"
    peer, no_dropout, *ours = best
    compare(title, "one update", best, peer=peer, aims={ours[-1]: 14})
    compare(title, "one update", {name: best[name] for name in (no_dropout, *ours)}, peer=no_dropout)
    report(title, [f"{name}: {BATCH * 2048 / seconds:.0f} tokens/s" for name, seconds in best.items()])


def test_training_speed_of_the_presets() -> None:
    contestants = {
        preset: our_update(ModelConfig.size("tiny", preset=preset), torch.bfloat16, batch=16)
        for preset in ("gpt2", "modern")
    }
    report(
        f"Training, size tiny (4 x 256, 4 codebooks), 16 x 512 frames, {torch.get_num_threads()} threads",
        [
            f"{name:40} {seconds:7.3f} s  {16 * 512 / seconds:7.0f} frames/s"
            for name, seconds in race(contestants).items()
        ],
    )


@pytest.mark.parametrize("steps", [500, 1000])
def test_generating_speed(steps: int) -> None:
    lengths = range(10, steps, 40)  # of which the cost of running everything anew is worked out
    ours = GPT(ModelConfig.seed_preset()).eval()
    theirs = gpt2().eval()
    start = torch.zeros(1, 1, dtype=torch.long)

    def anew() -> None:
        with torch.inference_mode():
            for length in lengths:
                theirs(torch.zeros(1, length, dtype=torch.long), use_cache=False).logits[:, -1].argmax()

    def cached() -> None:
        theirs.generate(start, max_new_tokens=steps, do_sample=True, top_k=250, pad_token_id=0)  # type: ignore[operator]

    def rollout() -> None:
        sampler = Sampler(Sampling(), 1, 1024, [0])
        list(Rollout(ours, start.unsqueeze(-1), steps, sampler).blocks(steps))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    best = race({"transformers, everything anew": anew, "transformers, cached": cached, "ours": rollout})
    torch.set_num_threads(threads)
    best["transformers, everything anew"] *= steps / len(lengths)
    title = "Generating, 5.5 M parameters, one thread"
    compare(title, f"{steps} tokens", best, peer="transformers, everything anew", aims={"ours": 30})
    cached_alone = {name: best[name] for name in ("transformers, cached", "ours")}
    compare(title, f"{steps} tokens", cached_alone, peer="transformers, cached")
