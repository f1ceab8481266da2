"""Public data sets: read from a local copy, or a cell that says what could not be reached."""

import io

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from PIL import Image as Picture

from aion.benchmarks import evaluate, table
from aion.benchmarks.published import PUBLISHED, REPORTED, NotReached
from aion.benchmarks.raw import Raw
from aion.benchmarks.report import write_report

TASKS = {task.name: task for task in PUBLISHED}
RNG = np.random.default_rng(0)


def copy(root, name, columns, parts=2):
    """Writes a data set as a local copy of a few files."""
    folder = root / "benchmarks" / "data" / "MultimodalUniverse" / name / "data"
    folder.mkdir(parents=True)
    whole = pyarrow.table(columns)
    for i in range(parts):
        pyarrow.parquet.write_table(whole.slice(i * len(whole) // parts, len(whole) // parts), folder / f"{i}.parquet")


def properties(count=100):
    z = RNG.uniform(0.05, 0.5, count)
    magnitude = {f"MAG_{band}": (17 + i + 5 * z).astype(np.float32) for i, band in enumerate(["G", "R", "Z", "W1"])}
    rest = {"Z_HP": z, "LOG_MSTAR": 9 + 4 * z, "TAGE_MW": 1 + 10 * z, "Z_MW": 0.01 + z / 50, "AVG_SFR": 1 + z}
    ids = {"object_id": [str(i) for i in range(count)], "HPIX_64": np.arange(count), "unused": np.arange(count)}
    return {**magnitude, **{k: v.astype(np.float32) for k, v in rest.items()}, **ids}


def test_galaxies_from_a_local_copy_are_scored(tmp_path):
    columns = properties()
    columns["AVG_SFR"][3], columns["MAG_G"][4] = 0, -99  # no rate that has a logarithm, no magnitude
    copy(tmp_path, "desi_provabgs", columns)
    cell = evaluate(TASKS["provabgs-properties"], Raw(), tmp_path / "out", tmp_path)
    assert (cell["status"], cell["objects"]) == ("scored", 98)
    assert cell["data_version"] == "MultimodalUniverse/desi_provabgs, local copy of 2 files"
    assert cell["scores"]["linear redshift"][0] > 0.9
    again = evaluate(TASKS["provabgs-properties"], Raw(), tmp_path / "out", tmp_path)
    assert "kept" not in again, "which version it is only fetching tells"
    data = TASKS["provabgs-properties"].load(tmp_path)
    assert data.observations["legacysurvey_flux_g"].value[0].item() == pytest.approx(
        10 ** (0.4 * (22.5 - columns["MAG_G"][0])), rel=1e-5
    )
    assert data.labels["ssfr"][0] == pytest.approx(np.log10(columns["AVG_SFR"][0]) - columns["LOG_MSTAR"][0])


def test_spectra_and_pictures_from_a_local_copy(tmp_path):
    wave = np.linspace(3600, 9800, 50, dtype=np.float32)
    bad = np.arange(50) == 7
    parts = {"flux": wave / 5000, "ivar": wave * 0 + 4, "lambda": wave, "mask": bad, "lsf_sigma": wave * 0}
    spectra = pyarrow.array([{k: v.tolist() for k, v in parts.items()}] * 4)
    columns = {"spectrum": spectra, "z": [0.1, 0.2, 0.3, 0.0], "ZWARN": [True, False, True, True]}
    copy(tmp_path, "desi", columns | {"object_id": list("abcd")})
    data = TASKS["desi-redshifts"].load(tmp_path)
    assert data.ids.tolist() == ["a", "c"], "of a warning, and a star, nothing is asked"
    assert data.observations["desi_spectrum"].measured.sum().item() == 98
    pictures = []
    for i in range(10):
        stream = io.BytesIO()
        Picture.fromarray(np.full((256, 256, 3), 20 * i, np.uint8)).save(stream, "png")
        pictures.append({"bytes": stream.getvalue(), "path": None})
    columns = {"rgb_image": pictures, "gz10_label": np.arange(10) % 2, "rgb_pixel_scale": np.full(10, 0.262)}
    copy(tmp_path, "gz10", columns | {"object_id": [str(i) for i in range(10)]})
    data = TASKS["gz10-morphology"].load(tmp_path)
    assert data.observations["gz10_picture"].flux.shape == (10, 3, 64, 64)
    assert data.observations["gz10_picture"].flux[5].mean().item() == pytest.approx(100 / 255, rel=1e-5)
    assert data.labels["gz10_label"].tolist() == ["00", "01"] * 5


def test_a_copy_that_lacks_what_is_read(tmp_path):
    columns = properties()
    del columns["Z_MW"]
    copy(tmp_path, "desi_provabgs", columns)
    with pytest.raises(ValueError, match="there is no column 'Z_MW'; there are AVG_SFR"):
        TASKS["provabgs-properties"].load(tmp_path)


def test_what_cannot_be_reached_is_a_cell_that_says_so(tmp_path, monkeypatch):
    def away(*arguments, **options):
        msg = "no route to host\nmore"
        raise OSError(msg)

    monkeypatch.setattr("huggingface_hub.HfApi.dataset_info", away)
    task = TASKS["gz10-morphology"]
    with pytest.raises(
        NotReached, match=r"MultimodalUniverse/gz10 on the Hugging Face Hub \(OSError: no route to host\)"
    ):
        task.load(tmp_path)
    cell = evaluate(task, Raw(), tmp_path, tmp_path)
    assert cell["status"] == "not reachable"
    assert "| not reachable |" in table([cell])
    assert "no route to host" in write_report([cell], tmp_path).read_text()


def test_reports_are_of_tasks_that_are_declared():
    assert set(REPORTED) <= set(TASKS)
    for task in PUBLISHED:
        assert not task.version, "no revision is pinned, and the cell must say which it found"
