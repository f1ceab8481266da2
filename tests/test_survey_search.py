"""Searching embeddings: by id, by observation of any modality, along a direction, and what must not be compared."""

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
import torch

from aion import AION
from aion.index import Index
from aion.io import read_embeddings
from aion.steering import Direction
from aion.survey import Job, embed_survey
from aion.survey.search import index_embeddings, read_direction, read_like, search


@pytest.fixture
def embeddings(sky, bundle, tmp_path):
    embed_survey([sky], tmp_path / "x.parquet", Job(model=str(bundle), device="cpu"))
    return tmp_path / "x.parquet"


def test_finds_an_object_by_its_observations(embeddings, bundle, observations):
    index, model = index_embeddings([embeddings], half=False), AION.from_pretrained(bundle, device="cpu")
    found = search(index, {k: v[3] for k, v in observations.items()}, 2, model=model)
    assert found.ids[0] == "d"
    assert found.distance[0] < 1e-6
    assert found.columns["ra"][0] == 40
    assert found.recall is None


def test_by_id_leaves_the_object_itself_out(embeddings):
    index = index_embeddings([embeddings])
    assert index.embedding.dtype == torch.float16
    found = search(index, ["a"], 10)
    assert sorted(found.ids) == list("bcdef")
    assert (found.distance.diff() >= 0).all()
    with pytest.raises(ValueError, match="no object 'z'"):
        search(index, ["z"])


def test_a_direction_moves_the_query(embeddings):
    index = index_embeddings([embeddings], metric="euclidean", half=False)
    vectors = read_embeddings(embeddings).embedding.double()
    found = search(index, ["a"], 1, direction=vectors[4] - vectors[0], strength=1.0)
    assert found.ids == ["e"]
    assert found.distance[0] < 1e-5


def test_spaces_are_not_mixed(embeddings, sky, bundle, tmp_path, observations):
    other = tmp_path / "other.parquet"
    embed_survey([sky], other, Job(model=str(bundle), device="cpu", layer="encoder"))
    with pytest.raises(ValueError, match="cannot be compared"):
        index_embeddings([embeddings, other])
    model = AION.from_pretrained(bundle, device="cpu")
    with torch.no_grad():
        model.transformer.mask_token.add_(1)
    with pytest.raises(ValueError, match="the index was made by the model"):
        search(index_embeddings([embeddings]), observations, model=model)
    with pytest.raises(ValueError, match="wanted the model"):
        search(index_embeddings([embeddings]), observations)
    with pytest.raises(ValueError, match="at least one file"):
        index_embeddings([])


def test_files_of_one_kind_are_joined_without_repeats(embeddings):
    assert index_embeddings([embeddings, embeddings]).ids == list("abcdef")


# ---- queries from files and along directions


def test_a_file_of_another_modality_is_a_query(embeddings, shard, sky, bundle, observations):
    model, index = AION.from_pretrained(bundle, device="cpu"), index_embeddings([embeddings])
    spectrum = {"desi_spectrum": observations["desi_spectrum"][[3]]}
    like = read_like([shard("query.parquet", spectrum, ["q"])], model)
    assert set(like) == {"desi_spectrum"}
    assert len(search(index, like, 6, model=model).ids) == 6
    whole = read_like([sky], model)
    assert set(whole) == set(observations)
    assert len(whole["redshift"]) == 6
    other = shard("other.parquet", {"redshift": observations["redshift"][[0]]}, ["r"])
    with pytest.raises(ValueError, match="no modality in common: desi_spectrum, redshift"):
        read_like([sky.parent / "query.parquet", other], model)
    damaged = sky.parent / "bad.parquet"
    damaged.write_bytes(b"PAR1")
    with pytest.raises(ValueError, match=r"bad\.parquet: cannot be read"):
        read_like([damaged], model)


@pytest.fixture
def labelled(generator):
    """Makes an index whose first feature grows with a label."""
    vectors = torch.randn(60, 5, generator=generator)
    vectors[:, 0] = torch.arange(60) / 10
    return Index(vectors, metric="euclidean", ids=[f"o{i}" for i in range(60)])


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_labels_make_a_direction_from_low_to_high(labelled, tmp_path, ending):
    ids, colour = [f"o{i}" for i in range(59)] + ["else"], [i / 10 for i in range(59)] + [1e9]
    colour[3] = None
    table, path = pyarrow.table({"object_id": ids, "g_r": colour, "kind": ["x"] * 60}), tmp_path / f"c.{ending}"
    (pyarrow.csv.write_csv if ending == "csv" else pyarrow.parquet.write_table)(table, path)
    direction = read_direction(path, labelled)
    rows = [i for i in range(59) if i != 3]
    vectors = labelled.embedding.double()
    torch.testing.assert_close(direction, vectors[rows[-19:]].mean(0) - vectors[rows[:19]].mean(0))
    near, redder = (search(labelled, ["o20"], 5, direction=direction, strength=s).ids for s in (0.0, 0.8))
    assert sum(int(name[1:]) for name in redder) > sum(int(name[1:]) for name in near)


def test_a_saved_direction_is_read(labelled, tmp_path):
    for width in (5, 4):
        vector = torch.arange(1.0, width + 1)
        Direction(vector, layer="x", layout="BC", model="m").save(tmp_path / f"{width}.safetensors")
    torch.testing.assert_close(read_direction(tmp_path / "5.safetensors", labelled), torch.arange(1.0, 6).double())
    with pytest.raises(ValueError, match="wanted a direction of 5 features, given 4"):
        read_direction(tmp_path / "4.safetensors", labelled)


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("object_id,a,b\no1,1,2\n", None, "name one of its columns, as in .*t.csv:a; it has a, b"),
        ("object_id,g_r\no1,1\n", "gr", "it has no numbers 'gr'; did you mean 'g_r'"),
        ("name,g_r\no1,1\n", None, "wanted a column 'object_id' and numbers"),
        ("object_id,g_r\no1,1\no2,2\n", None, "at least 6 objects of the index, given 2"),
        ("object_id,g_r\n" + "".join(f"o{i},1\n" for i in range(9)), None, "wanted different numbers"),
        ("", None, "wanted a direction, or a table"),
    ],
)
def test_what_makes_no_direction(labelled, tmp_path, text, column, said):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=said):
        read_direction(path, labelled, column)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_direction(tmp_path / "none.csv", labelled)
