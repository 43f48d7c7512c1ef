"""A small network that names a clip's style and tempo, trained in seconds on pieces of its own.

Style is told from the log-mel spectrogram by convolutions; tempo from how the rises of its bands agree with
themselves some frames later, where a sixteenth of 9, 10 or 12 frames shows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from spectra import BANDS, log_mel
from torch import Tensor, nn

from audiogen_core.audio import Audio
from audiogen_core.codec import Codec
from audiogen_core.compose import DEFAULT_STYLES, STYLES, TEMPI, compose

FIRST_PIECE = 3_000_000_000
"""Seeds of the pieces it is trained on: neither trained on nor judged by elsewhere."""

TEMPO_NAMES = tuple(TEMPI)
LAGS = 120  # frames


class Network(nn.Module):
    def __init__(self, styles: int) -> None:
        super().__init__()
        self.colour = nn.Sequential(
            nn.Conv1d(BANDS, 48, 5, stride=2), nn.GELU(), nn.Conv1d(48, 48, 5, stride=2), nn.GELU()
        )
        self.style = nn.Linear(96, styles)
        self.tempo = nn.Sequential(nn.Linear(LAGS, 32), nn.GELU(), nn.Linear(32, len(TEMPO_NAMES)))

    def forward(self, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """(clips, frames, bands) -> logits of styles and of tempi."""
        seen = self.colour(spectra.transpose(1, 2))
        both = torch.cat([seen.mean(dim=2), seen.amax(dim=2)], dim=1)
        return self.style(both), self.tempo(agreements(spectra))


def agreements(spectra: Tensor) -> Tensor:
    """How the rises of the bands agree with themselves 1 to LAGS frames later: (clips, LAGS)."""
    rises = torch.relu(spectra[:, 2:] - spectra[:, :-2]).mean(dim=2)
    rises = rises - rises.mean(dim=1, keepdim=True)
    size = 2 * rises.shape[1]
    power = torch.fft.rfft(rises, size).abs() ** 2
    curve = torch.fft.irfft(power, size)[:, : LAGS + 1]
    return torch.div(curve[:, 1:], curve[:, :1] + 1e-6)


class Classifier:
    """Knows nothing until it is trained, or loaded with what was trained before.

    styles  that it tells apart; others than the default ones take turns among its pieces
    """

    def __init__(self, styles: Sequence[str] = DEFAULT_STYLES) -> None:
        self.styles = tuple(styles)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self._network = Network(len(self.styles))

    def train(self, codec: Codec, *, pieces: int = 240, seconds: float = 10.0, rounds: int = 40) -> None:
        """Train on so many pieces, half of them as the codec gives them back; each time with one result."""
        usual = self.styles == DEFAULT_STYLES  # which the composer draws by itself
        drawn = [None if usual else self.styles[i % len(self.styles)] for i in range(pieces)]
        made = [compose(FIRST_PIECE + i, seconds=seconds, style=style) for i, style in enumerate(drawn)]
        sounds = [_heard(piece.audio, codec, i) for i, piece in enumerate(made)]
        spectra = torch.stack([torch.from_numpy(log_mel(sound)) for sound in sounds])
        styles = torch.tensor([self.styles.index(piece.attributes["style"]) for piece in made])
        tempi = torch.tensor([TEMPO_NAMES.index(piece.attributes["tempo"]) for piece in made])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            _train(self._network, spectra, styles, tempi, rounds)

    def state(self) -> dict[str, Tensor]:
        """What `load` takes."""
        return self._network.state_dict()

    def load(self, state: dict[str, Tensor]) -> None:
        self._network.load_state_dict(state)

    def __call__(self, audio: Audio) -> dict[str, str]:
        """The style, tempo and lead of a clip."""
        with torch.inference_mode():
            style, tempo = self._network(torch.from_numpy(log_mel(audio))[None])
        name = self.styles[int(style.argmax())]
        return {"style": name, "tempo": TEMPO_NAMES[int(tempo.argmax())], "lead": STYLES[name].lead}


def _heard(audio: Audio, codec: Codec, index: int) -> Audio:
    """Every second piece goes through the codec, with 4 or 8 codebooks in turn."""
    if index % 2:
        return audio
    return codec.decode(codec.encode(audio, 4 if index % 4 else 8))


def _train(network: Network, spectra: Tensor, styles: Tensor, tempi: Tensor, rounds: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.01)
    loss = nn.CrossEntropyLoss()
    for _ in range(rounds):
        for rows in torch.split(torch.randperm(len(spectra)), 16):
            start = int(torch.randint(0, 150, ()))
            style, tempo = network(spectra[rows, start : start + 500])
            optimizer.zero_grad()
            (loss(style, styles[rows]) + loss(tempo, tempi[rows])).backward()
            optimizer.step()


def accuracy(answers: Sequence[dict[str, str]], facts: Sequence[dict[str, str]], name: str) -> float:
    """The share of answers that agree with the captions that say something; nan when none does."""
    pairs = [(answer[name], fact[name]) for answer, fact in zip(answers, facts, strict=True) if name in fact]
    agree: NDArray[np.bool_] = np.array([one == other for one, other in pairs])
    return float(agree.mean()) if len(agree) else float("nan")
