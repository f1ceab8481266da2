"""The page: it holds all objects, needs nothing else, and works in a browser where there is one."""

import base64
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import torch

from sklearn.decomposition import PCA

from aion.io import write_embeddings
from aion.survey.explore import explore, principal_plane

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")


def test_the_plane_is_that_of_principal_components(generator):
    vectors = torch.randn(200, 6, generator=generator) * torch.tensor([5.0, 1, 3, 0.1, 1, 2])
    expected = PCA(2).fit_transform(vectors.double().numpy())
    plane = principal_plane(vectors).numpy()
    np.testing.assert_allclose(np.abs(plane), np.abs(expected), atol=1e-8)
    assert ((plane**3).sum(0) >= 0).all()
    with pytest.raises(ValueError, match="at least two rows"):
        principal_plane(vectors[:1])


@pytest.fixture
def page(tmp_path, generator):
    columns = {
        "z": np.array([0.1, np.nan, 0.3, 0.4]),
        "kind": ["star", "galaxy", "</script><b>", "galaxy"],
        "count": np.array([1, 2, 3, 4]),
    }
    vectors = torch.randn(4, 5, generator=generator)
    path = write_embeddings(tmp_path / "x<y.parquet", ["a", "b", "c", "</script>"], vectors, columns)
    assert explore(path, tmp_path / "map.html") == (4, 0)
    return tmp_path / "map.html", vectors


def test_the_page_holds_everything(page):
    text, vectors = page[0].read_text(), page[1]
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    x, y = (np.frombuffer(base64.b64decode(data[axis]), "<f4") for axis in "xy")
    np.testing.assert_allclose(np.stack([x, y], 1), principal_plane(vectors), rtol=1e-6)
    assert data["ids"] == ["a", "b", "c", "</script>"]
    assert [c["name"] for c in data["columns"]] == ["z", "kind", "count"]
    kinds = data["columns"][1]
    values = np.frombuffer(base64.b64decode(kinds["values"]), "<f4").astype(int)
    assert [kinds["kinds"][v] for v in values] == ["star", "galaxy", "</script><b>", "galaxy"]
    assert kinds["kinds"][0] == "galaxy", "the most frequent first"
    assert text.count("</script>") == 2
    assert not re.search(r"(src|href)=|https?://|import ", text), "nothing is fetched"


@pytest.mark.parametrize(("most", "shown"), [(100, [0, 1, 2, 3, 4, 5]), (3, [0, 2, 4]), (4, [0, 2, 4])])
def test_pictures_are_on_the_page_but_not_too_many(sky, tmp_path, generator, most, shown):
    path = write_embeddings(tmp_path / "x.parquet", list("abcdef"), torch.randn(6, 5, generator=generator))
    assert explore(path, tmp_path / "map.html", images=[sky], thumbnails=most) == (6, len(shown))
    text = (tmp_path / "map.html").read_text()
    data = json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    assert sorted(map(int, data["pictures"])) == shown
    assert {base64.b64decode(p)[:4] for p in data["pictures"].values()} <= {b"\xff\xd8\xff\xe0", b"\x89PNG"}
    assert len(text) < 20_000 + 3_000 * len(shown)


def test_what_is_refused(tmp_path, generator, monkeypatch):
    path = write_embeddings(tmp_path / "x.parquet", ["a", "b"], torch.randn(2, 3, generator=generator))
    with pytest.raises(ValueError, match="unknown method 'tsne'"):
        explore(path, tmp_path / "m.html", method="tsne")
    monkeypatch.setitem(__import__("sys").modules, "umap", None)
    with pytest.raises(ModuleNotFoundError, match=r"aion-toolkit\[umap\]"):
        explore(path, tmp_path / "m.html", method="umap")
    monkeypatch.setattr("aion.survey.explore.LARGEST", 1)
    with pytest.raises(ValueError, match="at most 1 objects"):
        explore(path, tmp_path / "m.html")
    assert not (tmp_path / "m.html").exists()


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_selects_and_shows(page, tmp_path):
    probe = """<script>
    const box = lasso.getBoundingClientRect();
    function fire(kind, a, b) {
      lasso.dispatchEvent(new MouseEvent(kind, {clientX: box.left + a, clientY: box.top + b}));
    }
    fire("mousemove", px(0), py(0));
    const w = points.width - 1, h = points.height - 1;
    fire("mousedown", 1, 1);
    for (const [a, b] of [[w, 1], [w, h], [1, h]]) fire("mousemove", a, b);
    fire("mouseup", 1, h);
    </script></html>"""
    file = tmp_path / "probe.html"
    file.write_text(page[0].read_text().replace("</html>", probe))
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*words, "--dump-dom", "--window-size=900,600", file.as_uri()], capture_output=True, text=True, timeout=120
    )
    assert '<span id="count">4 of 4 selected</span>' in done.stdout
    assert re.search(r'<div id="card"[^>]*display: block[^>]*><b>a</b><div>z: 0\.1', done.stdout)
