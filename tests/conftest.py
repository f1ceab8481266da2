"""What all tests share: the checkout, seeded weights, no network, small models and what they read."""

import importlib.util
import os
import shutil
import socket
import sys

from pathlib import Path

import pytest
import torch

# Before anything imports huggingface_hub or datasets, which read these at import; child processes inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"


@pytest.fixture(scope="session")
def root() -> Path:
    """Returns the folder of the checkout."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def script(root):
    """Loads scripts of `tokenizers/` as modules: by their names, with the folder on the path, as when they are run."""
    folder = root / "tokenizers"

    def load(name: str):
        if name not in sys.modules:
            sys.path.insert(0, str(folder))
            try:
                spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
                sys.modules[name] = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(sys.modules[name])
            finally:
                sys.path.remove(str(folder))
        return sys.modules[name]

    return load


@pytest.fixture
def generator() -> torch.Generator:
    """Makes a seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True)
def _seeded_weights():
    """Seeds the global generator, from which torch draws the first weights of its modules, and restores it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # noqa: TID251
        yield


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    """Fails a test that connects to anything but this machine."""
    connect = socket.socket.connect

    def local(self, address):
        if self.family in {socket.AF_INET, socket.AF_INET6} and address[0] not in {"127.0.0.1", "::1", "localhost"}:
            pytest.fail(f"a test tried to connect to {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local)


OBJECTS = 6


@pytest.fixture
def observations(generator) -> dict:
    """Makes six objects seen in every modality that `tiny_model` reads: ragged, gappy and partly missing."""
    from aion import Image, Scalar, Spectrum

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(OBJECTS, *shape, generator=generator)

    length = 700
    wavelength = torch.linspace(4000, 7000, length) + 3 * torch.rand(OBJECTS, 1, generator=generator)
    ivar = torch.rand(OBJECTS, length, generator=generator) + 0.1
    ivar[:, 300:360] = 0
    ivar[1, 400:] = 0
    ivar[2] = 0
    image_ivar = torch.full((OBJECTS, 3, 20, 24), 4.0)
    image_ivar[3, 1] = 0
    image_ivar[4] = 0
    value = draw(4)
    value[0, 1] = float("nan")
    redshift = torch.rand(OBJECTS, generator=generator)
    redshift[5] = float("nan")
    return {
        "desi_spectrum": Spectrum(5 + draw(length), ivar, wavelength),
        "legacysurvey_image": Image(draw(3, 20, 24), image_ivar, ("decam-g", "decam-r", "decam-z")),
        "gaia_bp_coefficients": Scalar(value),
        "redshift": Scalar(redshift),
    }


@pytest.fixture
def tokenizers(observations) -> dict:
    """Builds one small tokenizer of each kind, and a vector one, ready for `observations`."""
    from aion import Scalar
    from aion.tokenizers import ImageTokenizer, ScalarTokenizer, SpectrumTokenizer

    sample = torch.linspace(0, 1, 100)
    return {
        "image": ImageTokenizer(patch=4, width=16, depth=1, levels=[5, 5, 4]),
        "octaves": ImageTokenizer(
            patch=[4, 2, 2],
            width=[16, 12, 8],
            depth=1,
            levels=[[5, 4], [5, 5, 4], [5, 5, 4]],
            spots=200,
            basis=3,
            informed=True,
            hidden=0.3,
        ),
        "redshift": ScalarTokenizer(bins=32).fit(Scalar(sample), spacing="log1p"),
        "spectrum": SpectrumTokenizer(start=3500, stop=8000, width=16, depth=1, levels=[5, 4, 4], scale_bins=64),
        "vector": ScalarTokenizer(bins=8, components=4).fit(Scalar(torch.randn(50, 4))),
    }


@pytest.fixture
def tiny_model(tokenizers):
    """Assembles a small untrained model that reads `observations`."""
    from aion import AION

    modalities = {
        "desi_spectrum": "spectrum",
        "sdss_spectrum": "spectrum",
        "legacysurvey_image": "image",
        "gaia_bp_coefficients": "vector",
        "redshift": "redshift",
    }
    shape = {"dim": 32, "heads": 4, "encoder_depth": 2, "decoder_depth": 2}
    return AION(tokenizers, modalities, shape, provenance={"data": "none: untrained"}).eval()


@pytest.fixture
def bundle(tiny_model, tmp_path) -> Path:
    """Writes `tiny_model` to a folder."""
    tiny_model.save_pretrained(tmp_path / "bundle")
    return tmp_path / "bundle"


def nested(value):
    """Turns an array of any depth into an Arrow array of lists."""
    import pyarrow

    value = value.numpy() if isinstance(value, torch.Tensor) else value
    return pyarrow.array(value.tolist())


def arrow(observation):
    """Turns observations into a column as the Multimodal Universe has them."""
    import pyarrow

    if hasattr(observation, "value"):
        return nested(observation.value)
    parts = {"flux": observation.flux, "ivar": observation.ivar, "mask": ~observation.measured}
    if hasattr(observation, "wavelength"):
        parts["lambda"] = observation.wavelength
    else:
        count, channels = observation.flux.shape[:2]
        parts["scale"] = observation.pixel_scale[:, None].expand(count, channels)
        arrays = {name: nested(part) for name, part in parts.items()}
        arrays["band"] = pyarrow.array([list(observation.bands)] * count)
        return pyarrow.StructArray.from_arrays(list(arrays.values()), names=list(arrays))
    return pyarrow.StructArray.from_arrays([nested(part) for part in parts.values()], names=list(parts))


@pytest.fixture
def shard(tmp_path):
    """Writes observations to a Parquet file of a survey."""
    import pyarrow
    import pyarrow.parquet

    def write(name, observations, ids, **columns):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        data = {"object_id": pyarrow.array(ids), **{key: arrow(value) for key, value in observations.items()}}
        pyarrow.parquet.write_table(pyarrow.table({**data, **columns}), path)
        return path

    return write


@pytest.fixture
def sky(shard, observations):
    """Writes the six objects as two shards in a folder."""
    first = {name: value[:4] for name, value in observations.items()}
    second = {name: value[4:] for name, value in observations.items()}
    shard("sky/part-0.parquet", first, list("abcd"), ra=[10.0, 20.0, 30.0, 40.0], dec=[1.0, 2.0, 3.0, -4.0])
    return shard("sky/part-1.parquet", second, list("ef"), ra=[50.0, 60.0], dec=[5.0, 6.0]).parent


@pytest.fixture(scope="session")
def repository(tmp_path_factory) -> Path:
    """Makes a small published checkpoint of all 40 modalities, with tokenizers."""
    from aion.official.catalog import OfficialCatalogTokenizer
    from aion.official.codecs import write_codecs

    path = Path(__file__).with_name("make_official_model_fixtures.py")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    folder = make.build(tmp_path_factory.mktemp("hub") / "aion-base")
    shutil.copytree(make.FIXTURES / "tiny" / "codecs", folder / "codecs")
    catalog = OfficialCatalogTokenizer()
    for name in ("SHAPE_E1", "SHAPE_E2", "SHAPE_R"):
        catalog.quantizer.quantizers[name].index_to_val.copy_(torch.linspace(-1, 4, 1024))
    write_codecs({"legacysurvey_catalog": catalog}, folder)
    return folder


@pytest.fixture(scope="session")
def published_model(repository):
    """Loads the small published checkpoint."""
    from aion import AION

    return AION.from_pretrained(repository, device="cpu")


@pytest.fixture
def published_observations(generator) -> dict:
    """Makes two objects seen in six modalities that published checkpoints read."""
    from aion import Catalog, Image, Scalar, Spectrum

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(2, *shape, generator=generator)

    return {
        "desi_spectrum": Spectrum(3 + draw(900), torch.ones(2, 900), torch.linspace(3490, 10480, 900)),
        "gaia_bp_coefficients": Scalar(0.3 * draw(55)),
        "legacysurvey_catalog": Catalog(*draw(2, 3).unbind(1), *draw(3, 3).abs().unbind(1)),
        "legacysurvey_image": Image(
            draw(4, 96, 96), torch.ones(2, 4, 96, 96), ("decam-g", "decam-r", "decam-i", "decam-z")
        ),
        "redshift": Scalar([0.2, 0.5]),
        "ra": Scalar([0.1, 0.2]),
    }


class Toy(torch.nn.Module):
    """Three blocks of tokens `(B, N, C)`, and layers that return a tuple, a dict or never run."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(6, 6) for _ in range(3))
        self.pair, self.odd, self.idle = Pair(), Odd(), torch.nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `(B, N, 6)` to the same shape."""
        for block in self.blocks:
            x = x + torch.tanh(block(x))
        return self.pair(x)[0]


class Pair(torch.nn.Module):
    """Returns a tuple."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, int]:
        """Returns what it is given and something else."""
        return x, 2 * x.detach()


class Odd(torch.nn.Module):
    """Returns a dict."""

    def forward(self, x: torch.Tensor) -> dict:
        """Returns what it is given by name."""
        return {"x": x}


@pytest.fixture
def toy() -> Toy:
    """Makes a small module to be watched and steered."""
    return Toy().eval()
