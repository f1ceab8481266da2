"""Reading and writing the tokenizers of a repository in the published layout: strictly, and bit for bit."""

import json
import pickle
import shutil

from pathlib import Path

import pytest
import torch

from safetensors.torch import load_file, save_file

from aion import Scalar
from aion.official.codecs import CODECS, read_codecs, write_codecs
from aion.official.names import PUBLISHED
from aion.tokenizers import ScalarTokenizer

TINY = Path(__file__).parent / "data" / "official" / "tiny"
SHAPES = ("SHAPE_E1", "SHAPE_E2", "SHAPE_R")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Completes the tiny repository by a catalogue, whose samples are too long to keep."""
    folder = tmp_path_factory.mktemp("repository") / "aion-tiny"
    shutil.copytree(TINY, folder)
    tensors = {f"_quantizer.quantizers.{name}._codebook_size": torch.tensor(96) for name in "XY"}
    for name in SHAPES:
        tensors[f"_quantizer.quantizers.{name}._reservoir"] = torch.zeros(100_000)
        tensors[f"_quantizer.quantizers.{name}._index_to_val"] = torch.randn(1024).sort().values
    save_file(tensors, folder / "codecs" / "catalog" / "model.safetensors")
    return folder


@pytest.fixture
def copy(tmp_path) -> Path:
    """Copies two small tokenizers, for changing them."""
    for folder in ("EBV", "bp_coefficients", "image", "spectrum", "segmentation_map"):
        shutil.copytree(TINY / "codecs" / folder, tmp_path / "codecs" / folder)
    return tmp_path


def change(folder: Path, name: str, edit) -> None:
    path = folder / "codecs" / PUBLISHED[name].folder / "model.safetensors"
    tensors = load_file(path)
    save_file({k: v.clone() for k, v in edit(tensors).items()}, path)


def configure(folder: Path, name: str, **values) -> None:
    path = folder / "codecs" / PUBLISHED[name].folder / "config.json"
    config = json.loads(path.read_text()) | values
    path.write_text(json.dumps({k: v for k, v in config.items() if v != "absent"}))


def test_all_forty_are_read_and_those_of_one_folder_are_one(whole):
    read = read_codecs(whole)
    assert sorted(read) == sorted(PUBLISHED)
    assert read["hsc_image"] is read["legacysurvey_image"]
    assert read["desi_spectrum"] is read["sdss_spectrum"]
    assert len(set(map(id, read.values()))) == 38
    for name, tokenizer in read.items():
        assert tokenizer.size == PUBLISHED[name].vocabulary
        assert isinstance(tokenizer, CODECS[PUBLISHED[name].codec])
        assert not tokenizer.training
        assert not any(tensor.is_meta for tensor in tokenizer.state_dict().values())


def test_what_is_written_is_what_was_read_byte_for_byte(whole, tmp_path):
    write_codecs(read_codecs(whole), tmp_path)
    paths = [path for path in whole.rglob("*") if path.is_file()]
    assert len(paths) == 2 * 38
    for path in paths:
        assert (tmp_path / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == len(paths)


def test_only_what_is_wanted_is_read(copy):
    assert sorted(read_codecs(copy, ["hsc_image", "legacysurvey_ebv"])) == ["hsc_image", "legacysurvey_ebv"]
    assert len(read_codecs(copy)) == 7
    with pytest.raises(FileNotFoundError, match=r"codecs/Z/config\.json is missing"):
        read_codecs(copy, ["redshift"])
    with pytest.raises(ValueError, match="no published modality 'desi_spectra'; did you mean 'desi_spectrum'"):
        read_codecs(copy, ["desi_spectra"])


def test_a_folder_without_tokenizers_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no published tokenizers"):
        read_codecs(tmp_path)


@pytest.mark.parametrize("name", ["legacysurvey_ebv", "gaia_bp_coefficients", "legacysurvey_segmentation_map"])
def test_names_of_tensors_with_and_without_underscore_are_read(copy, name):
    before = read_codecs(copy, [name])[name].state_dict()
    change(copy, name, lambda tensors: {key.removeprefix("_"): value for key, value in tensors.items()})
    after = read_codecs(copy, [name])[name].state_dict()
    assert set(before) == set(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    change(copy, name, lambda tensors: tensors | {f"_{k}": v for k, v in tensors.items() if k.startswith("quantizer")})
    with pytest.raises(ValueError, match="holds tensors twice"):
        read_codecs(copy, [name])


@pytest.mark.parametrize("name", ["legacysurvey_ebv", "hsc_image", "sdss_spectrum", "legacysurvey_segmentation_map"])
def test_a_tensor_that_is_missing_extra_or_misshapen_is_named(copy, name):
    tensors = load_file(copy / "codecs" / PUBLISHED[name].folder / "model.safetensors")
    key = max(tensors, key=lambda k: tensors[k].numel())
    change(copy, name, lambda t: {k: v for k, v in t.items() if k != key})
    with pytest.raises(ValueError, match=rf"model\.safetensors does not fit its configuration: {key} is missing"):
        read_codecs(copy, [name])
    change(copy, name, lambda _: {**tensors, key: tensors[key][..., :-1], "decoder.more": torch.ones(3)})
    wanted = r"decoder\.more is not part of a .*Codec; .* has the shape .* wanted"
    with pytest.raises(ValueError, match=wanted) as error:
        read_codecs(copy, [name])
    assert key in str(error.value)
    change(copy, name, lambda _: {**tensors, key: tensors[key].long()})
    with pytest.raises(ValueError, match=rf"{key} is torch\.int64, wanted torch\.float32"):
        read_codecs(copy, [name])


def test_a_configuration_of_another_depth_does_not_leave_a_block_random(copy):
    configure(copy, "desi_spectrum", encoder_depths=[1, 3, 1, 1])
    with pytest.raises(ValueError, match=r"encoder\.stages\.1\.2\.dwconv\.bias is missing.* and \d more"):
        read_codecs(copy, ["desi_spectrum"])


def test_values_come_from_the_configuration(copy):
    value = Scalar([-1.0])
    configure(copy, "legacysurvey_segmentation_map", output_activation_extension=0.2)
    assert read_codecs(copy)["legacysurvey_segmentation_map"].stretch == 0.2
    configure(copy, "hsc_image", range_compression_factor=0.5, mult_factor=3)
    image = read_codecs(copy)["hsc_image"]
    assert (image.softening, image.factor) == (0.5, 3)
    configure(copy, "legacysurvey_ebv", codebook_size=32)
    change(copy, "legacysurvey_ebv", lambda t: {k: v[:32] if "index" in k else v for k, v in t.items()})
    assert read_codecs(copy)["legacysurvey_ebv"].encode(value).ids.max() < 32


def test_what_a_configuration_lacks_is_what_the_published_class_takes(copy):
    configure(copy, "hsc_image", mult_factor="absent")
    assert read_codecs(copy)["hsc_image"].factor == 10
    configure(copy, "legacysurvey_ebv", codebook_size=-64)
    with pytest.raises(ValueError, match=r"does not describe a ScalarCodec: .*negative dimension -64"):
        read_codecs(copy)
    configure(copy, "legacysurvey_ebv", codebook_size="absent")
    with pytest.raises(ValueError, match=r"does not describe a ScalarCodec: .*codebook_size"):
        read_codecs(copy)


def test_what_a_configuration_has_too_much_is_reported(copy):
    configure(copy, "legacysurvey_ebv", parity=True, colour="red")
    with pytest.warns(UserWarning, match="ScalarCodec has no colour, parity: not used"):
        tokenizer = read_codecs(copy)["legacysurvey_ebv"]
    assert not tokenizer.parity


@pytest.mark.parametrize(
    ("name", "key", "edit", "message"),
    [
        ("hsc_image", "_quantizer.levels", lambda v: v.flip(0), "the configuration says"),
        ("desi_spectrum", "_quantizer._quantizer.mask", lambda v: v.flip(0), "the file is damaged"),
        ("desi_spectrum", "latent_grid.lambda_min", lambda v: v + 100, "the configuration says"),
        ("desi_spectrum", "latent_grid._wavelength", lambda v: v.flip(1), "does not increase"),
        ("legacysurvey_ebv", "_quantizer._index_to_val", lambda v: v.flip(0), "not in order"),
        ("legacysurvey_segmentation_map", "_quantizer.levels", lambda v: v + 1, "the configuration says"),
    ],
)
def test_tensors_that_contradict_the_configuration_are_refused(copy, name, key, edit, message):
    change(copy, name, lambda tensors: {**tensors, key: edit(tensors[key])})
    with pytest.raises(ValueError, match=message):
        read_codecs(copy, [name])


def test_too_many_codes_for_the_vocabulary_are_refused(copy):
    configure(copy, "legacysurvey_ebv", codebook_size=1025)
    table = torch.arange(1025.0)
    change(copy, "legacysurvey_ebv", lambda t: {k: table if "index" in k else v for k, v in t.items()})
    with pytest.raises(ValueError, match="makes 1025 ids, the vocabulary has room for 1024"):
        read_codecs(copy)


def test_damaged_and_foreign_files_are_refused(copy):
    weights, config = (copy / "codecs" / "EBV" / name for name in ("model.safetensors", "config.json"))
    content = weights.read_bytes()
    for damaged in (content[:-5], content[:4], b"", pickle.dumps({"quantizer": 1})):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"EBV/model\.safetensors is damaged or no safetensors file"):
            read_codecs(copy)
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(FileNotFoundError, match=r"pytorch_model\.bin is a pickle, which .* never read"):
        read_codecs(copy)
    for text in ("{", "[1]", "\x80"):
        config.write_bytes(text.encode("latin1"))
        with pytest.raises(ValueError, match=r"EBV/config\.json.*(is not JSON|wanted an object)"):
            read_codecs(copy)


def test_tensors_of_another_precision_are_converted(copy):
    before = read_codecs(copy)["legacysurvey_ebv"].table
    change(copy, "legacysurvey_ebv", lambda tensors: {key: value.double() for key, value in tensors.items()})
    after = read_codecs(copy)["legacysurvey_ebv"].table
    assert after.dtype == torch.float32
    assert torch.equal(before, after)


def test_what_cannot_be_written_is_refused(copy, tmp_path):
    read, again = read_codecs(copy), read_codecs(copy)
    out = tmp_path / "out"
    with pytest.raises(TypeError, match="redshift: wanted a OfficialGridScalarTokenizer, given ScalarTokenizer"):
        write_codecs({"redshift": ScalarTokenizer()}, out)
    with pytest.raises(ValueError, match="no published modality 'spectrum'"):
        write_codecs({"spectrum": read["desi_spectrum"]}, out)
    write_codecs({"desi_spectrum": read["desi_spectrum"], "sdss_spectrum": again["sdss_spectrum"]}, out)
    torch.nn.init.zeros_(again["sdss_spectrum"].quant_conv.weight)
    with pytest.raises(ValueError, match="desi_spectrum and sdss_spectrum share the folder 'spectrum'"):
        write_codecs({"desi_spectrum": read["desi_spectrum"], "sdss_spectrum": again["sdss_spectrum"]}, out)
