"""The table of published names: complete, without repetition, and what the published package computes from it."""

import json

from pathlib import Path

import pytest

from aion.official import names
from aion.official.codecs import CODECS
from aion.official.names import PUBLISHED, name_of

TINY = Path(__file__).parent / "data" / "official" / "tiny" / "codecs"


def test_forty_modalities_each_with_a_key_and_a_number_of_its_own():
    assert len(PUBLISHED) == len({p.key for p in PUBLISHED.values()}) == len({p.id for p in PUBLISHED.values()}) == 40
    assert list(PUBLISHED) == sorted(PUBLISHED)
    assert sum(p.tokens for p in PUBLISHED.values()) == 1984 + 50


def test_every_codec_has_a_class_here_and_every_folder_was_written_by_the_published_package():
    assert {p.codec for p in PUBLISHED.values()} == set(CODECS)
    assert {p.folder for p in PUBLISHED.values()} == {path.name for path in TINY.iterdir()}
    for published in PUBLISHED.values():
        config = json.loads((TINY / published.folder / "config.json").read_text())
        assert config.get("modality", published.folder) == published.folder


@pytest.mark.parametrize(
    ("name", "key", "number", "vocabulary", "tokens"),
    [
        ("legacysurvey_image", "tok_image", 18665, 4375, 576),
        ("legacysurvey_segmentation_map", "tok_segmap", 11864, 1000, 144),
        ("legacysurvey_catalog", "catalog", 12119, 3468, 50),
        ("sdss_spectrum", "tok_spectrum_sdss", 2489, 1024, 273),
        ("gaia_rp_coefficients", "tok_xp_rp", 13385, 1024, 55),
        ("hsc_shape22", "tok_shape22", 24183, 1024, 1),
        ("redshift", "tok_z", 9755, 1025, 1),
    ],
)
def test_rows_of_the_table(name, key, number, vocabulary, tokens):
    published = PUBLISHED[name]
    assert (published.key, published.id, published.vocabulary, published.tokens) == (key, number, vocabulary, tokens)
    assert name_of(key) == name


def test_the_documented_table_names_every_modality():
    for name, published in PUBLISHED.items():
        if published.codec in {"ImageCodec", "SpectrumCodec", "CatalogCodec", "ScalarFieldCodec", "GridScalarCodec"}:
            assert f"| `{name}` | `{published.key}` | `{published.folder}` | {published.codec} |" in names.__doc__
        else:
            stem = name.rsplit("_", 1)[0]
            assert f"`{name}`" in names.__doc__ or f"`{stem}_" in names.__doc__
            assert published.codec in names.__doc__


def test_unknown_names_are_refused_with_near_misses():
    with pytest.raises(ValueError, match="unknown modality 'tok_image_ls'; did you mean 'tok_image"):
        name_of("tok_image_ls")
