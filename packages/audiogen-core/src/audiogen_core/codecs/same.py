"""SAME, the autoencoder of Stable Audio 3: configuration, network and weights.

Patches of samples become tokens. After each group of them an empty token is put, blocks of a transformer
fill it with what the group holds, and it alone is kept: a latent. The decoder goes the other way. Attention
reaches a few latents and no further: either in segments of two latents, shifted by half a segment for the
second half of the blocks (SAME-S), or in a sliding window (SAME-L). It is differential: of two attentions to
the same values one is taken from the other.

Read from the layouts of stable-audio-tools (alone, or inside a diffusion model), of diffusers and of the
authors' runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audiogen_core.audio import Audio
from audiogen_core.codec import Autoencoder, AutoencoderInfo, arrays, fingerprint, signals
from audiogen_core.codecs.oobleck import IN_STABLE_AUDIO_TOOLS
from audiogen_core.codes import Latents
from audiogen_core.errors import ModelError, WeightsError
from audiogen_core.layers import Conv, Convolutional, Layer, PadToMultiple, run
from audiogen_core.noise import Noise
from audiogen_core.ops import Attention, Float, Ops, Signal, Weight
from audiogen_core.settings import MAX_LAYERS, MAX_WIDTH, Section
from audiogen_core.weights import Drop, FuseWeightNorm, Network, Rename, Rules, Split, Weights

KINDS = ("taae_v2", "same")  # two names of one network
FF_MULTIPLE = 3
SINE_RATE = 3.14159265359  # of the activation of some blocks, with as many digits as the original has
LATENT_NOISE = 1e-3  # that the original decodes with, in units of the deviation of latents
CUT, OVERLAP = 128, 32  # latents of a piece where the original cuts clips, and those that two of them share

_BLOCKS: Rules = (
    Rename(r"\.transformers\.", ".blocks."),
    Rename(r"\.self_attn\.", ".attn."),
    Rename(r"\.norm_attn\.", ".pre_norm."),
    Rename(r"\.norm_ff\.", ".ff_norm."),
    Rename(r"\.ff\.(ff\.0\.proj|glu_proj|proj_in)\.", ".ff.up."),
    Rename(r"\.ff\.(ff\.2|proj_out)\.", ".ff.down."),
    FuseWeightNorm(),
)


def _parts(*order: str) -> Split:
    """The matrix in front of attention cut into those of its parts; q2 and k2 are of what is taken off."""
    return Split(r"(.*\.attn\.)to_qkv\.weight", tuple(rf"\g<1>{name}.weight" for name in order))


STABLE_AUDIO_TOOLS: Rules = (
    Drop(r".*\.rope\.inv_freq", "worked out from the width of a head"),
    Drop(r"bottleneck\.noise_scaling_factor", "empty, as no channels of noise are put beside latents"),
    Rename(r"^bottleneck\.scaling_factor$", "bottleneck.scale"),
    Rename(r"^encoder\.layers\.2\.", "encoder.project."),
    Rename(r"^decoder\.layers\.1\.", "decoder.project."),
    Rename(r"^(encoder(?=\.layers\.0)|decoder(?=\.layers\.3))\.layers\.\d\.", r"\1."),
    *_BLOCKS,
    _parts("q", "k", "v", "q2", "k2"),
)
"""Names of stable-audio-tools and of stable-audio-3, where an autoencoder begins."""

DIFFUSERS: Rules = (
    Rename(r"^(encoder|decoder)\.blocks\.0\.", r"\1."),
    Rename(r"^(encoder|decoder)\.proj\.", r"\1.project."),
    *_BLOCKS,
    _parts("q", "q2", "k", "k2", "v"),
)
"""Names of diffusers' `AutoencoderSAME`."""

RUNTIME: Rules = (
    Drop(r"decoder\.running_std", "a twin of the encoder's"),
    Rename(r"^encoder\.scaling_factor$", "bottleneck.scale"),
    Rename(r"^encoder\.(bias|running_std)$", r"bottleneck.\1"),
    Rename(r"\.project_(in|out)\.", ".project."),
    *_BLOCKS,
    _parts("q", "k", "v", "q2", "k2"),
)
"""Names of the authors' runtime, those of its two files after `encoder.` and `decoder.`."""

IN_DIFFUSERS = Network(r"(encoder|decoder)\.blocks\.")
"""How its tensors are known in that layout; in the first as those of an Oobleck are."""


@dataclass(frozen=True)
class SideConfig:
    """The encoder or the decoder.

    width, depth, heads  of the transformer
    segment       tokens that attend to one another, latents among them; 0: attention has a window
    shifted       the second half of the blocks has its segments half a segment further on
    window        without segments, groups before and after its own whose tokens a token sees
    sine_from     the first block whose activation is a sine
    kernel        patches that the convolution to or from them sees
    token_noise   deviation of what the original adds to empty tokens
    """

    width: int
    depth: int
    heads: int
    segment: int
    shifted: bool
    window: tuple[int, int]
    sine_from: int
    kernel: int
    token_noise: float


@dataclass(frozen=True)
class SameConfig:
    """The facts of one SAME.

    patch   samples of a patch
    group   patches of a latent
    """

    sample_rate: int
    channels: int
    latent_channels: int
    patch: int
    group: int
    encoder: SideConfig
    decoder: SideConfig

    def __post_init__(self) -> None:
        if not 1 <= self.hop_length * self.channels <= MAX_WIDTH:
            raise ModelError(f"the configuration does not describe a SAME: {self}")
        for side in (self.encoder, self.decoder):
            if side.segment % (self.group + 1) or (side.shifted and side.segment % 2):
                raise ModelError(
                    f"segments of {side.segment} tokens do not hold whole latents of {self.group + 1}"
                )

    @property
    def hop_length(self) -> int:
        return self.patch * self.group

    @property
    def together(self) -> int:
        """Latents of a segment: the encoder makes so many at a time, or a multiple."""
        return max(1, self.encoder.segment // (self.group + 1), self.decoder.segment // (self.group + 1))


def is_same(config: Mapping[str, Any]) -> bool:
    """Whether a `model_config.json` describes a SAME rather than another autoencoder."""
    model = config.get("model")
    parts = model if isinstance(model, dict) else {}
    for key in ("pretransform", "config"):
        inside = parts.get(key)
        parts = inside if isinstance(inside, dict) and "encoder" not in parts else parts
    encoder = parts.get("encoder")
    return isinstance(encoder, dict) and encoder.get("type") in KINDS


def from_stable_audio_tools(config: Mapping[str, Any]) -> SameConfig:
    """The configuration in a `model_config.json`: of an autoencoder, or of a diffusion model that holds one.

    Raises ModelError, with the reason, for autoencoders of another kind.
    """
    table = Section(config, "model_config.json does not describe a SAME")
    rate, channels = table.count("sample_rate"), table.count("audio_channels", 2)
    parts = table.section("model")
    if table.take("model_type", str, "") != "autoencoder":
        pretransform = parts.section("pretransform")
        pretransform.expect("type", "autoencoder")
        parts = pretransform.section("config")  # its scale is not read: the original passes none on
    latents, ratio = parts.count("latent_dim", most=MAX_WIDTH), parts.count("downsampling_ratio")
    parts.expect("io_channels", channels)
    patched = parts.section("pretransform")
    patched.expect("type", "patched")
    patches = patched.section("config")
    patches.expect("channels", channels)
    patch = patches.count("patch_size", most=MAX_WIDTH)
    bottleneck = parts.section("bottleneck")
    bottleneck.expect("type", "softnorm")
    softnorm = bottleneck.section("config")
    softnorm.expect("noise_augment_dim", 0)
    softnorm.expect("dim", latents)
    encoder, group = _side(parts.section("encoder"), latents, ("in_channels", channels * patch))
    decoder, mirrored = _side(parts.section("decoder"), latents, ("out_channels", channels * patch))
    if group != mirrored or patch * group != ratio:
        raise ModelError(
            f"patches of {patch} in groups of {group} and {mirrored} do not make a downsampling_ratio of "
            f"{ratio}"
        )
    return SameConfig(rate, channels, latents, patch, group, encoder, decoder)


def _side(section: Section, latents: int, outside: tuple[str, int]) -> tuple[SideConfig, int]:
    """One side, and how many patches it makes one latent of."""
    section.expect("type", *KINDS)
    own = section.section("config")
    own.expect(*outside)
    own.expect("latent_dim", latents)
    for key in ("differential", "variable_stride", "dyt"):
        own.expect(key, True)
    for key in ("conformer", "layer_scale", "conv_bias", "use_snake", "use_dilated_conv"):
        own.expect(key, False)
    own.ignore("mapping_style", "use_flash", "checkpointing", "freeze_backbone", "enable_inner_layer_dropout")
    multiples, strides, depths = (own.counts(key) for key in ("c_mults", "strides", "transformer_depths"))
    if not len(multiples) == len(strides) == len(depths) == 1:
        raise ModelError(f"{own.where}: several stages are not supported here, only one")
    width, depth, group = own.count("channels") * multiples[0], depths[0], strides[0]
    chunk, shifted = own.count("chunk_size", 0, least=0), own.take("chunk_midpoint_shift", bool, False)
    window = own.counts("sliding_window", (0, 0), least=0)
    if chunk % group or len(window) != 2 or bool(chunk) == (window != (0, 0)):
        raise ModelError(
            f"{own.where}: attention needs a chunk_size that is a multiple of the stride {group}, or a "
            f"sliding_window of two numbers, got {chunk} and {list(window)}"
        )
    sines = own.counts("sinusoidal_blocks", (0,), least=0)
    side = SideConfig(
        width=width,
        depth=depth,
        heads=_heads(width, own.count("dim_heads"), depth, own.where),
        segment=chunk // group * (group + 1),
        shifted=shifted and bool(chunk),
        window=(window[0], window[1]),
        sine_from=_sine_from(depth, sines),
        kernel=3 if own.take("conv_mapping", bool, False) else 1,
        token_noise=own.take("mask_noise", float, 0.0),
    )
    own.finish()
    return side, group


def _sine_from(depth: int, sines: Sequence[int]) -> int:
    """The original compares what is left of the blocks, so that one fewer than named have the sine."""
    if len(sines) != 1:
        raise ModelError(f"sinusoidal_blocks must be one number, got {list(sines)}")
    return max(0, depth - sines[0] + 1)


def from_diffusers(config: Mapping[str, Any]) -> SameConfig:
    """The configuration of diffusers' `AutoencoderSAME` (its config.json), which has windows alone."""
    table = Section(config, "config.json does not describe a SAME")
    table.expect("use_differential_attention", True)
    table.expect("ff_mult", FF_MULTIPLE)
    strides, multiples, depths = (
        table.counts(f"encoder_{key}") for key in ("strides", "c_mults", "transformer_depths")
    )
    if not len(strides) == len(multiples) == len(depths) == 1:
        raise ModelError(f"{table.where}: several stages are not supported here, only one")
    width, reach = table.count("encoder_channels") * multiples[0], table.count("sliding_window")
    head = table.count("dim_heads")

    def side(name: str) -> SideConfig:
        return SideConfig(
            width=width,
            depth=depths[0],
            heads=_heads(width, head, depths[0], table.where),
            segment=0,
            shifted=False,
            window=(reach, reach),
            sine_from=_sine_from(depths[0], table.counts(f"{name}_sinusoidal_blocks", (0,), least=0)),
            kernel=1,
            token_noise=0.0,
        )

    return SameConfig(
        sample_rate=table.count("sampling_rate"),
        channels=table.count("audio_channels", 2),
        latent_channels=table.count("latent_dim", most=MAX_WIDTH),
        patch=table.count("patch_size", most=MAX_WIDTH),
        group=strides[0],
        encoder=side("encoder"),
        decoder=side("decoder"),
    )


def _heads(width: int, head: int, depth: int, where: str) -> int:
    """Heads of that width, of which half the channels are turned in pairs."""
    if width > MAX_WIDTH or depth > MAX_LAYERS:
        raise ModelError(f"{where}: {depth} blocks of width {width} are too many")
    if width % head or head // 2 % 2 or head < 4:
        raise ModelError(f"{where}: heads of {head} do not fill the width {width}, half of them in pairs")
    return width // head


# The network


@dataclass(frozen=True)
class Fold:
    """Patches: `size` samples of all channels as the channels of one step."""

    size: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.fold(x, self.size)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return -(-left // self.size), -(-right // self.size)


@dataclass(frozen=True)
class Unfold:
    """Patches as samples again."""

    size: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.unfold(x, self.size)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return left * self.size, right * self.size


@dataclass(frozen=True, eq=False)
class Insert:
    """After every `size` steps `count` empty ones, which all are `token`.

    noise  added to them, of this deviation; None: none is
    """

    size: int
    count: int
    token: Float  # (width,)
    deviation: float = 0.0
    noise: Noise | None = None

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        groups = ops.fold(x, self.size)
        empty = ops.spread(ops.vector(np.tile(self.token, self.count)), groups)
        if self.noise is not None and self.deviation:
            steps = ops.length(groups)
            drawn = self.noise.normal((steps, self.count, len(self.token)))  # of one clip
            empty = empty + ops.signal(drawn.reshape(1, steps, -1).transpose(0, 2, 1)) * self.deviation
        return ops.unfold(ops.stack([groups, empty]), self.size + self.count)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        whole = self.size + self.count
        return -(-left // self.size) * whole, -(-right // self.size) * whole


@dataclass(frozen=True)
class Keep:
    """Of every `size` steps those from `start` to `stop`; steps have `width` channels."""

    size: int
    start: int
    stop: int
    width: int

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        groups = ops.fold(x, self.size)
        return ops.unfold(ops.channels(groups, self.start * self.width, self.stop * self.width), self.kept)

    @property
    def kept(self) -> int:
        return self.stop - self.start

    def reach(self, left: int, right: int) -> tuple[int, int]:
        return -(-left // self.size) * self.kept, -(-right // self.size) * self.kept


@dataclass(frozen=True, eq=False)
class Squash:
    """gamma tanh(alpha x) + beta, in the place of a norm."""

    alpha: float
    gamma: Weight
    beta: Weight

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        return ops.dynamic_tanh(x, self.alpha, self.gamma, self.beta)


@dataclass(frozen=True, eq=False)
class Block:
    """Differential attention, then a gated feed-forward part; each added to what came in."""

    width: int
    pre_norm: Squash
    qkv: Weight  # q, k, v, and the q and k of what is taken off, below one another
    q_norm: Squash
    k_norm: Squash
    out: Weight
    ff_norm: Squash
    up: tuple[Weight, Weight]
    down: tuple[Weight, Weight]
    sine: bool

    def __call__(self, ops: Ops, x: Signal, how: Attention) -> Signal:
        inner = ops.conv(self.pre_norm(ops, x), self.qkv)
        q, k, v, q2, k2 = (ops.channels(inner, i * self.width, (i + 1) * self.width) for i in range(5))
        mixed = ops.attention(self.q_norm(ops, q), self.k_norm(ops, k), v, how)
        mixed = mixed - ops.attention(self.q_norm(ops, q2), self.k_norm(ops, k2), v, how)
        x = x + ops.conv(mixed, self.out)
        inner, hidden = ops.conv(self.ff_norm(ops, x), *self.up), FF_MULTIPLE * self.width
        gate = ops.channels(inner, hidden, 2 * hidden)
        gate = ops.sine(gate, SINE_RATE) if self.sine else ops.silu(gate)
        return x + ops.conv(ops.channels(inner, 0, hidden) * gate, *self.down)


@dataclass(frozen=True, eq=False)
class Transformer:
    """Blocks over tokens, the second half of which may see segments that lie half of one further on.

    What hangs over at both ends is then a copy of the tokens there, and is thrown away at the end.
    """

    blocks: Sequence[Block]
    attention: Attention
    shifted: bool

    def __call__(self, ops: Ops, x: Signal) -> Signal:
        half = len(self.blocks) // 2 if self.shifted else len(self.blocks)
        for block in self.blocks[:half]:
            x = block(ops, x, self.attention)
        if not self.shifted:
            return x
        shift, length = self.attention.segment // 2, ops.length(x)
        x = ops.concat([ops.trim(x, 0, length - shift), x, ops.trim(x, length - shift, 0)])
        for block in self.blocks[half:]:
            x = block(ops, x, self.attention)
        return ops.trim(x, shift, shift)

    def reach(self, left: int, right: int) -> tuple[int, int]:
        segment, (before, after) = self.attention.segment, self.attention.window
        if not segment:
            return left + len(self.blocks) * before, right + len(self.blocks) * after
        shift = segment // 2 if self.shifted else 0
        return -(-left // segment) * segment + shift, -(-right // segment) * segment + shift


class Same(Autoencoder):
    """A SAME. A clip has one set of latents: nothing is drawn, unless the original's noise is asked for.

    A clip has whole segments of latents: of SAME-S an even number, of which the last may be of silence.

    config  its facts
    """

    def __init__(
        self,
        info: AutoencoderInfo,
        ops: Ops,
        config: SameConfig,
        *,
        encoder: Sequence[Layer],
        decoder: Sequence[Layer],
    ) -> None:
        self.config = config
        self._encoder_layers, self._decoder_layers = encoder, decoder
        samples = config.together * config.hop_length
        super().__init__(
            info,
            ops,
            encoder=[Convolutional(encoder, down=samples, up=config.together)],
            decoder=[Convolutional(decoder, down=config.together, up=samples)],
        )

    @property
    def reach(self) -> int:
        """Latents after one that its sound may depend on, and some more."""
        (stage,) = self._decoder
        assert isinstance(stage, Convolutional)
        return stage.context[1]

    def encode(self, audio: Audio, noise: Noise | None = None) -> Latents:
        """The latents of a clip; with `noise`, which SAME-L draws from, as the original makes them."""
        if noise is None:
            return super().encode(audio)
        self.info.check(audio)
        values = self.encode_as_original(audio.samples, noise)
        return Latents(values, self.info.frame_rate, self.info.name, length=audio.samples.shape[1])

    def encode_blocks(self, blocks: Iterable[Float]) -> Iterator[Float]:
        """Blocks (channels, samples) of one clip -> float32 blocks (latent_channels, frames).

        However the clip is cut into blocks, the frames are those of the whole clip to float32 rounding.
        """
        chunks = signals(self.ops, blocks, self.chunk_frames * self.info.hop_length)
        yield from arrays(self.ops, self._encoder, chunks)

    def encode_as_original(
        self, samples: Float, noise: Noise | None = None, cut: int = CUT, overlap: int = OVERLAP
    ) -> Float:
        """(channels, samples) -> (latent_channels, frames), with its cuts, and its noise where that is given.

        It encodes a clip of `cut` latents or more in pieces that share `overlap`, and joins them without a
        seam: where that is not between segments, latents near it differ from those of the whole clip.
        """
        hop = self.info.hop_length
        samples = np.pad(samples, ((0, 0), (0, -samples.shape[1] % hop)))

        def encoded(start: int, stop: int) -> Float:
            return self._run(self._encoder_layers, samples[:, start * hop : stop * hop], noise)

        return _in_pieces(encoded, samples.shape[1] // hop, cut, overlap, 1)

    def decode_as_original(
        self, values: Float, noise: Noise | None = None, cut: int = CUT, overlap: int = OVERLAP
    ) -> Float:
        """(latent_channels, frames) -> (channels, samples), as `encode_as_original`."""

        def decoded(start: int, stop: int) -> Float:
            part = values[:, start:stop]
            if noise is not None:
                part = part + noise.normal((1, *part.shape))[0] * np.float32(LATENT_NOISE)
            return self._run(self._decoder_layers, part, noise)

        return _in_pieces(decoded, values.shape[1], cut, overlap, self.info.hop_length)

    def _run(self, layers: Sequence[Layer], x: Float, noise: Noise | None) -> Float:
        noisy = [replace(layer, noise=noise) if isinstance(layer, Insert) else layer for layer in layers]
        made: Float = self.ops.numpy(run(self.ops, noisy, self.ops.signal(x[None])))[0]
        return made


def _in_pieces(work: Callable[[int, int], Float], frames: int, cut: int, overlap: int, steps: int) -> Float:
    """What `work` makes of pieces from one frame to another, `steps` of each, cut off within overlaps."""
    if frames < cut:
        return work(0, frames)
    starts = list(range(0, frames - cut + 1, cut - overlap))
    if starts[-1] + cut < frames:
        starts.append(frames - cut)
    parts = []
    for start, following in pairwise([*starts, frames - overlap // 2]):
        first = 0 if start == 0 else overlap // 2
        last = following + overlap // 2 - start
        parts.append(work(start, start + cut)[:, first * steps : last * steps])
    return np.concatenate(parts, axis=1)


def stable_audio_tools_weights(weights: Weights) -> Weights:
    """The autoencoder's tensors of a checkpoint of stable-audio-tools or stable-audio-3, in our names."""
    found = weights.networks({"": IN_STABLE_AUDIO_TOOLS}, among=True)
    if not found:
        raise WeightsError(
            f"{weights.source}: {weights.begins()}no SAME among {len(weights)} tensors; expected names that "
            "begin with pretransform.model.encoder.layers.0. or encoder.layers.0."
        )
    return found[""].apply(STABLE_AUDIO_TOOLS)


def build(config: SameConfig, weights: Weights, ops: Ops, name: str | None = None) -> Same:
    """An autoencoder from its configuration and weights in our names, strictly.

    `name` is the id; without one it is derived from the rate and the hash of the decoder's first weights.
    Raises WeightsError when a tensor is missing, left over, misshapen or not finite.
    """
    latents, encoder, decoder = config.latent_channels, config.encoder, config.decoder
    tokens = config.group + 1
    deviation = float(weights.take("bottleneck.running_std", (1,))[0])
    if deviation <= 0:
        raise WeightsError(f"{weights.source}: bottleneck.running_std is {deviation}, expected more than 0")
    scale = weights.take("bottleneck.scale", (1, latents, 1)).reshape(-1) / np.float32(deviation)
    offset = weights.take("bottleneck.bias", (1, latents, 1)).reshape(-1) / np.float32(deviation)
    inward = weights.take("encoder.project.weight", (latents, encoder.width))
    inward_bias = weights.take("encoder.project.bias", (latents,))
    outward = weights.take("decoder.project.weight", (decoder.width, latents))
    outward_bias = weights.take("decoder.project.bias", (decoder.width,))
    network = _Network(config, weights, ops)
    info = AutoencoderInfo(
        name=name or f"same-{config.sample_rate // 1000}khz@{fingerprint(outward)}",
        sample_rate=config.sample_rate,
        channels=config.channels,
        hop_length=config.hop_length,
        latent_channels=latents,
    )
    encoder_layers: list[Layer] = [
        PadToMultiple(config.hop_length * config.together),
        Fold(config.patch),
        network.mapping("encoder", encoder),
        network.empty("encoder", encoder, config.group, 1),
        network.transformer("encoder", encoder),
        Keep(tokens, config.group, tokens, encoder.width),
        # The bottleneck is linear too, and part of the layer before it.
        network.linear(inward * scale[:, None], inward_bias * scale + offset),
    ]
    decoder_layers: list[Layer] = [
        network.linear(outward * np.float32(deviation), outward_bias),
        PadToMultiple(config.together),  # after the layer, whose bias is not in the filling
        network.empty("decoder", decoder, 1, config.group),
        network.transformer("decoder", decoder),
        Keep(tokens, 1, tokens, decoder.width),
        network.mapping("decoder", decoder),
        Unfold(config.patch),
    ]
    weights.finish()
    return Same(info, ops, config, encoder=encoder_layers, decoder=decoder_layers)


class _Network:
    """Layers with their weights."""

    def __init__(self, config: SameConfig, weights: Weights, ops: Ops) -> None:
        self.config, self.weights, self.ops = config, weights, ops

    def linear(self, weight: NDArray[np.floating], bias: NDArray[np.floating]) -> Conv:
        return Conv(self.ops.conv_weight(weight[..., None]), self.ops.vector(bias), kernel=1)

    def empty(self, at: str, side: SideConfig, size: int, count: int) -> Insert:
        token = self.weights.take(f"{at}.new_tokens", (1, 1, side.width)).reshape(-1)
        return Insert(size, count, token, side.token_noise)

    def mapping(self, at: str, side: SideConfig) -> Conv:
        """From patches, or to them. Their channels come one after another in the file, their samples here."""
        channels, patch = self.config.channels, self.config.patch
        inward = at == "encoder"
        shape = (side.width, channels * patch) if inward else (channels * patch, side.width)
        weight = self.weights.take(f"{at}.mapping.weight", (*shape, side.kernel))
        bias = self.weights.take(f"{at}.mapping.bias", shape[:1])
        order = np.arange(channels * patch).reshape(channels, patch).T.reshape(-1)
        weight, bias = (weight[:, order], bias) if inward else (weight[order], bias[order])
        around = side.kernel // 2
        return Conv(
            self.ops.conv_weight(weight), self.ops.vector(bias), side.kernel, left=around, right=around
        )

    def transformer(self, at: str, side: SideConfig) -> Transformer:
        tokens = self.config.group + 1
        how = Attention(
            heads=side.heads,
            turned=side.width // side.heads // 2,
            segment=side.segment,
            window=(side.window[0] * tokens, side.window[1] * tokens),
        )
        blocks = [self.block(f"{at}.blocks.{i}", side, i >= side.sine_from) for i in range(side.depth)]
        return Transformer(blocks, how, side.shifted)

    def block(self, at: str, side: SideConfig, sine: bool) -> Block:
        width, hidden, take = side.width, FF_MULTIPLE * side.width, self.weights.take
        parts = [take(f"{at}.attn.{name}.weight", (width, width)) for name in ("q", "k", "v", "q2", "k2")]
        return Block(
            width=width,
            pre_norm=self.squash(f"{at}.pre_norm", width),
            qkv=self.ops.conv_weight(np.concatenate(parts)[..., None]),
            q_norm=self.squash(f"{at}.attn.q_norm", width // side.heads, side.heads),
            k_norm=self.squash(f"{at}.attn.k_norm", width // side.heads, side.heads),
            out=self.ops.conv_weight(take(f"{at}.attn.to_out.weight", (width, width))[..., None]),
            ff_norm=self.squash(f"{at}.ff_norm", width),
            up=self.matrix(f"{at}.ff.up", (2 * hidden, width)),
            down=self.matrix(f"{at}.ff.down", (width, hidden)),
            sine=sine,
        )

    def matrix(self, at: str, shape: tuple[int, int]) -> tuple[Weight, Weight]:
        weight = self.weights.take(f"{at}.weight", shape)
        bias = self.weights.take(f"{at}.bias", shape[:1])
        return self.ops.conv_weight(weight[..., None]), self.ops.vector(bias)

    def squash(self, at: str, width: int, times: int = 1) -> Squash:
        """One for so many heads side by side."""
        gamma, beta = (
            self.ops.vector(np.tile(self.weights.take(f"{at}.{name}", (width,)), times))
            for name in ("gamma", "beta")
        )
        return Squash(float(self.weights.take(f"{at}.alpha", (1,))[0]), gamma, beta)
