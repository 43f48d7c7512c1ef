"""Exports: what transformers loads agrees with the model, and what it cannot load is refused."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from audiogen_core.errors import ModelError, OptionError
from audiogen_minigpt.config import ModelConfig
from audiogen_minigpt.export import export, export_model
from audiogen_minigpt.model import GPT
from support.tiny_models import some_codes, tiny_config, tiny_model

FACTS = {"codec": "nothing", "codec_hash": "00000000", "sample_rate": 8000}


@pytest.mark.parametrize("layout", ["first", "flatten"])
def test_gpt2_lm_head_model_agrees(layout: str, tmp_path: Path) -> None:
    from transformers import GPT2LMHeadModel

    config = tiny_config("gpt2", layout)
    model = tiny_model(config)
    theirs, info = GPT2LMHeadModel.from_pretrained(
        export_model(model, config, FACTS, tmp_path / "out"), output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    tokens = model.layout.tokens(some_codes(config, config.context // model.layout.steps_per_frame))
    with torch.no_grad():
        ours, full = model(tokens), theirs.eval()(tokens[:, :, 0]).logits
    assert full.shape[-1] == model.layout.special + 1
    for step in range(tokens.shape[1]):
        due = (step + 1) % config.codebooks * config.codebook_size
        part = full[:, step, due : due + config.codebook_size]
        torch.testing.assert_close(part, ours[:, step, 0], rtol=1e-5, atol=1e-5)


def test_transformers_never_generates_the_special_id(tmp_path: Path) -> None:
    from transformers import GPT2LMHeadModel

    config = tiny_config("gpt2", "first")
    model = tiny_model(config)
    with torch.no_grad():
        model.wte.weight[model.layout.special] *= 100
    folder = export_model(model, config, FACTS, tmp_path / "out")
    theirs = GPT2LMHeadModel.from_pretrained(folder).eval()
    start = torch.full((1, 1), model.layout.special)
    out = theirs.generate(start, max_new_tokens=20, do_sample=False, pad_token_id=0)
    assert int((out[0, 1:] == model.layout.special).sum()) == 0


@pytest.mark.parametrize("layout", ["delay", "parallel"])
def test_the_trunk_agrees_with_heads_put_on(layout: str, tmp_path: Path) -> None:
    from transformers import GPT2Model

    config = tiny_config("gpt2", layout)
    model = tiny_model(config)
    folder = export_model(model, config, FACTS, tmp_path / "out")
    trunk, info = GPT2Model.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    heads = load_file(folder / "audio_heads.safetensors")["heads"]
    tokens = model.layout.tokens(some_codes(config, 15))
    offsets = torch.arange(config.codebooks) * (config.codebook_size + 1)
    with torch.no_grad():
        embeddings = trunk.wte(tokens + offsets).sum(dim=2)
        hidden = trunk.eval()(inputs_embeds=embeddings).last_hidden_state
        theirs = torch.einsum("bsw,knw->bskn", hidden, heads)
        torch.testing.assert_close(theirs, model(tokens), rtol=1e-5, atol=2e-5)
    text = (folder / "README.md").read_text()
    assert f"torch.arange({config.codebooks}) * {config.codebook_size + 1}" in text
    assert "audio_heads.safetensors" in text


def test_modern_goes_out_as_plain_weights(tmp_path: Path) -> None:
    config = tiny_config("modern")
    model = tiny_model(config)
    folder = export_model(model, config, FACTS, tmp_path / "out")
    table = json.loads((folder / "config.json").read_text())
    assert table.pop("model_type") == "audiogen-minigpt"
    again = GPT(ModelConfig.from_dict(table))
    again.load_state_dict(load_file(folder / "model.safetensors"))
    tokens = model.layout.tokens(some_codes(config, 15))
    with torch.no_grad():
        assert torch.equal(again.eval()(tokens), model(tokens))
    assert json.loads((folder / "audiogen.json").read_text())["facts"] == FACTS


def test_what_transformers_would_load_wrongly_is_refused(tmp_path: Path) -> None:
    config = tiny_config("modern")
    with pytest.raises(OptionError, match="no model like the preset 'modern'"):
        export_model(tiny_model(config), config, FACTS, tmp_path / "out", "hf")
    assert list(tmp_path.iterdir()) == []


def test_gpt2_as_plain_weights_when_asked(tmp_path: Path) -> None:
    config = tiny_config("gpt2", "first")
    folder = export_model(tiny_model(config), config, FACTS, tmp_path / "out", "safetensors")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "audiogen-minigpt"


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    config = tiny_config("gpt2", "first")
    model = tiny_model(config)
    (tmp_path / "empty").mkdir()
    export_model(model, config, FACTS, tmp_path / "empty")
    with pytest.raises(OptionError, match="exists already"):
        export_model(model, config, FACTS, tmp_path / "empty")
    with pytest.raises(OptionError, match="unknown export format"):
        export_model(model, config, FACTS, tmp_path / "new", "onnx")
    (tmp_path / "empty" / "README.md").unlink()
    export_model(model, config, FACTS, tmp_path / "empty", force=True)
    assert (tmp_path / "empty" / "README.md").is_file()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").touch()
    with pytest.raises(OptionError, match="something else"):
        export_model(model, config, FACTS, tmp_path / "mine", force=True)


def test_a_failed_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(import_module("audiogen_minigpt.export"), "write_safetensors", full)
    config = tiny_config("gpt2", "first")
    with pytest.raises(ModelError, match="No space left"):
        export_model(tiny_model(config), config, FACTS, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_exporting_a_run(tmp_path: Path) -> None:
    from audiogen_minigpt import checkpoint

    config = tiny_config("gpt2", "first")
    model = tiny_model(config)
    state = {"model": config.to_dict(), "data": FACTS}
    checkpoint.save(tmp_path / "run", 3, dict(model.named_parameters()), {}, state)
    folder = export(tmp_path / "run", tmp_path / "out")
    assert json.loads((folder / "audiogen.json").read_text())["facts"]["step"] == 3
    with pytest.raises(ModelError, match="no such folder"):
        export(tmp_path / "none", tmp_path / "other")
