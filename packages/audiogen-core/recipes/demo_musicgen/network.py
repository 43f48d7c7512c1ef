"""The parts of transformers' MusicGen that are trained, in the sizes of the settings."""

from __future__ import annotations

import torch
from settings import Model, Settings, Text
from torch import Tensor, nn
from transformers import MusicgenForCausalLM, T5Config, T5EncoderModel
from transformers.models.musicgen.configuration_musicgen import MusicgenDecoderConfig


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
        """First weights: sums of embeddings as large as the positions, layers that begin by adding little."""
        for name, weight in self.decoder.named_parameters():
            if "embed_tokens" in name:
                nn.init.normal_(weight, std=0.5)
            elif ".layers." in name and weight.dim() == 2:
                small = name.endswith(("out_proj.weight", "fc2.weight"))
                nn.init.normal_(weight, std=(0.2 if small else 1.0) * weight.shape[1] ** -0.5)

    @torch.no_grad()
    def renew_text(self, seed: int) -> list[nn.Parameter]:
        """First weights again for all that reads captions; returns these parameters."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = dict(Network(self.settings, self.text_encoder.config.vocab_size).named_parameters())
        renewed = [(name, p) for name, p in self.named_parameters() if is_text(name)]
        for name, parameter in renewed:
            parameter.copy_(fresh[name])
        return [parameter for _, parameter in renewed]

    def lay(self, codes: Tensor) -> Tensor:
        """Codes (B, K, W) in the delay pattern: (B, K, W + max delay + 1)."""
        batch, books, window = codes.shape
        laid = codes.new_full((batch, books, window + max(self.delays) + 1), self.size)
        for k, late in enumerate(self.delays):
            laid[:, k, 1 + late : 1 + late + window] = codes[:, k]
        return laid


def is_text(name: str) -> bool:
    """Whether a parameter of `Network` reads captions."""
    return name.startswith(("text_encoder.", "enc_to_dec_proj.")) or ".encoder_attn" in name


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
