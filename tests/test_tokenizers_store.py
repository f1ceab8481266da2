import json
import subprocess
import sys

import pytest
import torch

from aion.tokenizers.store import load, save

KINDS = pytest.mark.parametrize("kind", ["image", "redshift", "spectrum", "vector"])


@KINDS
def test_what_is_saved_is_what_is_loaded(tokenizers, tmp_path, kind):
    tokenizer = tokenizers[kind]
    given = save(tokenizer, tmp_path / "it", {"why": "test"})
    loaded = load(tmp_path / "it")
    assert loaded.config == tokenizer.config
    assert all(torch.equal(v, tokenizer.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert not loaded.training
    config = json.loads((tmp_path / "it" / "config.json").read_text())
    assert config["tokenizer_sha256"] == given
    assert config["provenance"] == {"why": "test"}
    assert save(loaded, tmp_path / "it") == given


def test_it_loads_in_a_fresh_process(tokenizers, observations, tmp_path):
    save(tokenizers["spectrum"], tmp_path / "it")
    spectrum = observations["desi_spectrum"]
    ids = tokenizers["spectrum"].encode(spectrum).ids
    code = (
        "import torch, sys; from aion.tokenizers.store import load; from aion import Spectrum\n"
        "from safetensors.torch import load_file, save_file\n"
        f"s = load_file({str(tmp_path / 'in.safetensors')!r})\n"
        f"t = load({str(tmp_path / 'it')!r}).encode(Spectrum(**s))\n"
        f"save_file({{'ids': t.ids.contiguous()}}, {str(tmp_path / 'out.safetensors')!r})"
    )
    from safetensors.torch import load_file, save_file

    names = ("flux", "ivar", "wavelength")
    save_file({n: getattr(spectrum, n).contiguous() for n in names}, tmp_path / "in.safetensors")
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
    assert torch.equal(load_file(tmp_path / "out.safetensors")["ids"], ids)


def test_an_altered_folder_is_refused(tokenizers, tmp_path):
    save(tokenizers["redshift"], tmp_path / "it")
    path = tmp_path / "it" / "config.json"
    text = path.read_text()
    path.write_text(text.replace('"bins": 32', '"bins": 31'))
    with pytest.raises(ValueError, match="was altered"):
        load(tmp_path / "it")
    path.write_text("{}")
    with pytest.raises(ValueError, match="not the configuration of a tokenizer"):
        load(tmp_path / "it")
    path.write_text(text)
    weights = tmp_path / "it" / "tokenizer.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ValueError, match="altered or damaged"):
        load(tmp_path / "it")


def test_a_bundle_or_nothing_is_no_tokenizer(tmp_path):
    with pytest.raises(ValueError, match="not the configuration of a tokenizer"):
        load("aion-nano")
    with pytest.raises(FileNotFoundError, match="no bundle"):
        load(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(tmp_path / "empty")


def test_other_files_are_not_replaced(tokenizers, tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="holds more than a tokenizer"):
        save(tokenizers["redshift"], tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "keep"
