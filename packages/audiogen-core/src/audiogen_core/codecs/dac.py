"""DAC (arXiv 2306.06546) and LAC (github.com/hugofloresgarcia/lac), the codec of VampNet.

One encoder and one quantiser for both. LAC's decoder has the mean of three branches where DAC's has
residual units. Files of either are read in audiotools' layout, DAC also in that of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from audiogen_core.codec import Codec, CodecInfo, fingerprint
from audiogen_core.codecs import snake_net
from audiogen_core.codecs.snake_net import SnakeNet
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.layers import ProjectedCodebook, ProjectedQuantizer
from audiogen_core.ops import Float, Ops
from audiogen_core.settings import Section
from audiogen_core.weights import Network, Rules, Weights, read, read_checkpoint, read_network, setting

Family = Literal["dac", "lac"]

IN_AUDIOTOOLS = Network(r"quantizer\.quantizers\.|(encoder\.block|decoder\.model)\.\d+\.")
IN_TRANSFORMERS = Network(r"quantizer\.quantizers\.|(encoder|decoder)\.(block|conv1)\.")
"""How its tensors are known in either layout."""

_MOST_CODEBOOKS = 1 << 10  # published models have 9 to 32


@dataclass(frozen=True)
class DacConfig:
    """The facts of one DAC or LAC. Widths count channels; rates are strides in samples.

    codebook_widths  the dimension d of each codebook
    """

    family: Family
    sample_rate: int
    encoder_width: int
    encoder_rates: tuple[int, ...]
    decoder_width: int
    decoder_rates: tuple[int, ...]
    codebooks: int
    codebook_size: int
    codebook_widths: tuple[int, ...]
    latent_width: int

    def __post_init__(self) -> None:
        values = {name: value for name, value in vars(self).items() if name != "family"}
        for name, value in values.items():
            for each in value if isinstance(value, tuple) else (value,):
                if not 1 <= each < 1 << 24:
                    raise ModelError(f"the configuration does not describe a {self.title}: {name} is {value}")
        if math.prod(self.encoder_rates) != self.hop_length or not self.encoder_rates:
            raise ModelError(
                f"the encoder's rates {self.encoder_rates} and the decoder's {self.decoder_rates} "
                f"do not multiply to the same hop length"
            )
        if self.decoder_width % 2 ** len(self.decoder_rates):
            raise ModelError(
                f"a decoder width of {self.decoder_width} cannot be halved {len(self.decoder_rates)} times"
            )
        if len(self.codebook_widths) != self.codebooks:
            raise ModelError(f"{self.codebooks} codebooks, but {len(self.codebook_widths)} codebook_dim")
        if self.family == "lac" and any(rate % 2 for rate in self.encoder_rates + self.decoder_rates):
            raise ModelError("LAC's rates must be even: with odd ones its frames do not fit the samples")

    @property
    def title(self) -> str:
        return self.family.upper()

    @property
    def hop_length(self) -> int:
        return math.prod(self.decoder_rates)

    @property
    def default_name(self) -> str:
        """The part of the id before the codebooks' hash: as the catalogue calls the published models."""
        return "lac" if self.family == "lac" else f"dac-{self.sample_rate // 1000}khz"


def load_audiotools(path: Path, ops: Ops, name: str | None = None, family: Family | None = None) -> Codec:
    """A codec from audiotools' `.pth`: {"state_dict": ..., "metadata": {"kwargs": ...}}.

    family  "lac" or "dac" refuses the other; None takes either

    Raises ModelError when the settings are not there or do not describe a codec, WeightsError when the
    tensors do not fit them.
    """
    metadata = setting(read_checkpoint(path), "metadata")
    kwargs = metadata.get("kwargs") if isinstance(metadata, dict) else None
    if not isinstance(kwargs, dict):
        raise ModelError(
            f"{path}: {read(path).begins()}no metadata.kwargs beside the weights; "
            "expected audiotools' DAC or LAC"
        )
    weights = read_network(path, IN_AUDIOTOOLS)
    if not any(name.startswith("quantizer.") for name in weights):
        raise ModelError(
            f"{path}: {weights.begins()}a checkpoint of audiotools, but not of a codec: it has no quantizer"
        )
    # By the one part that differs: the metadata does not name the class.
    stored: Family = "lac" if any(".mrf_blocks." in name for name in weights) else "dac"
    if family is not None and stored != family:
        raise WeightsError(
            f"{path}: the weights are {stored.upper()}'s, but a {family.upper()} is needed here"
        )
    try:
        config = from_audiotools(kwargs, stored)
    except ModelError as error:
        raise ModelError(f"{path}: {error}") from error
    rules = snake_net.numbered(len(config.encoder_rates), len(config.decoder_rates))
    return build(config, weights.apply(rules), ops, name)


def is_audiotools(tree: Mapping[str, Any]) -> bool:
    """Whether a torch checkpoint looks like one that audiotools saved."""
    return setting(tree, "metadata") is not None


def from_audiotools(kwargs: Mapping[str, Any], family: Family) -> DacConfig:
    """The configuration of an audiotools checkpoint (its metadata.kwargs), which does not say which it is."""
    table = Section(kwargs, f"metadata.kwargs does not describe a {family.upper()}")
    rates = table.many("encoder_rates", int)
    width, books = table.take("encoder_dim", int), table.count("n_codebooks", least=0, most=_MOST_CODEBOOKS)
    one_for_all = isinstance(kwargs.get("codebook_dim"), int)
    return DacConfig(
        family=family,
        sample_rate=table.take("sample_rate", int),
        encoder_width=width,
        encoder_rates=rates,
        decoder_width=table.take("decoder_dim", int),
        decoder_rates=table.many("decoder_rates", int),
        codebooks=books,
        codebook_size=table.take("codebook_size", int),
        codebook_widths=(
            (table.take("codebook_dim", int),) * books if one_for_all else table.many("codebook_dim", int)
        ),
        latent_width=table.take("latent_dim", int, width * 2 ** len(rates)),
    )


def from_transformers(config: Mapping[str, Any]) -> DacConfig:
    """The configuration of a transformers `DacModel` (its config.json).

    Fields that the file leaves out have transformers' own defaults.
    """
    table = Section(config, "config.json does not describe a DAC")
    rates = table.many("downsampling_ratios", int, (2, 4, 8, 8))
    width = table.take("encoder_hidden_size", int, 64)
    books = table.count("n_codebooks", 9, least=0, most=_MOST_CODEBOOKS)
    return DacConfig(
        family="dac",
        sample_rate=table.take("sampling_rate", int, 16000),
        encoder_width=width,
        encoder_rates=rates,
        decoder_width=table.take("decoder_hidden_size", int, 1536),
        decoder_rates=tuple(reversed(rates)),
        codebooks=books,
        codebook_size=table.take("codebook_size", int, 1024),
        codebook_widths=(table.take("codebook_dim", int, 8),) * books,
        latent_width=width * 2 ** len(rates),
    )


TRANSFORMERS: Rules = snake_net.NAMED
"""transformers' `DacModel` -> our names."""


def build(config: DacConfig, weights: Weights, ops: Ops, name: str | None = None) -> Codec:
    """A codec from its configuration and weights in our names, strictly.

    `name` is the codec's id; without one it is derived from the family and the codebooks' hash. Raises
    WeightsError when a tensor is missing, left over, misshapen or not finite.
    """
    books = [_codebook(config, weights, index) for index in range(config.codebooks)]
    entries = _stacked([book.entries for book in books])
    info = CodecInfo(
        name=name or f"{config.default_name}@{fingerprint(entries)}",
        sample_rate=config.sample_rate,
        channels=1,
        hop_length=config.hop_length,
        codebooks=config.codebooks,
        codebook_size=config.codebook_size,
    )
    network = SnakeNet(weights, ops)
    widths = [config.encoder_width << i for i in range(len(config.encoder_rates) + 1)]
    encoder = network.encoder(1, widths, config.encoder_rates, config.latent_width)
    decoder = network.decoder(
        config.latent_width,
        [config.decoder_width >> i for i in range(len(config.decoder_rates) + 1)],
        config.decoder_rates,
        1,
        blocks="branches" if config.family == "lac" else "units",
    )
    weights.finish()
    return Codec(
        info,
        ops,
        encoder=encoder,
        decoder=decoder,
        codebooks=entries,
        quantizer=ProjectedQuantizer(ops, books),
    )


def _codebook(config: DacConfig, weights: Weights, index: int) -> ProjectedCodebook:
    name, take = f"quantizer.quantizers.{index}", weights.take
    wide, small = config.latent_width, config.codebook_widths[index]
    return ProjectedCodebook(
        entries=take(f"{name}.codebook.weight", (config.codebook_size, small)),
        in_weight=take(f"{name}.in_proj.weight", (small, wide, 1)),
        in_bias=take(f"{name}.in_proj.bias", (small,)),
        out_weight=take(f"{name}.out_proj.weight", (wide, small, 1)),
        out_bias=take(f"{name}.out_proj.bias", (wide,)),
    )


def _stacked(codebooks: Sequence[Float]) -> Float:
    """(K, N, d), the narrower codebooks filled with zeros."""
    widest = max(book.shape[1] for book in codebooks)
    return np.stack([np.pad(book, ((0, 0), (0, widest - book.shape[1]))) for book in codebooks])
