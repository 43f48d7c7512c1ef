"""First weights that keep time: how far a frame is through a beat and a bar of the caption's tempo.

A caption's tempo says where every beat of a window is, and a diffusion has to know it while there is nothing
but noise to be seen. What brings the words and the waves of a clock together is a product, which takes long
to be found. So the first layer begins with it, in channels that nothing else writes to:

- positions hold the waves of all tempi;
- a head of its attention to the tokens looks for a word for a tempo, and says which of the three it is;
- gates of its feed-forward part let the waves of that tempo through. What comes out is the same in all tempi.

Later layers begin by not reading these channels: they learn to.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from network import Network, Norm, Transformer
from tokenizers import Tokenizer
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "demo_music"))
from captions import TEMPI as SPOKEN
from words import BPM, captions

LOUD = 3.0  # of a word for a tempo among tokens, and of what it says among frames
BEATS = {"fast": 9.0, "medium": 10.0, "slow": 12.0}  # frames
SHARES = (0.5, 1.0, 2.0, 4.0)  # of a beat: what is told of, up to a bar


@torch.no_grad()
def keep_time(network: Network, words: Tokenizer, level: float = 1.0) -> None:
    """Let a network begin with that: one that has learned nothing yet, or has channels that say nothing.

    level  how large what stands in the other channels is
    """
    transformer = network.dit.transformer
    phases = 2 * len(SHARES)
    waves = phases * len(BEATS)
    own = transformer.project_in.weight.norm(dim=1).argsort(stable=True)[: waves + phases + len(BEATS) + 1]
    wave, phase, tempo, steady = own.split([waves, phases, len(BEATS), 1])
    _clear(network, own)
    table = transformer.pos_emb.emb.weight
    table[:] = 0.0
    model = network.settings.model
    frames = torch.arange(-model.memory_tokens, model.frames).float()[:, None]
    periods = torch.tensor([beat * share for beat in BEATS.values() for share in SHARES])
    angles = 2 * torch.pi * frames / periods
    table[:, wave] = torch.stack([angles.sin(), angles.cos()], -1).flatten(1)
    table[:, steady] = 1.0
    table *= level * model.width**0.5
    _tell(network, words, tempo, steady, level)
    _gate(transformer, wave.view(len(BEATS), phases), phase, tempo, level)


def _clear(network: Network, own: Tensor) -> None:
    """Let nothing write to these channels or read them, and no norm be steered in them."""
    transformer = network.dit.transformer
    width = network.settings.model.width
    steered = (own[None] + width * torch.arange(6)[:, None]).flatten()
    transformer.project_in.weight[own] = 0.0
    transformer.project_out.weight[:, own] = 0.0
    transformer.memory_tokens[:, own] = 0.0
    last = transformer.global_cond_embedder[2]
    last.weight[steered], last.bias[steered] = 0.0, 0.0
    for layer in transformer.layers:
        layer.to_scale_shift_gate[steered] = 0.0
        for norm in (each for each in layer.modules() if isinstance(each, Norm)):
            norm.gamma[own], norm.beta[own] = 1.0, 0.0
        for part in (layer.self_attn.to_qkv, layer.cross_attn.to_q, layer.ff.ff[0].proj):
            part.weight[:, own] = 0.0
        for part in (layer.self_attn.to_out, layer.cross_attn.to_out, layer.ff.ff[2]):
            part.weight[own] = 0.0
        layer.ff.ff[2].bias[own] = 0.0


def _tell(network: Network, words: Tokenizer, tempo: Tensor, steady: Tensor, level: float) -> None:
    """Let the last head of the first layer's attention to tokens say which tempo a caption has."""
    embed, cross = network.dit.to_cond_embed, network.dit.transformer.layers[0].cross_attn
    marks = _mark(network, words)
    least = (embed[2].weight.norm(dim=0) * embed[0].weight.norm(dim=1)).argsort()[: len(marks)]
    embed[0].weight[:, marks] = 0
    embed[0].weight[least] = 0
    embed[0].weight[least, marks] = 1.0
    quiet = torch.linalg.svd(embed[2].weight).U[:, -len(marks) :]  # where tokens say least
    embed[2].weight -= quiet @ (quiet.T @ embed[2].weight)
    embed[2].weight[:, least] = quiet
    size = cross.to_q.weight.shape[0] // cross.heads
    rows = slice(-size, None)
    looked = torch.tensor([1.0, -1.0]).repeat(size // 2)  # its mean is 0: norms of queries and keys leave it
    cross.to_q.weight[rows] = 0.0
    cross.to_q.weight[rows, steady] = looked[:, None]
    keys, values = cross.to_kv.weight.chunk(2)
    keys[rows] += looked[:, None] * quiet.sum(dim=1)
    values[rows] = 0
    values[rows][: len(marks)] = quiet.T
    cross.to_out.weight[:, rows] = 0
    cross.to_out.weight[tempo, torch.arange(len(tempo)) - size] = level


def _mark(network: Network, words: Tokenizer) -> Tensor:
    """Give the words for each tempo a channel of the text encoder that is theirs alone; returns them."""
    encoder, embed = network.text.encoder, network.dit.to_cond_embed[0]
    table, norm = network.text.shared.weight, encoder.final_layer_norm.weight
    marks = (norm * embed.weight.norm(dim=0)).argsort()[: len(BEATS)]  # channels that said least
    table[:, marks] = 0.0
    for block in encoder.block:
        block.layer[0].SelfAttention.o.weight[marks] = 0.0
        block.layer[1].DenseReluDense.wo.weight[marks] = 0.0
        for part in block.layer:
            part.layer_norm.weight[marks] = 0.0
    for number in network.numbers.values():
        number.out.weight[marks], number.out.bias[marks] = 0.0, 0.0
    norm[marks] = 1.0
    size = _size(network, words)
    for mark, name in zip(marks, BEATS, strict=True):
        spoken = {word for saying in SPOKEN[name] for word in saying.lower().replace("-", " ").split()}
        numbers = {str(number) for number in range(80, 140) if abs(number - BPM[name]) < 6}
        for word in (spoken | numbers) - {"tempo"}:
            if (index := words.token_to_id(word)) is not None:
                table[index, mark] = LOUD * size
    return marks


def _size(network: Network, words: Tokenizer) -> float:
    """How large the vectors of the text encoder are before its last norm, about."""
    seen = []
    hook = network.text.encoder.final_layer_norm.register_forward_hook(
        lambda _, given, __: seen.append(given[0].square().mean(dim=-1).sqrt().mean())
    )
    for text in captions(5, 1):
        network.text(input_ids=torch.tensor([words.encode(text).ids]))
    hook.remove()
    return float(torch.stack(seen).mean())


def _gate(transformer: Transformer, wave: Tensor, phase: Tensor, tempo: Tensor, level: float) -> None:
    """Let as many of the first layer's gates as there are waves pass on those of the tempo that is told."""
    layer = transformer.layers[0]
    inner, out = layer.ff.ff[0].proj, layer.ff.ff[2]
    values, gates = inner.weight.chunk(2)
    least = (out.weight.norm(dim=0) * values.norm(dim=1) * gates.norm(dim=1)).argsort()[: wave.numel()]
    for unit, (told, which) in zip(least, torch.cartesian_prod(*map(torch.arange, wave.shape)), strict=True):
        values[unit], gates[unit] = 0.0, 0.0
        values[unit, wave[told, which]], gates[unit, tempo[told]] = 1.0, 1.0
        inner.bias[unit] = inner.bias[unit + len(values)] = 0.0
        out.weight[:, unit] = 0.0
        out.weight[phase[which], unit] = level
