import numpy as np
import pytest
import torch

from sklearn.neighbors import NearestNeighbors

from aion.index import Index

METRICS = ("cosine", "euclidean")


def draw(n, d, generator):
    return torch.randn(n, d, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize(("n", "d", "b", "k"), [(300, 8, 20, 7), (5, 3, 1, 5), (1, 1, 4, 1), (40, 100, 300, 3)])
def test_agrees_with_scikit_learn(metric, n, d, b, k, generator):
    embedding, query = draw(n, d, generator), draw(b, d, generator)
    distance, row = Index(embedding, metric=metric).search(query, k)
    other = NearestNeighbors(n_neighbors=k, metric=metric, algorithm="brute").fit(embedding.numpy())
    other_distance, other_row = other.kneighbors(query.numpy())
    assert distance.shape == row.shape == (b, k)
    assert (distance.dtype, row.dtype) == (torch.float32, torch.int64)
    np.testing.assert_array_equal(row.numpy(), other_row)
    np.testing.assert_allclose(distance.numpy(), other_distance, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("chunk", [1, 3, 50, 299, 300, 10**6])
def test_the_chunk_changes_nothing(metric, chunk, generator):
    embedding, query = draw(300, 6, generator).round(), draw(10, 6, generator)  # rounded: there are ties
    embedding[:, 0] = 1
    expected = Index(embedding, metric=metric).search(query, 20)
    found = Index(embedding, metric=metric, chunk=chunk).search(query, 20)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_a_vector_is_its_own_nearest_at_distance_zero(metric, dtype, generator):
    embedding = (1000 + draw(100, 32, generator)).to(dtype)
    distance, row = Index(embedding, metric=metric).search(embedding, 1)
    assert (distance == 0).all()
    torch.testing.assert_close(embedding[row[:, 0]], embedding, rtol=0, atol=0)


@pytest.mark.parametrize("metric", METRICS)
def test_ties_go_to_the_lower_row(metric, generator):
    one = draw(1, 33, generator)
    embedding = one.repeat(1000, 1)
    embedding[500] += 1
    distance, row = Index(embedding, metric=metric, chunk=64).search(one + 0.1, 998)
    assert row[0].tolist() == [i for i in range(999) if i != 500][:998]
    assert (distance == distance[0, 0]).all()


@pytest.mark.parametrize("metric", METRICS)
def test_one_query_is_as_in_a_batch(metric, generator):
    index, query = Index(draw(200, 16, generator), metric=metric), draw(300, 16, generator)
    together = index.search(query, 4)
    for i in (0, 1, 255, 256, 299):
        alone = index.search(query[i, None], 4)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone, together, strict=True))


def test_distances_increase_and_lie_in_range(generator):
    distance = Index(draw(100, 3, generator)).search(draw(50, 3, generator), 100)[0]
    assert (distance.diff(dim=1) >= 0).all()
    assert distance.min() >= 0
    assert distance.max() <= 2
    opposite = Index([[1.0, 1.0]]).search([[-3.0, -3.0]], 1)[0]
    assert opposite.item() == pytest.approx(2)


def test_cosine_does_not_see_lengths(generator):
    embedding, query = draw(50, 5, generator), draw(8, 5, generator)
    length = torch.rand(50, 1, generator=generator) + 0.5
    a, b = Index(embedding).search(query, 9), Index(embedding * length).search(query * 7, 9)
    assert torch.equal(a[1], b[1])
    torch.testing.assert_close(a[0], b[0])


@pytest.mark.parametrize(
    "convert", [lambda t: t.numpy(), lambda t: t.numpy().astype(">f8"), lambda t: t.tolist(), lambda t: t.int()]
)
def test_arrays_and_lists_are_taken(convert, generator):
    embedding, query = (1 + 9 * draw(30, 4, generator)).round(), (9 * draw(3, 4, generator)).round() + 0.0
    found = Index(convert(embedding), metric="euclidean").search(convert(query), 5)
    expected = Index(embedding, metric="euclidean").search(query, 5)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_nothing_of_the_caller_is_written_and_no_gradient_is_kept(generator):
    embedding = draw(20, 4, generator).requires_grad_()
    query = draw(3, 4, generator).requires_grad_()
    before = embedding.detach().clone(), query.detach().clone()
    distance, _ = Index(embedding).search(query, 2)
    assert not distance.requires_grad
    assert torch.equal(embedding, before[0])
    assert torch.equal(query, before[1])


def test_says_what_it_holds(generator):
    index = Index(draw(20, 4, generator))
    assert len(index) == 20
    assert repr(index) == "Index(20 rows of 4 features, metric='cosine')"


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_rows_that_are_not_finite_are_named(value):
    bad = np.ones((6, 2))
    bad[[1, 4], 0] = value
    with pytest.raises(ValueError, match=r"2 of 6 rows of embedding hold NaN or inf \(first: 1, 4\)"):
        Index(bad)
    with pytest.raises(ValueError, match=r"2 of 6 rows of query hold NaN or inf \(first: 1, 4\)"):
        Index(np.ones((6, 2))).search(bad, 1)


def test_zero_vectors_have_no_direction():
    zero = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"1 of 2 rows of embedding are zero .* use metric='euclidean' \(first: 1\)"):
        Index(zero)
    with pytest.raises(ValueError, match="rows of query are zero"):
        Index(torch.ones(1, 2)).search(zero, 1)
    assert Index(zero, metric="euclidean").search(zero, 1)[1].flatten().tolist() == [0, 1]


@pytest.mark.parametrize("shape", [(3,), (0, 3), (3, 0), (2, 2, 2)])
def test_bad_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"embedding must be \(rows, D\) with at least one row, given"):
        Index(np.ones(shape))
    with pytest.raises(ValueError, match=r"query must be \(rows, D\)"):
        Index(np.ones((3, 3))).search(np.ones(shape), 1)


@pytest.mark.parametrize("bad", [[["a"]], np.ones((1, 1), complex), torch.ones(1, 1, dtype=torch.cfloat), None])
def test_what_is_not_a_real_number_is_refused(bad):
    with pytest.raises(TypeError, match="embedding must hold real numbers, given"):
        Index(bad)
    with pytest.raises(TypeError, match="query must hold real numbers, given"):
        Index(np.ones((1, 1))).search(bad, 1)


def test_bad_arguments_are_refused():
    index = Index(np.ones((3, 2)))
    with pytest.raises(ValueError, match="query must have 2 features like the embedding, given 4"):
        index.search(np.ones((1, 4)), 1)
    with pytest.raises(ValueError, match="k must be at most the number of rows, 3, given 4"):
        index.search(np.ones((1, 2)), 4)
    for k in (0, -1, 1.0, True, "1"):
        with pytest.raises(ValueError, match="k must be a whole number >= 1, given"):
            index.search(np.ones((1, 2)), k)
        with pytest.raises(ValueError, match="chunk must be a whole number >= 1, given"):
            Index(np.ones((3, 2)), chunk=k)
    with pytest.raises(ValueError, match="unknown metric 'cosin'; did you mean 'cosine'"):
        Index(np.ones((3, 2)), metric="cosin")


# ---- objects by name, half precision, files


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("chunk", [100, 5000])
def test_what_is_left_out_early_is_never_among_the_nearest(metric, chunk, generator):
    centres = draw(20, 24, generator)
    embedding = (centres.repeat_interleave(150, 0) + 0.05 * draw(3000, 24, generator)).half()
    query = embedding[::301].float() + 0.01
    distance, row = Index(embedding, metric=metric, chunk=chunk).search(query, 10)
    other = NearestNeighbors(n_neighbors=10, metric=metric, algorithm="brute").fit(embedding.double().numpy())
    true, expected = other.kneighbors(query.double().numpy())
    torch.testing.assert_close(distance.double(), torch.from_numpy(true), rtol=1e-5, atol=1e-7)
    assert (row.numpy() == expected).mean() > 0.999


@pytest.fixture
def named(generator):
    return Index(draw(6, 4, generator), ids=list("abcdef"), columns={"ra": torch.arange(6.0)}, facts={"model": "m"})


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_there_and_back(named, tmp_path, dtype):
    index = Index(named.embedding.to(dtype), ids=named.ids, columns=named.columns, facts=named.facts)
    digest = index.save(tmp_path / "i.safetensors")
    back = Index.load(tmp_path / "i.safetensors")
    assert torch.equal(back.embedding, index.embedding)
    assert (back.embedding.dtype, back.ids, back.facts, back.metric) == (dtype, index.ids, index.facts, index.metric)
    assert torch.equal(back.columns["ra"], index.columns["ra"])
    assert back.save(tmp_path / "again.safetensors") == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.safetensors", "i.safetensors"]


def test_altered_and_other_files_are_refused(named, tmp_path):
    path = tmp_path / "i.safetensors"
    named.save(path)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="or was altered"):
        Index.load(path)
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"wanted an index that Index\.save wrote"):
        Index.load(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        Index.load(tmp_path / "none")


def test_queries_by_name_and_direction(named):
    assert named.search(named.vector(["c"]), 1)[1].item() == 2
    unit = named.embedding.double() / named.embedding.double().norm(dim=1, keepdim=True)
    torch.testing.assert_close(named.vector(["a", "b"])[0], (unit[0] + unit[1]) / 2)
    direction = torch.tensor([1.0, 0, 0, 0])
    torch.testing.assert_close(named.vector(["a"], direction, 2)[0], unit[0] + 2 * direction.double())
    with pytest.raises(ValueError, match="no object 'A'"):
        named.vector(["A"])
    with pytest.raises(ValueError, match="at least one id"):
        named.vector([])
    with pytest.raises(ValueError, match="direction must have 4 features, given 3"):
        named.vector(["a"], torch.ones(3))


def test_add_and_delete_make_new_ones(named, generator):
    more = named.add(draw(2, 4, generator), ["g", "h"], {"ra": [7.0, 8.0]})
    assert (len(named), more.ids, more.facts) == (6, list("abcdefgh"), named.facts)
    less = more.delete(["a", "g"])
    assert (less.ids, less.columns["ra"].tolist()) == (list("bcdefh"), [1, 2, 3, 4, 5, 8])
    assert torch.equal(less.embedding, more.embedding[[1, 2, 3, 4, 5, 7]])
    with pytest.raises(ValueError, match="wanted 7 different ids, given 7, 6 different"):
        named.add(draw(1, 4, generator), ["a"], {"ra": [1.0]})
    with pytest.raises(ValueError, match="wanted 4 features and the columns"):
        named.add(draw(1, 5, generator), ["g"], {"ra": [1.0]})
    with pytest.raises(ValueError, match="no object 'z'"):
        named.delete(["z"])


def test_ids_and_columns_must_fit(generator):
    with pytest.raises(ValueError, match="wanted 3 different ids, given 2"):
        Index(draw(3, 2, generator), ids=["a", "b"])
    with pytest.raises(ValueError, match=r"column 'ra' must have the shape \(3,\)"):
        Index(draw(3, 2, generator), columns={"ra": [1.0]})
