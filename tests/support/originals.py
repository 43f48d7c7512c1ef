"""EnCodec and DAC as their authors wrote them, at full size, with random weights that carry real sound.

Plain random weights let a signal die away over forty layers, and with it whatever goes wrong on the way. Here
every convolution is scaled so that what it makes of a recording varies over time with variance one, and each
codebook of EnCodec so that it takes away as much as a trained one.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from support.recordings import use_originals

DAC_SETTINGS: dict[str, dict[str, Any]] = {
    "44k": {},
    "24k": {
        "encoder_rates": [2, 4, 5, 8],
        "decoder_rates": [8, 5, 4, 2],
        "n_codebooks": 32,
        "sample_rate": 24000,
    },
}


def encodec(size: str, sound: Tensor, path: Path) -> Any:
    """The published model of 24 or 48 kHz; its weights are written to `path`. `sound` is (1, C, T)."""
    use_originals()
    from encodec import EncodecModel

    torch.manual_seed(1)
    make = EncodecModel.encodec_model_24khz if size == "24k" else EncodecModel.encodec_model_48khz
    model = make(pretrained=False).eval()
    model.set_target_bandwidth(model.target_bandwidths[-1])
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.GroupNorm):
                layer.weight.normal_(1, 0.2)
                layer.bias.normal_(0, 0.2)
        if model.normalize:
            sound = sound[..., : model.segment_length] / sound.std()
        latents = _levelled(model, lambda: model.encoder(sound))
        residual = latents[0].T  # (F, D)
        for layer in model.quantizer.vq.layers:
            book = layer._codebook
            drawn = torch.randn_like(book.embed) * residual.std(dim=0)
            book.embed.copy_(
                residual.mean(dim=0) + 0.33 * drawn
            )  # of a length that the nearest has in common
            residual = residual - book.embed[torch.cdist(residual, book.embed).argmin(dim=1)]
        _levelled(model, lambda: model.decoder(latents[..., :150]))
    torch.save(model.state_dict(), path)
    return model


def dac(size: str, sound: Tensor, path: Path) -> Any:
    """The published model of 24 or 44.1 kHz; its checkpoint is written to `path`. `sound` is (1, 1, T)."""
    use_originals()
    from dac import DAC

    torch.manual_seed(2)
    model = DAC(**DAC_SETTINGS[size]).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("alpha"):
                parameter.copy_(torch.randn_like(parameter).abs() + 0.5)
        made = _levelled(model, lambda: model.encode(model.preprocess(sound, None)))
        _levelled(model, lambda: model.decode(made[0][..., :100]))
    kwargs = {
        name: getattr(model, name)
        for name in (
            "encoder_dim",
            "encoder_rates",
            "decoder_dim",
            "decoder_rates",
            "n_codebooks",
            "codebook_size",
            "codebook_dim",
            "sample_rate",
        )
    }
    torch.save({"state_dict": model.state_dict(), "metadata": {"kwargs": kwargs}}, path)
    return model


def _levelled(model: nn.Module, run: Callable[[], Any]) -> Any:
    """What `run` makes, every convolution on the way scaled and shifted to variance one and mean zero."""

    def level(layer: Any, _: Any, made: Tensor) -> Tensor:
        middle = made.mean(dim=2, keepdim=True)  # of each channel over time
        gain = 1 / (made - middle).std()
        (layer.weight_g if hasattr(layer, "weight_g") else layer.weight).mul_(gain)
        layer.bias.sub_(middle[0, :, 0]).mul_(gain)
        return (made - middle) * gain

    kinds = (nn.Conv1d, nn.ConvTranspose1d)
    hooks = [layer.register_forward_hook(level) for layer in model.modules() if isinstance(layer, kinds)]
    try:
        return run()
    finally:
        for hook in hooks:
            hook.remove()
