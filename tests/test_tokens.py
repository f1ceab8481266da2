import itertools

import pytest
import torch

from aion.tokens import Tokens, TokenSequence, Vocabulary

SIZES = {"redshift": 10, "desi_spectrum": 1000, "hsc_image": 300, "gaia_bp_coefficients": 7}


def draw(size, n, generator, rows=4, dtype=torch.int64):
    """Draws tokens of which every row has at least one that is valid."""
    valid = torch.rand(rows, n, generator=generator) < 0.6
    valid[:, -1] = True
    return Tokens(
        ids=torch.randint(size, (rows, n), generator=generator).to(dtype),
        position=torch.randn(rows, n, 2, generator=generator),
        valid=valid,
    )


@pytest.fixture
def tokens(generator):
    return {name: draw(size, n, generator) for (name, size), n in zip(SIZES.items(), (1, 9, 6, 3), strict=True)}


def listed(tokens, row):
    """Lists the valid tokens of one row."""
    keep = tokens.valid[row]
    return tokens.ids[row][keep].tolist(), tokens.position[row][keep].tolist()


def assert_same(a, b):
    for name in ("ids", "modality", "position", "valid"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name


def bad(**changes):
    parts = {
        "ids": torch.zeros(2, 3, dtype=torch.long),
        "position": torch.zeros(2, 3, 2),
        "valid": torch.ones(2, 3, dtype=torch.bool),
    }
    return {**parts, **changes}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"ids": torch.zeros(3, dtype=torch.long)}, ValueError, r"given \(3,\), \(2, 3, 2\), \(2, 3\)"),
        ({"position": torch.zeros(2, 3)}, ValueError, r"position \(B, N, 2\)"),
        ({"position": torch.zeros(2, 3, 3)}, ValueError, r"position \(B, N, 2\)"),
        ({"valid": torch.ones(2, 2, dtype=torch.bool)}, ValueError, r"valid \(B, N\)"),
        ({"ids": torch.zeros(2, 3)}, TypeError, "integer ids.*given torch.float32"),
        ({"valid": torch.ones(2, 3)}, TypeError, "boolean valid"),
        ({"position": torch.zeros(2, 3, 2, dtype=torch.long)}, TypeError, "floating-point position"),
    ],
)
def test_bad_tokens_are_refused(changes, error, message):
    with pytest.raises(error, match=message):
        Tokens(**bad(**changes))
    assert len(Tokens(**bad())) == 2


def test_tokens_say_how_many_there_are():
    valid = torch.tensor([[True, False], [True, True]])
    tokens = Tokens(torch.zeros(2, 2, dtype=torch.long), torch.zeros(2, 2, 2), valid)
    assert repr(tokens) == "Tokens(2 objects, 3 of 4 valid)"
    assert repr(Vocabulary({"a": 1}).pack({"a": tokens})[0]) == "TokenSequence(1 object, 1 of 2 valid)"


@pytest.mark.parametrize("order", list(itertools.permutations(SIZES)))
def test_the_order_of_names_changes_nothing(order, tokens):
    vocabulary = Vocabulary({name: SIZES[name] for name in order})
    reference = Vocabulary(SIZES)
    assert vocabulary.names == reference.names == tuple(sorted(SIZES))
    assert vocabulary.ranges == reference.ranges
    assert repr(vocabulary) == repr(reference)
    assert_same(vocabulary.pack({name: tokens[name] for name in order}), reference.pack(tokens))


def test_ranges_tile_the_vocabulary():
    vocabulary = Vocabulary(SIZES)
    assert len(vocabulary) == sum(SIZES.values())
    start = 0
    for index, name in enumerate(vocabulary.names):
        assert vocabulary.index(name) == index
        assert vocabulary.ranges[name] == (start, start + SIZES[name])
        start += SIZES[name]
    assert start == len(vocabulary)


def test_the_vocabulary_does_not_keep_the_mapping_of_the_caller():
    sizes = dict(SIZES)
    vocabulary = Vocabulary(sizes)
    sizes["redshift"] = 99
    assert vocabulary.sizes["redshift"] == 10


@pytest.mark.parametrize("sizes", [{}, {"a": 0}, {"a": 3, "b": -1}, {"a": 2.5}, {"a": "3"}, {"a": None}])
def test_bad_sizes_are_refused(sizes):
    with pytest.raises(ValueError, match="at least one modality and whole positive sizes"):
        Vocabulary(sizes)


def test_unknown_modalities_get_a_hint(tokens):
    vocabulary = Vocabulary(SIZES)
    with pytest.raises(ValueError, match="unknown modality 'desi_spectra'; did you mean 'desi_spectrum'"):
        vocabulary.index("desi_spectra")
    with pytest.raises(ValueError, match="did you mean 'hsc_image'"):
        vocabulary.pack({"HSC_image": tokens["hsc_image"]})
    with pytest.raises(ValueError, match="did you mean 'redshift'"):
        vocabulary.unpack(vocabulary.pack(tokens), "redshif")


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_unpacking_gives_back_what_was_packed(count, tokens):
    vocabulary = Vocabulary(SIZES)
    for names in itertools.combinations(SIZES, count):
        sequence = vocabulary.pack({name: tokens[name] for name in names})
        assert len(sequence) == 4
        assert sequence.ids.shape == sequence.modality.shape == sequence.valid.shape == sequence.position.shape[:2]
        assert sequence.valid.sum() == sum(tokens[name].valid.sum() for name in names)
        for name in SIZES:
            part = vocabulary.unpack(sequence, name)
            for row in range(4):
                expected = listed(tokens[name], row) if name in names else ([], [])
                assert listed(part, row) == expected


def test_packed_ids_lie_in_the_range_of_their_modality(tokens):
    vocabulary = Vocabulary(SIZES)
    sequence = vocabulary.pack(tokens)
    assert sequence.ids.dtype == sequence.modality.dtype == torch.int64
    for index, name in enumerate(vocabulary.names):
        start, stop = vocabulary.ranges[name]
        of_it = sequence.valid & (sequence.modality == index)
        assert torch.equal(of_it, sequence.valid & (sequence.ids >= start) & (sequence.ids < stop))


def test_packing_is_as_short_as_its_longest_row_and_pads_with_zeros(tokens):
    sequence = Vocabulary(SIZES).pack(tokens)
    counts = sum(part.valid.sum(1) for part in tokens.values())
    assert sequence.ids.shape[1] == counts.max()
    assert torch.equal(sequence.valid, torch.arange(sequence.ids.shape[1]) < counts[:, None])
    for name in ("ids", "modality", "position"):
        assert (getattr(sequence, name)[~sequence.valid] == 0).all()


def test_what_is_not_valid_has_no_influence(tokens):
    vocabulary = Vocabulary(SIZES)
    spoiled = {
        name: Tokens(
            ids=part.ids.masked_fill(~part.valid, -999),
            position=part.position.masked_fill(~part.valid[..., None], torch.nan),
            valid=part.valid,
        )
        for name, part in tokens.items()
    }
    assert_same(vocabulary.pack(spoiled), vocabulary.pack(tokens))
    assert (spoiled["desi_spectrum"].ids == -999).any()  # and the caller's tensors are as they were


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
def test_narrow_integers_do_not_overflow(dtype, generator):
    vocabulary = Vocabulary({"a": 300, "b": 120})
    narrow = draw(120, 5, generator, dtype=dtype)
    wide = Tokens(ids=narrow.ids.long(), position=narrow.position, valid=narrow.valid)
    assert_same(vocabulary.pack({"b": narrow}), vocabulary.pack({"b": wide}))


@pytest.mark.parametrize(("wrong", "given"), [(-1, "-1 to 9"), (10, "0 to 10")])
def test_ids_outside_the_size_are_refused(wrong, given):
    ids = torch.tensor([[0], [9], [wrong]])
    tokens = Tokens(ids=ids, position=torch.zeros(3, 1, 2), valid=torch.ones(3, 1, dtype=torch.bool))
    with pytest.raises(ValueError, match=rf"redshift: ids must lie in \[0, 10\), given {given}"):
        Vocabulary(SIZES).pack({"redshift": tokens})


def test_an_object_without_any_token_is_named(tokens):
    vocabulary = Vocabulary(SIZES)
    valid = tokens["hsc_image"].valid.clone()
    valid[[1, 3]] = False
    empty = Tokens(ids=tokens["hsc_image"].ids, position=tokens["hsc_image"].position, valid=valid)
    with pytest.raises(ValueError, match=r"no token at all for row 1 \(2 such rows\)"):
        vocabulary.pack({"hsc_image": empty})
    both = vocabulary.pack(
        {"hsc_image": empty, "redshift": tokens["redshift"]}
    )  # absent is fine, if something is there
    assert not vocabulary.unpack(both, "hsc_image").valid[[1, 3]].any()


def test_bad_packings_are_refused(tokens):
    vocabulary = Vocabulary(SIZES)
    with pytest.raises(ValueError, match="nothing to pack: wanted tokens of at least one of desi_spectrum"):
        vocabulary.pack({})
    short = tokens["redshift"]
    short = Tokens(ids=short.ids[:2], position=short.position[:2], valid=short.valid[:2])
    with pytest.raises(ValueError, match=r"same number of objects, given {'hsc_image': 4, 'redshift': 2}"):
        vocabulary.pack({"hsc_image": tokens["hsc_image"], "redshift": short})


def test_one_is_as_in_a_batch(tokens):
    vocabulary = Vocabulary(SIZES)
    together = vocabulary.pack(tokens)
    for row in range(4):
        alone = vocabulary.pack(
            {
                name: Tokens(ids=t.ids[row, None], position=t.position[row, None], valid=t.valid[row, None])
                for name, t in tokens.items()
            }
        )
        n = alone.ids.shape[1]
        for name in ("ids", "modality", "position", "valid"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[row, :n])


def test_select_keeps_the_order(tokens, generator):
    sequence = Vocabulary(SIZES).pack(tokens)
    keep = torch.rand(sequence.ids.shape, generator=generator) < 0.5
    part = sequence.select(keep)
    for row in range(4):
        wanted = keep[row] & sequence.valid[row]
        n = int(wanted.sum())
        assert part.valid[row].tolist() == [True] * n + [False] * (part.ids.shape[1] - n)
        for name in ("ids", "modality", "position"):
            assert torch.equal(getattr(part, name)[row, :n], getattr(sequence, name)[row][wanted])
            assert (getattr(part, name)[row, n:] == 0).all()
    assert part.ids.shape[1] == int((keep & sequence.valid).sum(1).max())


def test_selecting_nothing_leaves_one_column_of_padding(tokens):
    sequence = Vocabulary(SIZES).pack(tokens)
    part = sequence.select(torch.zeros_like(sequence.valid))
    assert part.ids.shape == (4, 1)
    assert not part.valid.any()


def test_gather_picks_and_pads():
    sequence = TokenSequence(
        ids=torch.tensor([[10, 11, 12]]),
        modality=torch.tensor([[1, 1, 2]]),
        position=torch.arange(6.0).reshape(1, 3, 2),
        valid=torch.ones(1, 3, dtype=torch.bool),
    )
    part = sequence.gather(torch.tensor([[2, 0, 1]]), torch.tensor([[True, True, False]]))
    assert part.ids.tolist() == [[12, 10, 0]]
    assert part.modality.tolist() == [[2, 1, 0]]
    assert part.position.tolist() == [[[4, 5], [0, 1], [0, 0]]]
    assert part.valid.tolist() == [[True, True, False]]


@pytest.mark.parametrize(
    ("index", "expected"),
    [(2, [2]), (-1, [3]), (slice(1, 3), [1, 2]), ([3, 0], [3, 0]), (torch.tensor([1, 1]), [1, 1])],
    ids=str,
)
def test_indexing_selects_objects_and_keeps_the_batch(index, expected, tokens):
    sequence = Vocabulary(SIZES).pack(tokens)
    part = sequence[index]
    assert len(part) == len(expected)
    for name in ("ids", "modality", "position", "valid"):
        assert torch.equal(getattr(part, name), getattr(sequence, name)[expected])


def test_sequences_move(tokens):
    moved = Vocabulary(SIZES).pack(tokens).to("meta")
    assert {getattr(moved, name).device.type for name in ("ids", "modality", "position", "valid")} == {"meta"}
