import ast
import re
import subprocess
import sys
import zipfile

from email.parser import Parser
from importlib import metadata
from pathlib import Path

import pytest

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import aion

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("astropy", "datasets", "huggingface_hub", "matplotlib", "pyarrow", "sklearn")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        check=True,
        cwd=ROOT,
        capture_output=True,
        timeout=300,
    )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


@pytest.fixture(scope="module")
def pins():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def information(wheel):
    (name,) = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    return Parser().parsestr(wheel.read(name).decode())


def test_the_wheel_installs_aion_and_nothing_else(wheel):
    names = wheel.namelist()
    assert {name.split("/")[0] for name in names} == {"aion", f"aion_toolkit-{aion.__version__}.dist-info"}
    here = {p.relative_to(ROOT).as_posix() for p in (ROOT / "aion").rglob("*") if p.is_file() and p.suffix != ".pyc"}
    assert {name for name in names if name.startswith("aion/")} == here
    assert "aion/py.typed" in here


def test_what_the_wheel_says_of_itself(wheel):
    said = information(wheel)
    assert said["Name"] == "aion-toolkit"
    assert said["Version"] == aion.__version__
    assert said["Requires-Python"] == ">=3.10"
    assert said["License-Expression"] == "MIT"
    assert [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]
    assert said["Description-Content-Type"] == "text/markdown"
    (scripts,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert "aion = aion.__main__:main" in wheel.read(scripts).decode()


def test_dependencies_have_lower_bounds_only(wheel):
    requirements = [Requirement(line) for line in information(wheel).get_all("Requires-Dist")]
    assert len(requirements) > 10
    for requirement in requirements:
        assert {specifier.operator for specifier in requirement.specifier} == {">="}, str(requirement)
        assert requirement.url is None


def test_constraints_pin_versions_and_name_no_place(pins):
    for name, version in pins.items():
        assert re.fullmatch(r"[A-Za-z0-9._-]+", name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}: a plain version, no local tag"
    assert list(pins) == sorted(pins, key=str.lower)
    assert pins["torch"] == "2.13.0"


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11) or sys.platform != "linux", reason="the set pinned is for Python 3.11"
)
def test_constraints_pin_all_that_the_tests_need(wheel, pins):
    """Walks from the package and its extra `test` through what is installed."""
    pinned = {canonicalize_name(name): version for name, version in pins.items()}
    todo = [Requirement(line) for line in information(wheel).get_all("Requires-Dist")]
    todo = [r for r in todo if r.marker is None or r.marker.evaluate({"extra": "test"})]
    seen = set()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        key = (name, *sorted(requirement.extras))
        if key in seen or name.startswith(("nvidia-", "cuda-", "triton")):  # what other builds of torch bring
            continue
        seen.add(key)
        assert name in pinned, f"{name} is not pinned"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"{requirement}, pinned {pinned[name]}"
        extras = ["", *requirement.extras]
        for line in metadata.requires(name) or []:
            below = Requirement(line)
            if below.marker is None or any(below.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(below)
    assert len(seen) > 40
    assert set(pinned) <= {name for name, *_ in seen}, "pinned, but nobody needs it"


def test_the_version_stands_in_one_place():
    found = re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert found
    assert found[1] == aion.__version__
    assert f'"{aion.__version__}"' not in (ROOT / "pyproject.toml").read_text()


def loaded(code):
    """Returns the packages that are loaded after some code in a fresh process."""
    code = f"import sys\n{code}\nprint(sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    return set(ast.literal_eval(done.stdout))


def test_importing_aion_does_no_work():
    names = loaded("import aion")
    assert not names & {*HEAVY, "torch", "numpy"}


def test_the_names_of_aion_load_nothing_heavy():
    names = loaded("import aion\nfor name in aion.__all__: getattr(aion, name)")
    assert "torch" in names
    assert not names & set(HEAVY)


def test_names_are_listed_and_others_refused():
    assert set(aion.__all__) <= set(dir(aion))
    from aion.observations import Spectrum

    assert aion.Spectrum is Spectrum
    assert "astropy" not in loaded("import aion\nassert callable(aion.io.read)"), "modules need no import of their own"
    with pytest.raises(AttributeError, match="module 'aion' has no attribute 'Spectra'"):
        aion.Spectra  # noqa: B018
