"""The page: every kind of figure is drawn, and a browser opens it without a complaint."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from safetensors.numpy import save_file

from aion.benchmarks import write_report
from aion.benchmarks.figures import draw

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
RNG = np.random.default_rng(0)


def wave(count):
    wavelength = np.broadcast_to(np.linspace(4000, 9000, 300), (count, 300))
    flux = np.sin(wavelength / 300) + 3
    parts = {"wavelength": wavelength, "flux": flux, "ivar": np.full_like(flux, 25), "guess": flux + 0.1}
    return {f"spectra {key}": value.astype(np.float32) for key, value in parts.items()}


def pictures(*shape):
    return RNG.integers(0, 255, (*shape, 16, 16, 3), dtype=np.uint8)


ARRAYS = {
    "sky-stars": {"truth teff": RNG.normal(size=50), "prediction teff": RNG.normal(size=50)},
    "sky-classes": {"truth kind": np.array(["a", "b"] * 9), "prediction kind": np.array(["a", "b", "b"] * 6)},
    "sky-redshifts": {"truth redshift": RNG.uniform(size=50), "prediction redshift": RNG.uniform(size=50),
                      "pit": RNG.uniform(size=50)},
    "sky-few-labels": {"labels": np.array([25, 100]), "score": np.array([[0.1, 0.2], [0.5, 0.1]])},
    "sky-lookalikes": {"ndcg arms": RNG.uniform(size=20), "montage arms": pictures(3, 5),
                       "relevance arms": np.array([[0, 1, 1, 0]] * 3)},
    "sky-arms-and-bars": {"pictures bar": pictures(4), "maps bar": RNG.integers(0, 2, (4, 2, 16, 16)).astype(np.uint8)},
    "sky-super-resolution": wave(2),
}  # fmt: skip
FIGURES = {"sky-lookalikes": 2, "sky-few-labels": 0}  # curves of all models are drawn together


def cell(task, model, value):
    key = f"{task}-{model}"
    own = {"task": task, "model": model, "origin": "simulated", "kind": "?", "key": key, "metric": "r2", "why": ""}
    return own | {"status": "scored", "scores": {"r2": [value, 0.01]}, "tested": 50, "controls": {}}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder, cells = tmp_path_factory.mktemp("report"), []
    for i, (task, arrays) in enumerate(ARRAYS.items()):
        for model in ("one", "two") if task == "sky-few-labels" else ("one",):
            cells.append(cell(task, model, (i * 37 % 10) / 10 - 0.2))
            (folder / task).mkdir(exist_ok=True)
            text = {k: v.tolist() for k, v in arrays.items() if v.dtype.kind == "U"}
            facts = {"key": cells[-1]["key"], "classes": json.dumps(text)}
            numbers = {k: np.ascontiguousarray(v) for k, v in arrays.items() if k not in text}
            save_file(numbers, folder / task / f"{model}.safetensors", metadata=facts)
    return write_report(cells, folder), cells


@pytest.mark.parametrize("task", ARRAYS)
def test_each_kind_of_array_has_its_figure(task):
    figures = draw(cell(task, "one", 0.1), ARRAYS[task])
    assert len(figures) == FIGURES.get(task, 1)
    for figure in figures:
        assert all(axes.has_data() or axes.images for axes in figure.axes)


def test_the_page_needs_nothing_else(page):
    text = page[0].read_text()
    assert text.count("data:image/png;base64,") == 8, "a figure for each task, two for one, one for both models"
    assert not re.search(r"https?://|src='(?!data:)", text)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
def test_a_browser_shows_all_pictures_sorts_and_complains_of_nothing(page, tmp_path):
    probe = """<script>
    addEventListener("load", () => {
      const said = [], values = () => [...document.querySelectorAll("tbody tr")].map(r => +r.cells[4].textContent);
      const head = [...document.querySelectorAll("th")].find(h => h.textContent === "value");
      head.click(); const once = values(); head.click(); const twice = values();
      const rising = v => v.every((x, i) => !i || v[i - 1] <= x), falling = v => rising([...v].reverse());
      said.push("sorted " + ((rising(once) && falling(twice)) || (falling(once) && rising(twice))));
      said.push("pictures " + [...document.images].filter(i => i.complete && i.naturalWidth > 50).length);
      document.title = said.join(", ");
    });</script></html>"""
    file = tmp_path / "probe.html"
    file.write_text(page[0].read_text().replace("</html>", probe))
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += ["--window-size=1200,3600", "--hide-scrollbars", "--enable-logging=stderr", "--v=0"]
    done = subprocess.run([*words, "--dump-dom", file.as_uri()], capture_output=True, text=True, timeout=240)
    assert "<title>sorted true, pictures 8</title>" in done.stdout
    assert "CONSOLE" not in done.stderr
    shot = tmp_path / "page.png"
    subprocess.run([*words, f"--screenshot={shot}", page[0].as_uri()], capture_output=True, timeout=240, check=True)
    from matplotlib.image import imread

    picture = imread(shot)[..., :3]
    assert picture.shape[1] == 1200
    inked = (picture.min(2) < 0.9).mean(1)  # by row: text and figures all the way down
    assert (inked > 0.005).mean() > 0.3
