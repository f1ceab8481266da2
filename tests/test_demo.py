"""The demonstration: what it prints and writes, and that it writes all or nothing."""

import base64
import os
import re
import subprocess
import sys

from html.parser import HTMLParser

import pytest
import torch

from aion import AION, Scalar, demo
from aion.io import read_embeddings
from aion.recipes import HELD_OUT
from aion.sky import Sky
from aion.tokenizers import ScalarTokenizer, SpectrumTokenizer

MODALITIES = {"desi_spectrum": "spectrum", "legacysurvey_flux_r": "flux", "redshift": "redshift"}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """Saves a small untrained model that reads DESI spectra and one flux."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251
        tokenizers = {
            "spectrum": SpectrumTokenizer(start=3300, stop=10700, width=16, depth=1, levels=[4, 4], scale_bins=32),
            "flux": ScalarTokenizer(bins=16).fit(Scalar(torch.linspace(0, 50, 100))),
            "redshift": ScalarTokenizer(bins=32).fit(Scalar(torch.linspace(0, 1, 100)), spacing="log1p"),
        }
        shape = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
        model = AION(tokenizers, MODALITIES, shape, provenance={"name": "tiny <&> untrained"}).eval()
    folder = tmp_path_factory.mktemp("models") / "tiny"
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def shown(bundle, tmp_path_factory):
    """Runs the demonstration once: its folder and what it printed."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    with pytest.MonkeyPatch.context() as patch:
        lines = []
        patch.setattr("builtins.print", lambda *values, **_: lines.append(" ".join(map(str, values))))
        demo.run(folder, model=bundle, gallery=12)
    return folder, "\n".join(lines)


def never(*_, **__):
    pytest.fail("something was computed")


def test_all_files_are_written_and_nothing_else(shown):
    folder, _ = shown
    assert sorted(path.name for path in folder.iterdir()) == sorted(demo.FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["out"]
    for name in ("redshift.png", "spectrum.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_what_is_printed_says_what_was_read(shown, bundle):
    _, text = shown
    for said in ("0.36874", "0.00727", "39633345008634465", "39089837499744649", "7958 pixels", "3600 to 9824"):
        assert said in text
    assert AION.from_pretrained(bundle).sha256[:12] in text
    assert "embedding   (1, 16)" in text
    assert text.count("68 %") == 2
    assert text.isascii(), "any terminal can show it"
    assert max(map(len, text.splitlines())) <= 120


def test_tokens_are_all_of_the_models(shown, bundle):
    _, text = shown
    model = AION.from_pretrained(bundle)
    seen = demo._look(model, *demo.OBJECTS[0])
    assert set(seen.tokens) == {"desi_spectrum", "legacysurvey_flux_r"}
    assert f"tokens      {sum(seen.tokens.values())}: " in text
    assert {"ra", "dec", "legacysurvey_flux_g"} <= set(seen.unused)


def test_embeddings_are_those_of_the_model(shown, bundle):
    folder, _ = shown
    model = AION.from_pretrained(bundle)
    table = read_embeddings(folder / "embedding.parquet")
    assert table.ids == ["39633345008634465", "39089837499744649"]
    assert table.metadata == {"model": "tiny <&> untrained", "model_sha256": model.sha256, "pool": "mean"}
    assert list(table.columns["modalities"]) == ["desi_spectrum,legacysurvey_flux_r", "desi_spectrum"]
    for row, each in enumerate(demo.OBJECTS):
        torch.testing.assert_close(table.embedding[row], demo._look(model, *each).embedding[0])


class Tags(HTMLParser):
    """Collects addresses and checks that tags are closed in order."""

    def __init__(self):
        super().__init__()
        self.open, self.addresses, self.names = [], [], set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_needs_nothing_else(shown):
    folder, _ = shown
    page = (folder / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert not tags.names & {"script", "link", "iframe"}
    assert "http" not in re.sub(r"base64,[^\"]*", "", page), "it must not reach for the network"
    pictures = [base64.b64decode(a.removeprefix("data:image/png;base64,")) for a in tags.addresses]
    assert pictures == [(folder / name).read_bytes() for name in ("redshift.png", "spectrum.png")]


def test_the_report_shows_what_was_printed(shown):
    folder, text = shown
    page = (folder / "report.html").read_text(encoding="utf-8")
    interval = re.findall(r"68 % (\S+ to \S+)", text)
    neighbours = re.findall(r"^  (\S+) +(?:galaxy|star) +(\S+)$", text, flags=re.MULTILINE)
    assert len(interval) == 2
    assert len(neighbours) == demo.NEIGHBOURS
    for number in ("0.36874", "0.00727", *interval, *(n for pair in neighbours for n in pair)):
        assert number in page
    assert "tiny &lt;&amp;&gt; untrained" in page
    assert "<&>" not in page
    assert not re.search(r"\$[a-z_]", page), "a blank was left unfilled"
    for source in ("real", "simulated", "model"):
        assert f'class="tag {source}"' in page


def test_neighbours_are_simulated_and_held_out(bundle):
    model = AION.from_pretrained(bundle)
    seen = demo._look(model, *demo.OBJECTS[0])
    found = demo._neighbours(model, seen, 12)
    assert demo.GALLERY <= HELD_OUT
    rows = [row for *_, row in found]
    truth = Sky().labels(rows)
    assert [z for _, _, z, _ in found] == truth["redshift"].tolist()
    assert [demo.KINDS.index(kind) for _, kind, _, _ in found] == truth["kind"].tolist()
    assert [d for d, *_ in found] == sorted(d for d, *_ in found)
    assert len(set(rows)) == demo.NEIGHBOURS
    assert max(rows) < 12


def test_an_earlier_demonstration_is_replaced_and_the_rest_kept(shown, bundle, tmp_path, capsys):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for _ in range(2):
        demo.run(folder, model=bundle, gallery=5)
        assert sorted(path.name for path in folder.iterdir()) == sorted([*demo.FILES, "notes.txt"])
    assert (folder / "notes.txt").read_text() == "mine"
    assert capsys.readouterr().err == "", "no progress bar away from a terminal"


def test_files_of_others_are_not_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(AION, "from_pretrained", never)
    (tmp_path / "spectrum.png").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="no demonstration"):
        demo.run(tmp_path)
    (tmp_path / "report.html").write_text("<html>mine</html>")
    with pytest.raises(FileExistsError, match="choose another folder"):
        demo.run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "spectrum.png"]


@pytest.mark.parametrize("inside", ["file", "file/out", "file/a/b"])
def test_a_folder_that_cannot_be_written_is_refused_first(tmp_path, monkeypatch, inside):
    monkeypatch.setattr(AION, "from_pretrained", never)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="choose another --out"):
        demo.run(tmp_path / inside)
    assert (tmp_path / "file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_first(tmp_path, monkeypatch):
    monkeypatch.setattr(AION, "from_pretrained", never)
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OSError, match="permission denied"):
        demo.run(tmp_path / "closed")


@pytest.mark.parametrize("before", [False, True])
def test_an_error_leaves_everything_as_it_was(shown, bundle, tmp_path, monkeypatch, before):
    folder = tmp_path / "out"
    if before:
        demo.run(folder, model=bundle, gallery=5)
    old = {path.name: path.read_bytes() for path in folder.iterdir()} if before else None
    monkeypatch.setattr(demo, "plot_posterior", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        demo.run(folder, model=bundle, gallery=5)
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if before else [])
    if before:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == old


@pytest.mark.parametrize("missing", ["desi_spectrum", "redshift"])
def test_a_model_that_cannot_do_it_is_refused(bundle, tmp_path, missing):
    model = AION.from_pretrained(bundle)
    modalities = {name: part for name, part in MODALITIES.items() if name != missing}
    parts = {name: model.parts[name] for name in modalities.values()}
    shape = {"dim": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    AION(parts, modalities, shape).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=f"a model that knows '{missing}'"):
        demo.run(tmp_path / "out", model=tmp_path / "model")
    assert not (tmp_path / "out").exists()


def test_the_shipped_model_does_it_from_an_empty_folder(root, tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-m", "aion", "demo"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "aion-nano" in done.stdout
    assert sorted(path.name for path in (tmp_path / "aion-demo").iterdir()) == sorted(demo.FILES)
