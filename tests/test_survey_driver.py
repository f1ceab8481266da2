"""The driver: what it writes is what the model gives, whatever the batches, the units and the engine; and resuming."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet
import pytest
import torch

from aion import AION
from aion.io import read_embeddings
from aion.survey import Job, embed_survey, preview
from aion.survey.driver import ENGINES


@pytest.fixture
def job(bundle):
    return Job(model=str(bundle), device="cpu")


def test_writes_what_the_model_gives(sky, job, bundle, observations, tmp_path):
    report = embed_survey([sky], tmp_path / "x.parquet", job)
    assert (report.objects, report.embedded, report.empty, report.failed, report.duplicates) == (6, 6, 0, 0, 0)
    table, model = read_embeddings(tmp_path / "x.parquet"), AION.from_pretrained(bundle)
    assert table.ids == list("abcdef")
    torch.testing.assert_close(table.embedding, model.embed(observations), atol=1e-5, rtol=1e-5)
    assert table.columns["tokens"].tolist() == model.tokenize(observations).valid.sum(1).tolist()
    assert table.columns["modalities"][2] == "gaia_bp_coefficients,legacysurvey_image,redshift"
    assert set(table.columns["status"]) == {"ok"}
    assert table.columns["ra"].tolist() == [10, 20, 30, 40, 50, 60]
    assert table.metadata["model_sha256"] == model.sha256
    assert len({table.metadata[k] for k in ("space_sha256", "plan_sha256", "tokenizers_sha256")}) == 3
    schema = pyarrow.parquet.read_schema(tmp_path / "x.parquet")
    assert schema.field("ra").metadata == {b"unit": b"deg"}
    assert schema.field("embedding").type == pyarrow.list_(pyarrow.float32(), 32)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "sky", "x.parquet"], "no parts are left"


@pytest.mark.parametrize("options", [{"rows": 1}, {"rows": 3}, {"batch": 1}, {"batch": 2, "rows": 5}])
def test_batches_and_units_change_no_embedding(sky, job, bundle, observations, options, tmp_path):
    job = Job(model=job.model, device="cpu", batch_size=options.get("batch"))
    embed_survey([sky], tmp_path / "x.parquet", job, rows=options.get("rows", 1024))
    expected = AION.from_pretrained(bundle).embed(observations)
    torch.testing.assert_close(read_embeddings(tmp_path / "x.parquet").embedding, expected, atol=1e-5, rtol=1e-5)


def test_predictions_are_those_of_the_model(sky, job, bundle, observations, tmp_path):
    embed_survey([sky], tmp_path / "x.parquet", Job(model=job.model, device="cpu", predict=("redshift",)))
    columns = read_embeddings(tmp_path / "x.parquet").columns
    expected = AION.from_pretrained(bundle).predict(observations, "redshift")
    np.testing.assert_allclose(columns["redshift_mean"], expected.mean(), rtol=1e-4)
    for column, level in (("q05", 0.05), ("q16", 0.16), ("q50", 0.5), ("q84", 0.84), ("q95", 0.95)):
        np.testing.assert_allclose(columns[f"redshift_{column}"], expected.quantile(level), rtol=1e-3)


def test_limit_and_without(sky, job, tmp_path):
    job = Job(model=job.model, device="cpu", without=("desi_spectrum", "legacysurvey_image"))
    report = embed_survey([sky], tmp_path / "x.parquet", job, limit=5)
    table = read_embeddings(tmp_path / "x.parquet")
    assert report.objects == 5
    assert table.ids == list("abcde")
    assert set(table.columns["modalities"]) == {"gaia_bp_coefficients,redshift"}


def test_preview_counts_tokens_and_writes_nothing(sky, job, bundle, observations, tmp_path):
    seen = preview([sky], job)
    tokens = AION.from_pretrained(bundle).tokenize({k: v[:4] for k, v in observations.items()})
    assert (seen.files, seen.rows, seen.objects) == (2, 6, 4)
    assert set(seen.columns) == set(observations)
    assert sum(seen.tokens.values()) * 4 == pytest.approx(tokens.valid.sum().item())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "sky"]


# ---- what is wrong with the source


def test_a_poisoned_row_stops_nothing(shard, job, observations, tmp_path):
    bad = {name: value[:4] for name, value in observations.items() if name != "legacysurvey_image"}
    path = shard("bad.parquet", bad, list("abcd"))
    table = pyarrow.parquet.read_table(path)
    rows = table.column("desi_spectrum").to_pylist()
    rows[1]["ivar"][5] = -1.0
    index = table.schema.get_field_index("desi_spectrum")
    table = table.set_column(index, "desi_spectrum", pyarrow.array(rows, table.schema.field(index).type))
    pyarrow.parquet.write_table(table, path)
    report = embed_survey([path], tmp_path / "x.parquet", job)
    whole = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    status = whole.column("status").to_pylist()
    assert (report.objects, report.embedded, report.failed) == (4, 3, 1)
    assert status[1].startswith("failed: desi_spectrum: ")
    assert "ivar" in status[1]
    assert [status[i] for i in (0, 2, 3)] == ["ok"] * 3
    assert whole.column("embedding").is_valid().to_pylist() == [True, False, True, True]
    assert read_embeddings(tmp_path / "x.parquet").ids == ["a", "c", "d"]
    assert status[1].removeprefix("failed: ") in report.first_fault


def test_nothing_measured_and_duplicate_ids_are_marked(shard, job, observations, tmp_path):
    path = shard("x0.parquet", {"desi_spectrum": observations["desi_spectrum"][[0, 1, 2, 3]]}, ["a", "b", "c", "a"])
    report = embed_survey([path], tmp_path / "x.parquet", job, rows=2)
    status = pyarrow.parquet.read_table(tmp_path / "x.parquet").column("status").to_pylist()
    assert status == ["ok", "ok", "nothing measured", "duplicate id"]
    assert (report.embedded, report.empty, report.failed, report.duplicates) == (3, 1, 0, 1)


def test_a_damaged_shard_is_one_row_and_the_others_go_on(sky, job, tmp_path):
    damaged = sky / "part-0.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-500])
    report = embed_survey([sky], tmp_path / "x.parquet", job)
    table = pyarrow.parquet.read_table(tmp_path / "x.parquet")
    assert (report.objects, report.embedded, report.failed) == (3, 2, 1)
    assert table.column("object_id").to_pylist() == ["part-0.parquet", "e", "f"]
    assert table.column("status").to_pylist()[0].startswith("failed: cannot be read: ")


def test_nothing_at_all_is_an_error_and_keeps_the_older_output(sky, job, tmp_path):
    (tmp_path / "x.parquet").write_bytes(b"older")
    for path in sky.iterdir():
        path.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"nothing could be embedded: .*part-0"):
        embed_survey([sky], tmp_path / "x.parquet", job)
    assert (tmp_path / "x.parquet").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pool": "max"}, "pool must be 'mean'"),
        ({"layer": "contxt"}, "layer must be"),
        ({"predict": ("redshif",)}, "did you mean 'redshift'"),
        ({"predict": ("legacysurvey_image",)}, "is no scalar"),
        ({"columns": {"redshif": "z"}}, "did you mean 'redshift'"),
        ({"dtype": "float31"}, "dtype must be"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_read(sky, job, tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        embed_survey([sky], tmp_path / "x.parquet", Job(**{"model": job.model, "device": "cpu", **change}))
    assert not (tmp_path / "x.parquet.parts").exists()


def test_engine_and_part_are_checked(sky, job, tmp_path):
    with pytest.raises(ValueError, match=f"unknown engine 'spark'; known: {', '.join(ENGINES)}"):
        embed_survey([sky], tmp_path / "x", job, engine="spark")
    with pytest.raises(ValueError, match="workers must be at least 1"):
        embed_survey([sky], tmp_path / "x", job, engine="dask", workers=0)
    with pytest.raises(ValueError, match="part must be"):
        embed_survey([sky], tmp_path / "x", job, part=(2, 2))


# ---- resuming


class Killed(BaseException):
    """Stands for a signal."""


@pytest.mark.parametrize("moment", range(6))
def test_resumes_wherever_it_was_killed(sky, job, tmp_path, monkeypatch, moment):
    embed_survey([sky], tmp_path / "whole.parquet", job, rows=2)
    out, replace, calls = tmp_path / "x.parquet", pathlib.Path.replace, []

    def killed(self, target):  # in turn at the manifest, each of the parts, the output
        calls.append(target)
        if len(calls) > moment:
            raise Killed
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", killed)
        if moment < 5:
            with pytest.raises(Killed):
                embed_survey([sky], out, job, rows=2)
            assert not out.exists()
        else:
            embed_survey([sky], out, job, rows=2)
    calls.clear()
    moments = len(list(out.with_name("x.parquet.parts").glob("0*"))) if moment < 5 else 0
    assert moments == (max(moment - 1, 0) if moment < 5 else 0)
    embed_survey([sky], out, job, rows=2)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert not out.with_name("x.parquet.parts").exists()


def test_a_killed_process_loses_and_repeats_nothing(sky, job, tmp_path):
    out = tmp_path / "x.parquet"
    code = (
        "import time; from aion.survey import driver, embed_survey, Job\n"
        "work = driver.work\n"
        "driver.work = lambda *a: (time.sleep(0.2), work(*a))[1]\n"
        f"embed_survey([{str(sky)!r}], {str(out)!r}, Job(model={job.model!r}, device='cpu'), rows=1)"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        while process.poll() is None and len(list(tmp_path.glob("x.parquet.parts/0*"))) < 2:
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    finished = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("x.parquet.parts/0*")}
    assert 2 <= len(finished) < 6
    assert embed_survey([sky], out, job, rows=1, part=(0, 2)) is None
    now = {p.name: p.stat().st_mtime_ns for p in tmp_path.glob("x.parquet.parts/0*")}
    assert finished.items() <= now.items(), "what was finished is not made again"
    embed_survey([sky], out, job, rows=1)
    embed_survey([sky], tmp_path / "whole.parquet", job, rows=1)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert read_embeddings(out).ids == list("abcdef")


def test_another_plan_does_not_go_on(sky, job, tmp_path):
    out = tmp_path / "x.parquet"
    assert embed_survey([sky], out, job, part=(0, 2), rows=2) is None
    with pytest.raises(ValueError, match=r"another plan \(layer = 'context', now 'encoder'\)"):
        embed_survey([sky], out, Job(model=job.model, device="cpu", layer="encoder"), rows=2)
    with pytest.raises(ValueError, match=r"another plan \(the files of the source\)"):
        embed_survey([sky], out, job, rows=3)
    manifest = out.with_name("x.parquet.parts") / "manifest.json"
    plan = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**plan, "model_sha256": "0"}))
    with pytest.raises(ValueError, match=r"another plan \(model_sha256 = '0'"):
        embed_survey([sky], out, job, rows=2)


def test_a_full_disk_loses_nothing_that_is_finished(sky, job, tmp_path, monkeypatch):
    out, fsync, calls = tmp_path / "x.parquet", os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device; what is finished is kept.*parts/0000001\.arrow"):
        embed_survey([sky], out, job, rows=2)
    assert [p.name for p in sorted(out.with_name("x.parquet.parts").iterdir())] == ["0000000.arrow", "manifest.json"]
    assert embed_survey([sky], out, job, rows=2).embedded == 6


def test_a_catalogue_for_the_sky_has_the_same_rows(sky, job, tmp_path):
    report = embed_survey([sky], tmp_path / "sky_embeddings", job, hats=True, rows=2)
    embed_survey([sky], tmp_path / "x.parquet", job, rows=2)
    hats, plain = read_embeddings(tmp_path / "sky_embeddings"), read_embeddings(tmp_path / "x.parquet")
    order = [hats.ids.index(name) for name in plain.ids]
    assert report.objects == len(hats.ids) == 6
    assert torch.equal(hats.embedding[order], plain.embedding)
    assert hats.metadata == plain.metadata
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bundle", "sky", "sky_embeddings", "x.parquet"]
    with pytest.raises(FileExistsError, match="no HATS catalogue"):
        embed_survey([sky], sky, job, hats=True)


# ---- engines


def test_shares_of_a_job_array_make_the_same_file(sky, job, tmp_path):
    embed_survey([sky], tmp_path / "whole.parquet", job, rows=2)
    for share in (2, 0, 1):
        assert embed_survey([sky], tmp_path / "x.parquet", job, rows=2, part=(share, 3)) is None
    assert embed_survey([sky], tmp_path / "x.parquet", job, rows=2).objects == 6
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_ranks_of_torchrun_make_the_same_file(sky, job, tmp_path, monkeypatch):
    embed_survey([sky], tmp_path / "whole.parquet", job, rows=2)
    for rank in (1, 0):  # the last one joins
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        report = embed_survey([sky], tmp_path / "x.parquet", job, rows=2, engine="torchrun")
        assert (report is None) == (rank == 1)
    assert (tmp_path / "x.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_dask_without_the_extra_names_it(sky, job, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ModuleNotFoundError, match=r"aion-toolkit\[dask\]"):
        embed_survey([sky], tmp_path / "x.parquet", job, engine="dask")


def test_two_workers_of_dask_make_the_same_file_though_they_die(sky, job, tmp_path, monkeypatch):
    distributed, dask = pytest.importorskip("distributed"), pytest.importorskip("dask")

    def deadly():  # on the workers, until they start anew: they die of the unit of the third row
        from aion.survey import driver

        work = driver.work

        def dying(job, unit):
            if unit[0].start == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return work(job, unit)

        driver.work = dying

    embed_survey([sky], tmp_path / "whole.parquet", job, rows=1)
    out, options = tmp_path / "x.parquet", {"rows": 1, "engine": "dask"}
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with dask.config.set({"distributed.deploy.lost-worker-timeout": "10 minutes"}), cluster:
        with distributed.Client(cluster) as client:
            client.run(deadly)
        cluster.scheduler.allowed_failures = 0  # what waited at the worker counts as failed, too: at most one unit
        with pytest.raises(RuntimeError, match=r"[12] of 6 units failed .*same command goes on.*parquet: .*died"):
            embed_survey([sky], out, job, workers=cluster.scheduler_address, **options)
        parts = {p.name for p in out.with_name("x.parquet.parts").glob("*.arrow")}
        assert len(parts) >= 4
        assert "0000002.arrow" not in parts
        cluster.scheduler.allowed_failures = 1  # the other worker is deadly still: the unit may go to both
        monkeypatch.setattr(distributed, "LocalCluster", lambda n_workers, **_: {2: cluster}[n_workers])
        assert embed_survey([sky], out, job, workers=2, **options).embedded == 6
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
