"""The demo codec's training recipe: a tiny run from settings to a file that the package loads."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from audiogen_core import Audio, codecs
from audiogen_core.compose import compose
from audiogen_core.errors import OptionError
from support import recipes

RECIPE = recipes.RECIPES / "demo_codec"

TINY = {
    "width": 16,
    "encoder_blocks": 1,
    "decoder_blocks": 1,
    "dimension": 8,
    "codebooks": 2,
    "codebook_size": 32,
    "pool": 2,
    "piece_seconds": 2.0,
    "steps_per_piece": 3,
    "batch": 2,
    "excerpt_frames": 12,
    "plain_steps": 5,
    "codebook_counts": [2, 1],
    "warmup": 2,
    "checkpoint_every": 20,
    "evaluate_every": 20,
    "start_batches": 2,
    "batches": 2,
    "rounds": 3,
    "step": 14,
}
UNTIL = (9, 14, 20)


@pytest.fixture(scope="module")
def recipe() -> Iterator[recipes.Modules]:
    with recipes.recipe("demo_codec") as modules:
        yield modules


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = recipes.tiny("demo_codec", TINY, tmp_path_factory.mktemp("config"))
    text, until = path.read_text(encoding="utf-8"), iter(UNTIL)
    text = re.sub(r"(?m)^until = [\d_]+", lambda _: f"until = {next(until)}", text)
    text = re.sub(r"(?m)^since = 18_500", "since = 14", text)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_script(name: str, *arguments: object) -> str:
    command = [sys.executable, str(RECIPE / name), *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=200).stdout.strip()


@pytest.mark.slow
def test_twenty_steps_make_a_file_that_the_package_loads(recipe, config, tmp_path):
    checkpoint = run_script("train.py", "--config", config, "--out", tmp_path / "run")
    codec = codecs.load(recipe.export.export(Path(checkpoint), tmp_path / "codec.safetensors"))
    assert (codec.info.codebooks, codec.info.codebook_size, codec.info.hop_length) == (2, 32, 320)
    piece = compose(1, seconds=1).audio
    assert codec.decode(codec.encode(piece)).samples.shape == piece.samples.shape
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 20
    assert all(np.isfinite(value) for value in lines[-1].values())
    assert {"on, 2 codebooks: si-sdr", "other styles, 4 codebooks: mel"} <= set(lines[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_stopped_run_goes_on_to_the_same_result(recipe, config, tmp_path):
    settings = recipe.settings.Settings.read(config)
    whole = recipe.train.Run(settings)
    for step in range(20):
        terms = whole.advance()
        assert np.isfinite(list(terms.values())).all()
        if step + 1 in (7, 9, 14, 17):
            whole.save(tmp_path / f"{step + 1}.pt")
    for start in (7, 9, 14, 17):
        again = recipe.train.Run(settings)
        again.restore(tmp_path / f"{start}.pt")
        while again.step < 20:
            again.advance()
        for part in ("network", "quantizer"):
            expected = getattr(whole, part).state_dict()
            for name, value in getattr(again, part).state_dict().items():
                torch.testing.assert_close(value, expected[name], rtol=0, atol=0, msg=f"{start}: {name}")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_last_phase_leaves_the_codes_as_they_are(recipe, config):
    run = recipe.train.Run(recipe.settings.Settings.read(config))
    while run.step < 15:
        run.advance()
    before = {name: value.clone() for name, value in run.network.state_dict().items()}
    books = run.quantizer.books.clone()
    while run.step < 20:
        run.advance()
    torch.testing.assert_close(run.quantizer.books, books, rtol=0, atol=0)
    for name, value in run.network.state_dict().items():
        changed = not torch.equal(value, before[name])
        assert changed == (name.startswith("decoder.")), name


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("samples", [320, 4000, 24000])
def test_the_package_runs_the_network_that_was_trained(recipe, config, tmp_path, samples):
    run = recipe.train.Run(recipe.settings.Settings.read(config))
    while run.step < 8:
        run.advance()
    run.save(tmp_path / "c.pt")
    codec = codecs.load(recipe.export.export(tmp_path / "c.pt", tmp_path / "c.safetensors", exact=True))
    x = compose(2, seconds=2).audio.samples[:, 960 : 960 + samples]
    padded = np.pad(x, ((0, 0), (0, -samples % 320)))
    run.quantizer.eval()
    with torch.no_grad():
        quantised, _, indices = run.quantizer(run.network.encode(torch.from_numpy(padded)), 2)
        expected = run.network.decode(quantised)[:, :samples]
    codes = codec.encode(Audio(x, 24000))
    assert (codes.values == indices.numpy()).mean() > 0.99
    (decoded,) = codec.decode_blocks([indices.numpy()])
    np.testing.assert_allclose(decoded[:, :samples], expected, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_equal_checkpoints_give_equal_bytes(recipe, config, tmp_path):
    run = recipe.train.Run(recipe.settings.Settings.read(config))
    run.save(tmp_path / "c.pt")
    first = recipe.export.export(tmp_path / "c.pt", tmp_path / "a.safetensors").read_bytes()
    script = run_script("export.py", tmp_path / "c.pt", "-o", tmp_path / "b.safetensors")
    assert Path(script).read_bytes() == first


def test_settings_are_read_strictly(recipe, config, tmp_path):
    text = config.read_text(encoding="utf-8")
    wrong = tmp_path / "wrong.toml"
    for old, new, message in [
        ("dead = ", "deaad = ", "deaad, dead"),
        ("[refit]", "[other]", "other"),
        ("seed = 0\n", "seed = \n", "TOML"),
    ]:
        wrong.write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(OptionError, match=message):
            recipe.settings.Settings.read(wrong)
    with pytest.raises(OptionError, match="cannot be read"):
        recipe.settings.Settings.read(tmp_path / "none.toml")


def test_a_checkpoint_of_other_settings_is_refused(recipe, config, tmp_path):
    run = recipe.train.Run(recipe.settings.Settings.read(config))
    run.save(tmp_path / "c.pt")
    other = tmp_path / "other.toml"
    other.write_text(config.read_text().replace("clip = 5.0", "clip = 4.0"), encoding="utf-8")
    with pytest.raises(OptionError, match="other settings"):
        recipe.train.Run(recipe.settings.Settings.read(other)).restore(tmp_path / "c.pt")


def test_the_learning_rate_warms_up_and_falls(recipe):
    settings = recipe.settings.Settings.read(RECIPE / "config.toml")
    rates = [recipe.train.learning_rate(step, settings) for step in range(settings.steps)]
    assert rates[0] == pytest.approx(1e-3 / 200)
    assert max(rates) == pytest.approx(1e-3, rel=1e-3)
    assert rates[18499] < 2e-5 < rates[18800] <= 3e-4
    assert 2e-6 < rates[-1] < 4e-6


def test_distances_are_zero_for_equal_sounds_and_grow_with_noise(recipe):
    x = torch.from_numpy(np.array(compose(4, seconds=1).audio.samples))
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(x.shape).astype(np.float32))
    none, little, much = (recipe.losses.distances(x + level * noise, x) for level in (0, 0.01, 0.1))
    assert max(map(float, none)) < 1e-4
    for less, more in zip(little, much, strict=True):
        assert 0 < float(less) < float(more)


def test_the_ratio_is_that_of_the_noise_whatever_the_gain(recipe):
    draw = np.random.default_rng(0)
    x, noise = (torch.from_numpy(draw.standard_normal((1, 1 << 16))) for _ in range(2))
    for gain in (0.1, 1.0, 5.0):
        ratio = recipe.losses.si_sdr(gain * (x + 0.1 * noise), x)
        assert float(ratio[0]) == pytest.approx(20, abs=0.1)


def test_refitted_codebooks_serve_better(recipe, config):
    settings = recipe.settings.Settings.read(config)
    draws = torch.Generator().manual_seed(0)
    quantizer = recipe.quantizer.Quantizer(settings.codec, settings.quantizer, draws).eval()
    x = torch.randn(3000, 8, generator=draws)
    quantizer.books.normal_(generator=draws)
    quantizer.books[0][5] = 100.0  # an entry that nothing falls to
    errors = []
    for rounds in (0, 6):
        if rounds:
            quantizer.refit(x, rounds)
        errors.append(float((quantizer(x[None], 2)[0] - x).square().mean()))
    assert errors[1] < 0.5 * errors[0]
    assert float(quantizer.books[0].abs().max()) < 10


def test_evaluation_tells_codecs_and_opus_apart(recipe):
    clips = [compose(seed, seconds=2).audio.samples for seed in range(2)]
    codec = codecs.load("demo", "torch")
    few, many = recipe.evaluate.codec_rows(codec, clips, (1, 8))
    assert (few["kbps"], many["kbps"]) == (0.8, 6.0)
    assert many["mel"] < few["mel"]
    rates = [recipe.evaluate._opus_rate(level, clips) for level in (1.0, 0.5)]
    assert rates[0] < rates[1]
    facts = recipe.evaluate.codebook_facts(codec, clips)
    assert len(facts["nats"]) == 8
    assert all(1 <= value <= 1024 for value in facts["perplexity"])
    assert "| 8 codebooks | 6.0 |" in recipe.evaluate.table([few, many])
