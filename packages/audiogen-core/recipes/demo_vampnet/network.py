"""The package's own network made ready to learn, and as the exporter takes it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from settings import Part
from torch import Tensor, nn

from audiogen_core.compose import TEMPI
from audiogen_onnx.exporter.config import NetworkConfig
from audiogen_onnx.exporter.model import Checkpoint, CodebookEmbedding, VampNet


class LearningEmbedding(CodebookEmbedding):
    """The codec's vectors stay as they are, the mask vectors are learned."""

    def __init__(self, config: NetworkConfig, vectors: Tensor) -> None:
        super().__init__(config)
        del self.tables
        self.register_buffer("vectors", vectors)
        self.mask = nn.Parameter(torch.randn(config.codebooks, config.codebook_dim))

    def latents(self, codes: Tensor) -> Tensor:
        books = torch.arange(codes.shape[1])[:, None]
        masked = codes == self.vectors.shape[1]
        found = self.vectors[books, codes.masked_fill(masked, 0)]  # (B, K, T, D)
        found = torch.where(masked[..., None], self.mask[:, None], found)
        return found.transpose(1, 2).flatten(2)


def configuration(part: Part, codec_vectors: NDArray[np.float32]) -> NetworkConfig:
    """The network of a part, over the codebooks of a codec."""
    _, size, dim = codec_vectors.shape
    return NetworkConfig(
        layers=part.layers,
        heads=part.heads,
        width=part.width,
        codebooks=part.codebooks,
        conditioning_codebooks=part.conditioning,
        codebook_size=size,
        codebook_dim=dim,
        buckets=part.buckets,
        furthest=part.furthest,
    )


def fresh(part: Part, codec_vectors: NDArray[np.float32], seed: int) -> VampNet:
    """A network with first weights. Each codebook's vectors are brought to mean 0 and variance 1."""
    config = configuration(part, codec_vectors)
    vectors = torch.from_numpy(codec_vectors[: config.codebooks])
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    vectors = vectors / vectors.std(dim=(1, 2), keepdim=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = VampNet(config)
        net.embedding = LearningEmbedding(config, vectors)
        with torch.no_grad():
            net.position_bias.weight.copy_(_first_bias(net))
            net.classifier.weight.normal_(std=0.02)
            net.classifier.bias.zero_()
            for layer in net.layers:
                layer.attention.output.weight.div_(math.sqrt(2 * config.layers))
                layer.feed_forward.down.weight.div_(math.sqrt(2 * config.layers))
    return net


def _first_bias(net: VampNet) -> Tensor:
    """What each head favours at first, (buckets, heads): the next frame, the one before, closer and wider
    surroundings, and whole numbers of beats in each of the composer's tempi. All layers share this table, and
    it would take a long time to learn from nothing.
    """
    table, furthest = net.position_bias, net.config.furthest
    relative = torch.arange(-furthest, furthest + 1)
    away = relative.abs()
    rows = [-(relative - 1.0).abs(), -(relative + 1.0).abs(), -0.3 * away, -0.03 * away]
    for beat in (4 * frames for frames in sorted(TEMPI.values())):
        off = (relative + beat // 2) % beat - beat // 2
        rows.append(-2.0 * off.abs() - 0.005 * away)
    rows.append(torch.zeros(len(relative)))
    wanted = torch.stack([rows[head % len(rows)] for head in range(net.config.heads)], dim=1).clamp(min=-10.0)
    bucket = table.bucket(relative)
    sums = torch.zeros_like(table.weight).index_add(0, bucket, wanted)
    return sums / torch.bincount(bucket, minlength=len(sums)).clamp(min=1)[:, None]


def checkpoint(net: VampNet) -> Checkpoint:
    """The trained network as the exporter takes one."""
    state: dict[str, Any] = {
        name: values.detach().float().numpy() for name, values in net.state_dict().items()
    }
    vectors, mask = state.pop("embedding.vectors"), state.pop("embedding.mask")
    state["embedding.tables"] = np.concatenate([vectors, mask[:, None]], axis=1)
    return Checkpoint(net.config, state)
