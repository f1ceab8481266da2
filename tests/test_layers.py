"""Reads the sources with `ast` and holds them to the structure: who may import whom, and what a file looks like."""

import ast
import subprocess
import sys

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Import downward only: rooms on one line do not import each other. Bottom line first.
LAYERS = (
    {"aion.observations", "aion.whole"},
    {"aion.catalog", "aion.field", "aion.tokens", "aion.posterior", "aion.nn", "aion.device"},
    {"aion.bundle", "aion.training", "aion.probes", "aion.steering", "aion.index", "aion.plotting"},
    {"aion.keeping"},
    {
        "aion.tokenizers",
        "aion.transformer",
        "aion.masking",
        "aion.forecasting",
        "aion.physics",
        "aion.io",
        "aion.sky",
    },
    {"aion.official", "aion.generation", "aion.sources"},
    {"aion.storage"},
    {"aion.model"},
    {"aion.benchmarks", "aion.recipes", "aion.demo", "aion.outlook", "aion.survey"},
    {"aion.commands"},
    {"aion.__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# What trains a model runs on a bare machine.
TRAINING_PATH = {
    "aion.catalog",
    "aion.field",
    "aion.observations",
    "aion.tokens",
    "aion.posterior",
    "aion.nn",
    "aion.training",
    "aion.tokenizers",
    "aion.transformer",
    "aion.masking",
    "aion.sky",
    "aion.sources",
    "aion.recipes",
}
TRAINING_PACKAGES = {"torch", "numpy", "safetensors", "tqdm", "tomli"}  # tomli: tomllib of Python 3.10
ON_DEMAND = {"huggingface_hub"}  # inside functions only: what fetches or uploads a bundle, which training does not
PICKLING = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
# Tests of what is not one module, and scripts that make what tests compare with.
WITHOUT_MODULE = {"test_layers", "test_notebooks", "test_official_faults", "test_packaging", "test_readme"}
WITHOUT_MODULE |= {"test_benchmarks_leaderboard", "test_benchmarks_physics"}
WITHOUT_MODULE |= {"test_sky_reality", "test_tokenizers_released", "test_tokenizers_report", "test_tokenizers_train"}
WITHOUT_MODULE |= {"make_official_codec_fixtures", "make_official_model_fixtures"}

IMPORTS = (ast.Import, ast.ImportFrom)

PATHS = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "aion").rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in PATHS.items()}
EVERY = pytest.mark.parametrize("module", sorted(TREES))


def room(module: str) -> str:
    """Returns the part of a module's name that stands in the table."""
    return next((r for r in LEVEL if module == r or module.startswith(f"{r}.")), module)


def imported(tree: ast.AST) -> Iterator[str]:
    """Lists what is imported anywhere in a module, in functions too, each name as a module if there is one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full in PATHS else node.module


def ours(module: str) -> set[str]:
    """Returns the modules of the package that one imports; `aion` alone is its version, which all may read."""
    return {name for name in imported(TREES[module]) if name.startswith("aion.")}


def test_every_module_has_a_room():
    assert {room(module) for module in TREES} - {"aion"} <= set(LEVEL)
    assert sum(len(rooms) for rooms in LAYERS) == len(LEVEL)
    assert set(LEVEL) >= TRAINING_PATH


@EVERY
def test_imports_go_downward(module):
    if module == "aion":
        return  # the façade names what others define, and loads it on first use
    for name in ours(module):
        down = LEVEL[room(name)] < LEVEL[room(module)]
        assert down or room(name) == room(module), f"{module} imports {name}, which is not below it"


@EVERY
def test_nobody_imports_through_the_facade(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom) and node.module == "aion":
            names = {alias.name for alias in node.names}
            assert all(f"aion.{name}" in PATHS for name in names - {"__version__"}), f"{module} imports {names}"


def test_no_circles():
    graph = {module: ours(module) - {module} for module in TREES if module != "aion"}
    while free := [module for module, below in graph.items() if not below & set(graph)]:
        for module in free:
            del graph[module]
    assert not graph, f"these import each other in a circle, or depend on such: {sorted(graph)}"


@EVERY
def test_the_training_path_needs_little(module):
    assert "matplotlib.pyplot" not in set(imported(TREES[module]))  # it holds global state
    if room(module) not in TRAINING_PATH:
        return
    known = {"aion"} | sys.stdlib_module_names | TRAINING_PACKAGES
    assert {name.split(".")[0] for name in imported(TREES[module])} - known <= ON_DEMAND
    functions = (node for node in ast.walk(TREES[module]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    inside = {id(node) for function in functions for node in ast.walk(function)}
    at_import = ast.Module([n for n in ast.walk(TREES[module]) if isinstance(n, IMPORTS) and id(n) not in inside], [])
    assert {name.split(".")[0] for name in imported(at_import)} <= known


def test_the_training_path_loads_without_the_other_packages():
    blocked = ("astropy", "datasets", "huggingface_hub", "matplotlib", "pandas", "pyarrow", "scipy", "sklearn")
    names = sorted(module for module in TREES if room(module) in TRAINING_PATH)
    code = f"import sys, importlib\nsys.modules.update(dict.fromkeys({blocked}))\n"
    code += f"for name in {names}: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


@EVERY
def test_modules_open_with_docstring_and_sorted_all(module):
    tree = TREES[module]
    assert ast.get_docstring(tree), "no docstring"
    second = tree.body[1] if len(tree.body) > 1 else None
    is_all = isinstance(second, ast.Assign) and getattr(second.targets[0], "id", None) == "__all__"
    assert is_all, "the first statement after the docstring must be __all__ = [...]"
    names = ast.literal_eval(second.value)
    assert names == sorted(set(names))
    defined = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    defined |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    defined |= {
        alias.asname or alias.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) for alias in n.names
    }
    defined |= {name for name in names if f"{module}.{name}" in PATHS}
    assert set(names) <= defined


@EVERY
def test_files_are_short_and_named_for_what_they_hold(module):
    assert len(PATHS[module].read_text(encoding="utf-8").splitlines()) <= 500
    forbidden = {"utils", "util", "helpers", "helper", "misc", "common"}
    assert not forbidden & set(module.split(".")), "name the module for what it holds"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ClassDef):
            assert not node.name.startswith(("Base", "Abs")), node.name
            assert not node.name.endswith("Manager"), node.name


@EVERY
def test_nothing_is_pickled_or_left_out(module):
    assert not PICKLING & {name.split(".")[0] for name in imported(TREES[module])}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
            assert node.attr not in {"load", "save"}, f"line {node.lineno}: use safetensors"
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            assert isinstance(node.value, ast.Constant), f"line {node.lineno}"
            assert node.value.value is False, f"line {node.lineno}"
        if isinstance(node, ast.Raise):
            assert "NotImplementedError" not in ast.dump(node), f"line {node.lineno}: a stub"


@pytest.mark.parametrize("folder", ["tokenizers", "benchmarks", "notebooks", "tests"])
def test_folders_at_the_top_are_no_packages(folder):
    assert not list((ROOT / folder).rglob("__init__.py")), "it would shadow other distributions of that name"


def test_every_test_file_mirrors_a_module():
    mirrors = {"test_" + "_".join(module.replace("__", "").split(".")[1:]): module for module in TREES}
    files = {path.stem for path in (ROOT / "tests").glob("*.py") if not path.stem.startswith("make_")} - {"conftest"}
    assert files - set(mirrors) <= WITHOUT_MODULE
    assert not list((ROOT / "tests").glob("*/*.py")), "tests are flat"
