"""Reads and writes the HDF5 files of The Well.

A file holds trajectories of one set of parameters: groups `dimensions`, `boundary_conditions`, `scalars`, and
`t0_fields`, `t1_fields`, `t2_fields` for scalars, vectors and tensors, each field `(B, T, *space)` with one axis more
for each rank; what does not vary between trajectories or in time lacks the axis. Components stand in the order of
`spatial_dims`.

What The Well has no place for (regimes, parameters that differ between the trajectories of a file) is written as
attributes of our own, which its reader passes by.

References:
    | The Well: a Large-Scale Collection of Diverse Physics Simulations for Machine Learning (Ohana et al., 2024),
      arXiv 2412.00568
"""

__all__ = ["read_well", "write_well"]

import contextlib
import json

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from torch import Tensor

from aion.observations import near_miss
from aion.physics.flow import Flow, quantity
from aion.whole import whole

if TYPE_CHECKING:
    import h5py

AXES = "xyz"
GROUPS = ("t0_fields", "t1_fields", "t2_fields")


def write_well(flow: Flow, path: Path | str) -> None:
    """Writes a flow as one file, which appears whole or not at all.

    Raises:
        ModuleNotFoundError: without h5py.
        ValueError: if a vector lacks a component.
    """
    h5py, path = _h5py(), Path(path)
    quantities: dict[str, list[str]] = {}
    for name in flow.fields:
        quantities.setdefault(quantity(name), []).append(name)
    ranks = {name: _rank(name, parts, len(flow.space)) for name, parts in quantities.items()}
    with whole(path) as temporary, h5py.File(temporary, "w") as file:
        _write_facts(file, flow)
        _write_grid(file, flow)
        for rank, group in enumerate(GROUPS):
            _write_fields(file.create_group(group), flow, [n for n, r in ranks.items() if r == rank], rank)


def _rank(name: str, parts: Sequence[str], dimensions: int) -> int:
    if list(parts) == [name]:
        return 0
    rank = len(parts[0]) - len(name) - 1
    wanted = _components(name, rank, dimensions)
    if sorted(parts) != sorted(wanted):
        msg = f"write_well: {name} of a grid of {dimensions} axes wants components {wanted}, given {list(parts)}"
        raise ValueError(msg)
    return rank


def _components(name: str, rank: int, dimensions: int) -> list[str]:
    if rank == 0:
        return [name]
    ends = AXES[:dimensions] if rank == 1 else [a + b for a in AXES[:dimensions] for b in AXES[:dimensions]]
    return [f"{name}_{end}" for end in ends]


def _write_facts(file: "h5py.File", flow: Flow) -> None:
    constant = {k: v[0].item() for k, v in flow.parameters.items() if (v == v[0]).all()}
    file.attrs["dataset_name"] = flow.system
    file.attrs["grid_type"] = "cartesian"
    file.attrs["n_spatial_dims"] = len(flow.space)
    file.attrs["n_trajectories"] = len(flow)
    file.attrs["simulation_parameters"] = list(constant)
    file.attrs.update(constant)
    file.attrs["aion_regimes"] = json.dumps(flow.regimes)
    file.attrs["aion_parameters"] = json.dumps({k: v.tolist() for k, v in flow.parameters.items()})
    scalars = file.create_group("scalars")
    scalars.attrs["field_names"] = list(constant)
    for name, value in constant.items():
        _dataset(scalars, name, np.float32(value), sample_varying=False, time_varying=False)


def _write_grid(file: "h5py.File", flow: Flow) -> None:
    names = AXES[: len(flow.space)]
    dimensions = file.create_group("dimensions")
    dimensions.attrs["spatial_dims"] = list(names)
    time = np.arange(flow.frames, dtype=np.float64) * flow.dt
    _dataset(dimensions, "time", time.astype(np.float32), sample_varying=False)
    boundaries = file.create_group("boundary_conditions")
    for name, points, length, edges in zip(names, flow.space, flow.extent, flow.boundaries, strict=True):
        grid = (np.arange(points) + 0.5) * length / points
        _dataset(dimensions, name, grid.astype(np.float32), sample_varying=False, time_varying=False)
        for kind in dict.fromkeys(edges):
            mask = np.zeros(points, dtype=bool)
            mask[0], mask[-1] = edges[0] == kind, edges[1] == kind
            group = boundaries.create_group(f"{name}_{kind}")
            group.attrs["associated_dims"] = [name]
            group.attrs["associated_fields"] = []
            group.attrs["bc_type"] = kind.upper()
            group.attrs.update(sample_varying=False, time_varying=False)
            group["mask"], group["values"] = mask, np.zeros(0, dtype=np.float32)


def _write_fields(group: "h5py.Group", flow: Flow, names: Sequence[str], rank: int) -> None:
    group.attrs["field_names"] = list(names)
    dimensions = len(flow.space)
    for name in names:
        parts = [flow.field(part) for part in _components(name, rank, dimensions)]
        values = torch.stack(parts, -1) if rank else parts[0]
        values = values.unflatten(-1, (dimensions, dimensions)) if rank == 2 else values
        kinds = {"antisymmetric": False, "symmetric": False} if rank == 2 else {}
        kinds |= {"dim_varying": [True] * dimensions, "sample_varying": True, "time_varying": True}
        _dataset(group, name, values.detach().cpu().float().numpy(), **kinds)


def _dataset(group: "h5py.Group", name: str, values: np.ndarray, **attributes: object) -> None:
    group.create_dataset(name, data=values).attrs.update(attributes)


def read_well(path: Path | str, fields: Sequence[str] = ()) -> Flow:
    """Reads a file of The Well.

    Arguments:
        path: the file.
        fields: quantities to read, such as `"velocity"`; all if none is named.

    Returns:
        All trajectories and frames in float32. What does not vary in time or between trajectories is repeated. A flow
        whose grid or time differs between trajectories is not read.

    Raises:
        FileNotFoundError: if there is no such file.
        ModuleNotFoundError: without h5py.
        ValueError: for a truncated file, one that lacks what The Well's have, or an unknown quantity (with the near
            misses).
    """
    path = Path(path)
    if not path.is_file():
        msg = f"no file {path}"
        raise FileNotFoundError(msg)
    with _opened(path) as file:
        known = [str(name) for group in GROUPS for name in file[group].attrs["field_names"] if name in file[group]]
        if unknown := [name for name in fields if name not in known]:
            msg = f"no quantity {unknown[0]!r}; {near_miss(unknown[0], known)}"
            raise ValueError(msg)
        names = [str(name) for name in file["dimensions"].attrs["spatial_dims"]]
        time = np.asarray(file["dimensions/time"], dtype=np.float64)
        grids = [np.asarray(file[f"dimensions/{name}"], dtype=np.float64) for name in names]
        if time.ndim > 1 or any(grid.ndim > 1 for grid in grids):
            msg = "the grid or the times differ between trajectories, which is not read"
            raise ValueError(msg)
        shape = (int(file.attrs["n_trajectories"]), len(time), *map(len, grids))
        parts = [
            part
            for rank, group in enumerate(GROUPS)
            for name in file[group].attrs["field_names"]
            if name in file[group] and (not fields or name in fields)
            for part in _read_field(file[group][name], str(name), rank, names, shape)
        ]
        if not parts:
            msg = "no fields"
            raise ValueError(msg)
        parameters = json.loads(file.attrs.get("aion_parameters", "{}")) or {
            name: [float(file.attrs[name])] * shape[0]
            for name in map(str, file.attrs.get("simulation_parameters", []))
            if name in file.attrs and np.ndim(file.attrs[name]) == 0
        }
        return Flow(
            torch.stack([values for _, values in parts], dim=2),
            [name for name, _ in parts],
            _read_boundaries(file["boundary_conditions"], names, grids),
            float(time[1] - time[0]) if len(time) > 1 else 1.0,
            [float((grid[-1] - grid[0]) * len(grid) / max(1, len(grid) - 1)) or 1.0 for grid in grids],
            str(file.attrs.get("dataset_name", "")),
            json.loads(file.attrs.get("aion_regimes", "[]")),
            {name: torch.tensor(value) for name, value in parameters.items()},
        )


def _read_field(
    data: "h5py.Dataset", name: str, rank: int, dims: Sequence[str], shape: tuple[int, ...]
) -> list[tuple[str, Tensor]]:
    """Returns the components of a field under their names, each `(B, T, *space)`."""
    values = torch.from_numpy(np.asarray(data, dtype=np.float32))
    varies = [
        bool(data.attrs["sample_varying"]),
        bool(data.attrs["time_varying"]),
        *map(bool, data.attrs["dim_varying"]),
    ]
    for axis, varying in enumerate(varies):
        values = values if varying else values.unsqueeze(axis)
    given, rest = tuple(values.shape[: len(shape)]), tuple(values.shape[len(shape) :])
    if any(a not in {1, b} for a, b in zip(given, shape, strict=False)) or rest != (len(dims),) * rank:
        msg = f"field {name!r} has the shape {tuple(data.shape)}, where trajectories, frames and grid are {shape}"
        raise ValueError(msg)
    values = values.expand(*shape, *rest)
    if rank == 0:
        return [(name, values)]
    ends = list(dims) if rank == 1 else [a + b for a in dims for b in dims]
    return [(f"{name}_{end}", part) for end, part in zip(ends, values.flatten(len(shape)).unbind(-1), strict=True)]


def _read_boundaries(group: "h5py.Group", dims: Sequence[str], grids: Sequence[np.ndarray]) -> list[tuple[str, str]]:
    result = []
    for name, grid in zip(dims, grids, strict=True):
        edges = ["open", "open"]
        for condition in group.values():
            if name in map(str, condition.attrs["associated_dims"]):
                kind, mask = str(condition.attrs["bc_type"]).lower(), np.asarray(condition["mask"], dtype=bool)
                whole = mask.ndim != 1 or len(mask) != len(grid)  # a mask of more axes counts for both edges
                edges = [kind if whole or mask[at] else edge for at, edge in zip((0, -1), edges, strict=True)]
        result.append(tuple(edges))
    return result


@contextlib.contextmanager
def _opened(path: Path) -> "Iterator[h5py.File]":
    try:
        with _h5py().File(path, "r") as file:
            yield file
    except (KeyError, OSError) as error:
        msg = f"{path} is truncated, damaged or no file of The Well: {error.args[0] if error.args else error}"
        raise ValueError(msg) from error
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error


def _h5py():
    try:
        import h5py
    except ModuleNotFoundError as error:
        msg = 'files of The Well need h5py: pip install "aion-toolkit[hdf5]"'
        raise ModuleNotFoundError(msg) from error
    return h5py
