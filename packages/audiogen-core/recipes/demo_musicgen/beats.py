"""First weights that keep time: heads that attend to the word for a tempo on its beats.

What a caption says of the tempo is worth little in nats, and its words and the waves of the clock have to be
brought together before any of it is. So some heads of the first layer's attention to the text begin so:
queries hold the waves of every tempo, keys of a tempo's words those of its own, and other words have just the
score that the tempo's exceed on a beat. What comes out says "now", at the tempo that was asked for.
"""

from __future__ import annotations

import torch
from captions import TEMPI as SPOKEN
from network import Network
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from words import BPM, captions

from audiogen_core.compose import TEMPI

BEATS = (1, 2, 4, 16)
"""Sixteenths from one to the next; a head each, the last ones of the layer."""

HALVINGS = [2**i for i in range(6)]
"""By which a stretch of beats is divided: into the periods of its own tempo, and of no other."""

SHARP = 8.0  # of the scores: a frame beside a beat is passed over
EDGE = 0.6  # below the score of a beat is that of other words
LOUD = 3.0  # length of what a beat adds to a vector, and of a tempo's part in its words
PAD, END = 0, 1  # ids of a text's filling and of its end
CAPTIONS = 16  # of each kind of piece, to measure words in


@torch.no_grad()
def keep_time(network: Network, words: Tokenizer) -> None:
    """Let the last heads of the first layer's attention to the text begin with that, for each of BEATS."""
    model, layer = network.settings.model, network.decoder.model.decoder.layers[0]
    half, each = model.width // 2, model.width // model.heads
    channels = {period: half - len(model.clock) + i for i, period in enumerate(model.clock)}
    steady = half - len(model.clock) - 1  # the slowest wave that is left, nearly constant
    own = [*channels.values(), steady]
    bias = _alone(network, own)
    told = _tell(network, words)  # (4, width): slow, medium, fast, none of them
    cross, norm = layer.encoder_attn, layer.encoder_attn_layer_norm
    cross.q_proj.weight[:, own] *= norm.weight[own]
    norm.weight[own], norm.bias[own] = 1.0, 0.0
    sharp = (SHARP * _spread(network) * each**0.5) ** 0.5
    draws = torch.Generator().manual_seed(0)
    for head, beats in zip(range(model.heads)[-len(BEATS) :], BEATS, strict=False):
        query, key, value = (torch.zeros(each, model.width) for _ in range(3))
        row, waves = 0, []
        for tempo, frames in enumerate(TEMPI[name] for name in SPOKEN):
            waves = [channels[period] for period in model.clock if beats * frames / period in HALVINGS]
            for wave in waves:
                query[row, wave], key[row] = sharp, sharp * told[tempo]
                row += 1
            key[each - 1] -= sharp * sum(bias[wave] for wave in waves) * told[tempo]
            value[1 + tempo] = told[tempo]
        query[each - 1, steady] = sharp / bias[steady]
        key[each - 1] += sharp * (len(waves) - EDGE) * told[3]
        value[0] = told[:3].sum(dim=0)
        out = torch.nn.functional.normalize(torch.randn(model.width, each, generator=draws), dim=0)
        rows = slice(head * each, (head + 1) * each)
        cross.q_proj.weight[rows], cross.k_proj.weight[rows], cross.v_proj.weight[rows] = query, key, value
        cross.out_proj.weight[:, rows] = LOUD * out


def _alone(network: Network, channels: list[int]) -> dict[int, float]:
    """Keep what is played out of some channels, up to the first layer's attention to the text.

    Returns what is constant in each.
    """
    decoder = network.decoder.model.decoder
    constant = torch.zeros(len(channels))
    for table in decoder.embed_tokens:
        mean = table.weight[:, channels].mean(dim=0)
        table.weight[:, channels] = mean
        constant += mean
    decoder.layers[0].self_attn.out_proj.weight[channels] = 0.0
    constant[-1] += decoder.embed_positions.weights[: network.settings.data.window, channels[-1]].mean()
    return dict(zip(channels, constant.tolist(), strict=True))


def _tell(network: Network, words: Tokenizer) -> Tensor:
    """Mark the words for each tempo, and all others; returns what reads the marks off: (4, width).

    A mark is a channel of the text encoder that nothing else writes to, of one size in whatever company. It
    goes where the projection to the music's width gives least.
    """
    encoder, project = network.text_encoder.encoder, network.enc_to_dec_proj
    table, norm = network.text_encoder.shared.weight, encoder.final_layer_norm.weight
    marks = (norm * project.weight.norm(dim=0)).argsort()[:4]  # channels that said least
    table[:, marks] = 0.0
    for block in encoder.block:
        block.layer[0].SelfAttention.o.weight[marks] = 0.0
        block.layer[1].DenseReluDense.wo.weight[marks] = 0.0
        for part in block.layer:
            part.layer_norm.weight[marks] = 0.0
    of = {words.token_to_id(word): index for index, name in enumerate(SPOKEN) for word in _spoken(name)}
    sizes = _sizes(network, words)
    for index, size in enumerate(sizes):
        table[index, marks[of.get(index, 3)]] = LOUD * size
    norm[marks] = 1.0
    free = torch.linalg.svd(project.weight).U[:, -4:]  # (width, 4)
    project.weight[:, marks] = free * (1 + LOUD**2 / len(norm)) ** 0.5
    project.bias -= free @ (free.T @ project.bias)
    return free.T / LOUD


def _sizes(network: Network, words: Tokenizer) -> Tensor:
    """How large what the text encoder makes of each word is before its last norm, in captions."""
    count, seen = words.get_vocab_size(), []
    hook = network.text_encoder.encoder.final_layer_norm.register_forward_hook(
        lambda _, given, __: seen.append(given[0].square().mean(dim=-1).sqrt())
    )
    each = [torch.tensor([*words.encode(text).ids, END]) for text in captions(5, CAPTIONS)]
    ids = pad_sequence(each, batch_first=True)
    real = ids != PAD
    network.text_encoder(input_ids=ids, attention_mask=real.long())
    hook.remove()
    flat, sizes = ids[real], seen[0][real]
    sums = torch.zeros(count).index_add(0, flat, sizes)
    times = torch.zeros(count).index_add(0, flat, torch.ones(len(flat)))
    return torch.where(times > 0, sums / times.clamp(min=1), sizes.median())


def _spoken(tempo: str) -> set[str]:
    spoken = {word for saying in SPOKEN[tempo] for word in saying.lower().replace("-", " ").split()}
    numbers = {str(number) for number in range(80, 140) if abs(number - BPM[tempo]) < 6}
    return (spoken | numbers) - {"tempo"}


def _spread(network: Network) -> float:
    """By how much the normalisation before the attention to the text makes vectors shorter, about."""
    layer, seen = network.decoder.model.decoder.layers[0], []
    hook = layer.encoder_attn_layer_norm.register_forward_hook(
        lambda _, given, __: seen.append(given[0].std(dim=-1))
    )
    draws = torch.Generator().manual_seed(0)
    codes = torch.randint(network.size, (4, network.codebooks, network.settings.data.window), generator=draws)
    network(codes, torch.ones(4, 1, dtype=torch.long), torch.ones(4, 1), torch.ones(4))
    hook.remove()
    return float(seen[0].mean())
