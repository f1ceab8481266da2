"""Every notebook runs from an empty folder, warns of nothing and is kept without outputs."""

import shutil

from pathlib import Path

import nbformat
import pytest

from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
EVERY = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(path):
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_is_the_one_that_the_readme_names():
    assert "01_from_fits_to_redshift" in [path.stem for path in NOTEBOOKS]
    assert len(code(NOTEBOOKS[0])) == 10


@EVERY
def test_outputs_are_stripped(path):
    nbformat.validate(nbformat.read(path, as_version=4))
    for cell in code(path):
        assert cell.outputs == []
        assert cell.execution_count is None


@EVERY
def test_it_runs(path, root, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter"))
    folder = tmp_path / "empty"
    folder.mkdir()
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    said = [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]
    assert said == [], "a notebook for readers warns of nothing"
    pictures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(pictures) >= 3
    assert (folder / "embedding.parquet").is_file()
    shutil.rmtree(folder)
