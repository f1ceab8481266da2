"""The transformer of published checkpoints: the numbers of the published package, strict reading, exact writing."""

import importlib.util
import json
import subprocess
import sys

from pathlib import Path

import pytest
import torch

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from aion.generation import Generation
from aion.official.checkpoint import is_published, read_transformer, write_transformer
from aion.official.names import PUBLISHED, name_of
from aion.tokens import Tokens, TokenSequence

PATH = Path(__file__).with_name("make_official_model_fixtures.py")
SPEC = importlib.util.spec_from_file_location("make_official_model_fixtures", PATH)
MAKE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MAKE)

EXPECTED = load_file(MAKE.FIXTURES / "model.safetensors")
TOLERANCE = {"atol": 1e-5, "rtol": 1e-5}  # float32, sums in another order; logits have a standard deviation of 2


@pytest.fixture(scope="module")
def repositories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published")
    return {variant: MAKE.build(folder / variant, variant) for variant in MAKE.VARIANTS}


@pytest.fixture
def small(tmp_path):
    return MAKE.build(tmp_path / "small", "biased", domains_in=["tok_z", "tok_flux_g"], domains_out=["tok_z"])


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def places(key, count):
    rows, columns = PUBLISHED[name_of(key)].grid
    return torch.cartesian_prod(torch.arange(rows), torch.arange(columns)).float().expand(count, -1, -1)


def sequence(model, config, keys=None):
    ids, masked = MAKE.inputs(config)
    tokens = {}
    for key in keys or ids:
        valid = ~torch.from_numpy(masked[key])
        position = places(key, 2)[:, : valid.shape[1]]
        if key == "catalog":  # numbered without those that are masked
            position = torch.stack([torch.zeros(valid.shape), (valid.cumsum(1) - 1).clamp(min=0).float()], dim=-1)
        tokens[name_of(key)] = Tokens(torch.from_numpy(ids[key]), position, valid)
    return model.vocabulary.pack(tokens)


def query(model, keys):
    parts = {name_of(key): places(key, 2) for key in keys}
    modality = [torch.full(p.shape[:2], model.vocabulary.index(n)) for n, p in parts.items()]
    modality = torch.cat(modality, dim=1)
    position = torch.cat(list(parts.values()), dim=1)
    return TokenSequence(torch.zeros_like(modality), modality, position, torch.ones_like(modality, dtype=torch.bool))


def in_published_order(model, config, part, vectors):
    """Puts the vectors of one object as the published package has them: as given, masked ones last and left out."""
    index = [model.vocabulary.index(name_of(key)) for key in MAKE.inputs(config)[0]]
    return torch.cat([vectors[part.valid & (part.modality == i)] for i in index])


# ---- the same numbers


@pytest.mark.parametrize("variant", MAKE.VARIANTS)
@pytest.mark.parametrize("parity", [True, False])
@torch.no_grad()
def test_the_encoder_is_the_published_one(repositories, variant, parity):
    config = config_of(repositories[variant])
    model = read_transformer(repositories[variant], parity)[0].eval()
    given = sequence(model, config)
    context, encoder = model.encode(given), model.encode(given, "encoder")
    for i in range(2):
        part = TokenSequence(**{key: value[i] for key, value in vars(given).items()})
        found = in_published_order(model, config, part, context[i])
        torch.testing.assert_close(found, EXPECTED[f"{variant}/context"][i, : len(found)], **TOLERANCE)
        every = in_published_order(model, config, part, encoder[i])[:: MAKE.STRIDE]
        torch.testing.assert_close(every, EXPECTED[f"{variant}/encoder"][i, : len(every)], **TOLERANCE)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.count("/") == 3])
@torch.no_grad()
def test_the_decoder_is_the_published_one(repositories, name):
    variant, mode, asked, key = name.split("/")
    config = config_of(repositories[variant])
    model = read_transformer(repositories[variant], parity=mode == "parity")[0].eval()
    keys = asked.split("+")
    visible = sequence(model, config, [k for k in MAKE.inputs(config)[0] if k not in keys and k != "catalog"])
    wanted = query(model, keys)
    hidden = model.decode(model.encode(visible), visible, wanted)
    own = wanted.modality[0] == model.vocabulary.index(name_of(key))
    logits = model.logits(hidden[:, own], name_of(key))[:, :: MAKE.STRIDE, :: MAKE.EVERY]
    torch.testing.assert_close(logits, EXPECTED[name], **TOLERANCE)


@pytest.mark.parametrize("name", [name for name in EXPECTED if "/guided/" in name])
@pytest.mark.parametrize("parity", [True, False])
def test_generation_is_the_published_one(repositories, name, parity):
    variant, _, scale = name.split("/")
    model = read_transformer(repositories[variant], parity)[0].eval()
    visible = sequence(model, config_of(repositories[variant]), MAKE.GIVEN)
    options = {"scheme": "one-pass", "temperature": 0.0, "guidance": float(scale)}
    ids = Generation(**options)(model, visible, query(model, ["tok_xp_bp"]), 1024)
    assert torch.equal(ids[:, 0], EXPECTED[name].long())


@torch.no_grad()
def test_the_default_does_not_share_the_fault_of_the_published_decoder(repositories):
    config = config_of(repositories["tied"])
    change = {}
    for parity in (True, False):
        model = read_transformer(repositories["tied"], parity)[0].eval()
        visible = sequence(model, config, ["tok_image"])
        alone, among = (query(model, keys) for keys in (["tok_z"], ["tok_z", "tok_flux_g", "tok_xp_bp"]))
        hidden = [model.decode(model.encode(visible), visible, wanted)[:, :1] for wanted in (alone, among)]
        change[parity] = (hidden[0] - hidden[1]).abs().max().item()
    assert change[False] < 1e-5 < 1e-2 < change[True]


@torch.no_grad()
def test_queries_of_other_modalities_are_seen_if_the_checkpoint_says_so(repositories):
    config = config_of(repositories["biased"])
    assert config["decoder_sep_mask"] is False
    model = read_transformer(repositories["biased"])[0].eval()
    visible = sequence(model, config, ["tok_xp_bp"])
    hidden = [
        model.decode(model.encode(visible), visible, query(model, keys))[:, :1]
        for keys in (["tok_z"], ["tok_z", "tok_flux_g"])
    ]
    assert (hidden[0] - hidden[1]).abs().max() > 1e-2


# ---- written back


@pytest.mark.parametrize("variant", MAKE.VARIANTS)
def test_what_is_written_back_is_bit_identical(repositories, variant, tmp_path):
    folder = repositories[variant]
    model, unused = read_transformer(folder, parity=True)
    write_transformer(model, unused, tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    with safe_open(folder / "model.safetensors", "pt") as one, safe_open(tmp_path / "model.safetensors", "pt") as two:
        assert (one.metadata() or {}) == (two.metadata() or {})
    config = config_of(tmp_path)
    assert {key: config[key] for key in config_of(folder)} == config_of(folder)


def test_what_was_never_read_is_made_anew(repositories, tmp_path):
    folder = repositories["tied"]
    write_transformer(read_transformer(folder)[0], {}, tmp_path)
    before, after = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    for key, value in before.items():
        if key.startswith("decoder_embeddings") and key.endswith("token_emb.weight"):
            assert not after[key].any()
        else:
            torch.testing.assert_close(after[key], value, atol=3e-5, rtol=0)
    again = read_transformer(tmp_path)[0].state_dict()
    assert all(torch.equal(value, again[key]) for key, value in read_transformer(folder)[0].state_dict().items())


# ---- all kinds of files


def edit(folder, change):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_a_tied_checkpoint_may_have_both_names(small):
    expected = read_transformer(small)[0].state_dict()
    first, second = (f"{side}_embeddings.tok_z.mod_emb" for side in ("decoder", "encoder"))
    edit(small, lambda t: t.update({second: t[first].clone()}))
    found = read_transformer(small)[0].state_dict()
    assert all(torch.equal(value, found[key]) for key, value in expected.items())


def test_a_norm_without_bias_is_stored_with_one_of_zeros(repositories):
    tied = read_transformer(repositories["tied"])[0]
    assert not [name for name, _ in tied.named_parameters() if "norm" in name and name.endswith("bias")]
    biased = read_transformer(repositories["biased"])[0]
    assert biased.encoder_norm.bias.abs().sum() > 0


def test_a_bias_that_should_not_be_there_is_not_lost(tmp_path):
    folder = MAKE.build(tmp_path / "plain", "untied")
    edit(folder, lambda t: t["decoder.1.query_norm.bias"].fill_(0.25))
    assert (read_transformer(folder)[0].decoder[1].query_norm.bias == 0.25).all()


def test_half_precision_files_are_read(small):
    edit(small, lambda t: t.update({key: value.bfloat16() for key, value in t.items()}))
    assert {value.dtype for value in read_transformer(small)[0].state_dict().values()} == {torch.bfloat16}


def test_a_checkpoint_is_recognised(small, tmp_path):
    assert is_published(small)
    (small / "config.json").write_text('{"format": 1}')
    assert not is_published(small)
    (small / "config.json").write_bytes(b"\xff\xfe")
    assert not is_published(small)
    assert not is_published(tmp_path / "nothing")


def test_loading_takes_little_more_memory_than_the_weights(repositories, tmp_path):
    """Loads in a process of its own, touches every weight, and compares the peak with the size of the file."""
    folder = MAKE.build(tmp_path / "large", dim=256, num_heads=4, domains_in=MAKE.FEW, domains_out=MAKE.FEW)
    code = (
        "import sys, pathlib\n"
        "from aion.official.checkpoint import read_transformer\n"
        "def status(key):\n"
        "    return next(int(l.split()[1]) * 1024 for l in open('/proc/self/status') if l.startswith(key))\n"
        "def load(folder):\n"
        "    model, unused = read_transformer(pathlib.Path(folder))\n"
        "    return model, sum(float(p.detach().sum()) for p in model.parameters())\n"
        "load(sys.argv[1])\n"  # what torch itself loads on first use
        "before = max(status('VmRSS'), status('VmHWM'))\n"
        "model = load(sys.argv[2])\n"
        "print(status('VmHWM') - before)\n"
    )
    if not Path("/proc/self/status").exists():
        pytest.skip("this system does not tell the memory of a process")
    root = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", code, str(repositories["untied"]), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    size = (folder / "model.safetensors").stat().st_size
    assert int(done.stdout) < 1.25 * size, (int(done.stdout) / 2**20, size / 2**20)


# ---- what bad files get


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("encoder.1.mlp.fc3.weight"), "1 tensors are missing: encoder.1.mlp.fc3.weight"),
        (lambda t: t.pop("decoder.0.norm1.bias"), "1 tensors are missing: decoder.0.norm1.bias"),
        (lambda t: t.pop("decoder_embeddings.tok_z.mod_emb"), "missing: encoder_embeddings.tok_z.mod_emb; decoder"),
        (lambda t: t.pop("encoder_embeddings.tok_flux_g.mod_emb"), "missing: encoder_embeddings.tok_flux_g.mod_emb"),
        (lambda t: t.update(more=torch.zeros(1)), "1 tensors are extra: more"),
        (
            lambda t: t.update({"encoder.2.norm1.weight": torch.zeros(24)}),
            "1 tensors are extra: encoder.2.norm1.weight",
        ),
        (lambda t: t.update(mask_token=torch.zeros(24)), r"another shape: mask_token \(24,\), not \(1, 1, 24\)"),
        (
            lambda t: t.update({"encoder_embeddings.tok_z.token_emb.weight": torch.zeros(1024, 24)}),
            r"encoder_embeddings.tok_z.token_emb.weight \(1024, 24\), not \(1025, 24\)",
        ),
        (lambda t: t.update(mask_token=torch.zeros(1, 1, 24, dtype=torch.int32)), "mask_token does not hold floating"),
        (
            lambda t: t.update({"encoder_embeddings.tok_z.mod_emb": torch.zeros(1, 1, 24)}),
            "encoder_embeddings.tok_z.mod_emb and decoder_embeddings.tok_z.mod_emb differ",
        ),
        (lambda t: t["encoder_embeddings.tok_z.pos_emb"].fill_(0.5), "tok_z.pos_emb is not the table of sines"),
    ],
)
def test_tensors_that_do_not_fit_are_named(small, change, message):
    edit(small, change)
    with pytest.raises(ValueError, match=message):
        read_transformer(small)


def test_a_configuration_of_another_depth_is_refused(small):
    config = config_of(small)
    (small / "config.json").write_text(json.dumps(config | {"encoder_depth": 3}))
    with pytest.raises(ValueError, match=r"13 tensors are missing: encoder\.2\.norm1\.weight; .* \.\.\."):
        read_transformer(small)
    (small / "config.json").write_text(json.dumps(config | {"share_modality_embeddings": False}))
    with pytest.raises(ValueError, match=r"1 tensors are missing: encoder_embeddings\.tok_z\.mod_emb"):
        read_transformer(small)


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_file_that_was_cut_short_is_refused(small, keep):
    path = small / "model.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else keep])
    with pytest.raises(ValueError, match="is damaged, cut short or no safetensors file"):
        read_transformer(small)


def test_a_pickle_is_never_read(small):
    path = small / "model.safetensors"
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch hacked'\ntR.")
    with pytest.raises(ValueError, match="no safetensors file"):
        read_transformer(small)
    path.rename(small / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing; pytorch_model.bin is a pickle"):
        read_transformer(small)
    (small / "pytorch_model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"model.safetensors is missing$"):
        read_transformer(small)


@pytest.mark.parametrize("text", ["{", "[]", "\ud800"])
def test_a_configuration_that_is_none_is_refused(small, text):
    (small / "config.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"config\.json"):
        read_transformer(small)
