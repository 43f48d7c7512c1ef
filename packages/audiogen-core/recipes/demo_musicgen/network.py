"""The parts of transformers' MusicGen that are trained, in the sizes of the settings."""

from __future__ import annotations

import math

import torch
from settings import Model, Settings, Text
from torch import Tensor, nn
from transformers import MusicgenForCausalLM, T5Config, T5EncoderModel
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig

from audiogen_core.compose import TEMPI
from audiogen_core.musicgen.positions import positions

SHARP = 3.4  # of first queries and keys: a column beside the one looked at gets a sixth of its attention
LOOK_BACK = (
    (0, 1, 2),
    tuple(many * frames - 1 for many in (1, 4) for frames in TEMPI.values()),
    tuple(many * frames - 1 for many in (2, 16) for frames in TEMPI.values()),
)
"""Columns that heads of the first layers look back by at first. What follows there is what came a sixteenth,
an eighth, a beat or a bar before what is to be written."""


class Network(nn.Module):
    """Parameters have the names of `MusicgenForConditionalGeneration`, without the codec.

    A window of W frames is laid out in W + max delay + 1 columns: column 0 is the special id in all rows, row
    k is `delays[k]` late.
    """

    def __init__(self, settings: Settings, vocabulary: int) -> None:
        super().__init__()
        self.settings, model = settings, settings.model
        self.text_encoder = T5EncoderModel(text_config(settings.text, vocabulary))
        self.enc_to_dec_proj = nn.Linear(settings.text.width, model.width)
        self.decoder = MusicgenForCausalLM(decoder_config(model, settings.data.window + 16))
        self.size, self.codebooks = model.codebook_size, model.codebooks
        self.delays = tuple(range(model.codebooks))
        self.decoder.model.decoder.embed_positions.weights.copy_(
            torch.from_numpy(positions(settings.data.window + 16, model.width, model.clock))
        )
        self._scale()

    def forward(self, codes: Tensor, ids: Tensor, mask: Tensor, told: Tensor) -> Tensor:
        """Logits (B, K, W, N) in float32 of codes (B, K, W), each from the columns before it.

        ids, mask (B, L)  tokens of the captions
        told (B,)         false where the caption is left out: nothing is attended to
        """
        text = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        text = self.enc_to_dec_proj(text) * told[:, None, None]
        laid = self.lay(codes)
        output = self.decoder.model(
            input_ids=laid[:, :, :-1].reshape(-1, laid.shape[2] - 1),
            encoder_hidden_states=text,
            encoder_attention_mask=mask,
            use_cache=False,
        ).last_hidden_state
        window = codes.shape[2]
        return torch.stack(
            [
                head(output[:, late : late + window])
                for late, head in zip(self.delays, self.decoder.lm_heads, strict=True)
            ],
            dim=1,
        ).float()

    @torch.no_grad()
    def _scale(self) -> None:
        """First weights: sums of embeddings as large as the positions, layers that begin by adding little,
        and heads that look back by fixed distances.

        The fastest sines and cosines of the positions keep their channels to themselves at first, so that
        those heads see nothing else.
        """
        for name, weight in self.decoder.named_parameters():
            if "embed_tokens" in name:
                nn.init.normal_(weight, std=0.5)
                weight[:, self._clock()] = 0.0
            elif ".layers." in name and weight.dim() == 2:
                small = name.endswith(("out_proj.weight", "fc2.weight"))
                nn.init.normal_(weight, std=(0.2 if small else 1.0) * weight.shape[1] ** -0.5)
        for layer, distances in zip(self.decoder.model.decoder.layers, LOOK_BACK, strict=False):
            for head, distance in enumerate(distances[: self.settings.model.heads]):
                self._look_back(layer.self_attn, head, distance)

    def _clock(self) -> Tensor:
        """The channels of the fastest waves of the positions: cosines, then sines, as many as a head has."""
        width, each = self.settings.model.width, self.settings.model.width // self.settings.model.heads
        waves = torch.arange(each // 2) * 2
        return torch.cat([waves, width // 2 + waves])

    def _look_back(self, attention: nn.Module, head: int, distance: int) -> None:
        """Queries that match the keys of the column `distance` before: a wave each in two channels, the
        queries' turned back by that distance.
        """
        width, each = self.settings.model.width, self.settings.model.width // self.settings.model.heads
        clock = self._clock()
        cosines, sines = clock[: each // 2], clock[each // 2 :]
        turn = distance * torch.exp(-math.log(10_000) / (width // 2 - 1) * cosines)
        rows = slice(head * each, (head + 1) * each)
        queries, keys = torch.zeros(each, width), torch.zeros(each, width)
        first, second = torch.arange(each // 2), torch.arange(each // 2, each)
        keys[first, cosines], keys[second, sines] = SHARP, SHARP
        queries[first, cosines], queries[first, sines] = SHARP * turn.cos(), SHARP * turn.sin()
        queries[second, sines], queries[second, cosines] = SHARP * turn.cos(), -SHARP * turn.sin()
        attention.q_proj.weight[rows], attention.k_proj.weight[rows] = queries, keys

    def lay(self, codes: Tensor) -> Tensor:
        """Codes (B, K, W) in the delay pattern: (B, K, W + max delay + 1)."""
        batch, books, window = codes.shape
        laid = codes.new_full((batch, books, window + max(self.delays) + 1), self.size)
        for k, late in enumerate(self.delays):
            laid[:, k, 1 + late : 1 + late + window] = codes[:, k]
        return laid


def text_config(text: Text, vocabulary: int) -> T5Config:
    return T5Config(
        vocab_size=vocabulary,
        d_model=text.width,
        d_kv=text.width // text.heads,
        d_ff=text.hidden,
        num_layers=text.layers,
        num_heads=text.heads,
        dropout_rate=0.0,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
        pad_token_id=0,
        eos_token_id=1,
    )


def decoder_config(model: Model, positions: int) -> MusicgenDecoderConfig:
    return MusicgenDecoderConfig(
        vocab_size=model.codebook_size,
        max_position_embeddings=positions,
        num_hidden_layers=model.layers,
        ffn_dim=model.hidden,
        num_attention_heads=model.heads,
        hidden_size=model.width,
        num_codebooks=model.codebooks,
        audio_channels=1,
        activation_function="gelu",
        dropout=model.dropout,
        attention_dropout=0.0,
        activation_dropout=0.0,
        layerdrop=0.0,
        scale_embedding=False,
        pad_token_id=model.codebook_size,
        bos_token_id=model.codebook_size,
        attn_implementation="sdpa",
    )
