"""Searching embeddings: by id, by observation, and what must not be compared."""

import pytest
import torch

from aion import AION
from aion.io import read_embeddings
from aion.survey import Job, embed_survey
from aion.survey.search import index_embeddings, montage, panels, search


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


def test_montage_draws_what_there_is(sky, observations):
    found = panels([sky], {"f": "sixth", "a": "first", "none": "no"})
    assert [title for title, *_ in found] == ["sixth", "first"]
    figure = montage(found)
    assert [f.get_suptitle() for f in figure.subfigs] == ["sixth", "first"]
    with pytest.raises(ValueError, match="none of the objects has"):
        montage([])
