import sys

import pytest
import torch

from aion.physics.flow import Flow
from aion.physics.systems import SYSTEMS, simulate
from aion.physics.well import read_well, write_well

h5py = pytest.importorskip("h5py")


@pytest.fixture
def flow():
    values = torch.randn(4, 5, 4, 8, 6, generator=torch.Generator().manual_seed(0))
    names = ["pressure", "velocity_x", "velocity_y", "tracer"]
    parameters = {"nu": torch.tensor([1.0, 2.0, 1.0, 2.0]), "pr": torch.ones(4)}
    boundaries = [("wall", "open"), "periodic"]
    return Flow(values, names, boundaries, 0.5, (2.0, 3.0), "drawn", ["a", "b", "a", "b"], parameters)


def test_flows_come_back(flow, tmp_path):
    write_well(flow, tmp_path / "flow.hdf5")
    back = read_well(tmp_path / "flow.hdf5")
    assert set(back.fields) == set(flow.fields)
    for name in flow.fields:
        assert torch.equal(back.field(name), flow.field(name))
    for name in ("boundaries", "dt", "system", "regimes"):
        assert getattr(back, name) == getattr(flow, name)
    assert back.extent == pytest.approx(flow.extent)
    assert {name: value.tolist() for name, value in back.parameters.items()} == {
        "nu": [1.0, 2.0, 1.0, 2.0],
        "pr": [1.0] * 4,
    }
    assert read_well(tmp_path / "flow.hdf5", ["velocity"]).fields == ("velocity_x", "velocity_y")
    assert [path.name for path in tmp_path.iterdir()] == ["flow.hdf5"]


@pytest.mark.parametrize("system", ["turbulence", "acoustic"])
def test_simulated_data_come_back(system, tmp_path):
    flow = simulate(system, 2, size=SYSTEMS[system].smallest, frames=2)
    write_well(flow, tmp_path / "flow.hdf5")
    back = read_well(tmp_path / "flow.hdf5")
    assert back.regimes == flow.regimes
    assert back.boundaries == flow.boundaries
    assert torch.equal(back.values, flow.values)


def test_tensors_come_back(tmp_path):
    names = [f"stress_{a}{b}" for a in "xy" for b in "xy"]
    flow = Flow(torch.randn(1, 2, 4, 4, 4), names, ["periodic"] * 2)
    write_well(flow, tmp_path / "flow.hdf5")
    assert torch.equal(read_well(tmp_path / "flow.hdf5").values, flow.values)
    with pytest.raises(ValueError, match="wants components"):
        write_well(Flow(torch.zeros(1, 2, 1, 4, 4), ["stress_xx"], ["periodic"] * 2), tmp_path / "part.hdf5")
    assert not (tmp_path / "part.hdf5").exists()


def test_the_layout_is_that_of_the_well(flow, tmp_path):
    write_well(flow, tmp_path / "flow.hdf5")
    with h5py.File(tmp_path / "flow.hdf5") as file:
        assert {"dataset_name", "grid_type", "n_spatial_dims", "n_trajectories", "simulation_parameters"} <= set(
            file.attrs
        )
        assert set(file) == {"boundary_conditions", "dimensions", "scalars", "t0_fields", "t1_fields", "t2_fields"}
        assert list(file["dimensions"].attrs["spatial_dims"]) == ["x", "y"]
        velocity = file["t1_fields/velocity"]
        assert velocity.shape == (4, 5, 8, 6, 2)
        assert velocity.dtype == "float32"
        assert list(velocity.attrs["dim_varying"]) == [True, True]
        conditions = file["boundary_conditions"]
        assert {str(conditions[name].attrs["bc_type"]) for name in conditions} == {"WALL", "OPEN", "PERIODIC"}
        assert list(file.attrs["simulation_parameters"]) == ["pr"]


def test_what_varies_in_nothing_is_repeated(flow, tmp_path):
    path = tmp_path / "flow.hdf5"
    write_well(flow, path)
    with h5py.File(path, "a") as file:
        group = file["t0_fields"]
        group.attrs["field_names"] = [*group.attrs["field_names"], "density"]
        data = group.create_dataset("density", data=torch.arange(8.0).numpy())
        data.attrs.update(dim_varying=[True, False], sample_varying=False, time_varying=False)
        del file.attrs["aion_regimes"], file.attrs["aion_parameters"]
    back = read_well(path)
    torch.testing.assert_close(back.field("density"), torch.arange(8.0).view(8, 1).expand(4, 5, 8, 6))
    assert back.regimes == ()
    assert back.parameters["pr"].tolist() == [1.0] * 4


def test_the_reader_of_the_well_agrees(flow, tmp_path):
    data = pytest.importorskip("the_well.data")
    folder = tmp_path / "drawn" / "data" / "train"
    folder.mkdir(parents=True)
    periodic = flow.replace(boundaries=["periodic"] * 2)
    write_well(periodic, folder / "flow.hdf5")
    dataset = data.WellDataset(path=str(folder), n_steps_input=4, n_steps_output=1, use_normalization=False)
    assert len(dataset) == 4
    window = dataset[0]
    names = [name for rank in sorted(dataset.metadata.field_names) for name in dataset.metadata.field_names[rank]]
    for column, name in enumerate(names):
        assert torch.equal(window["input_fields"][..., column], flow.field(name)[0, :4])
    assert window["boundary_conditions"].tolist() == [[2, 2], [2, 2]]


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_truncated_files_are_refused(flow, tmp_path, share):
    path = tmp_path / "flow.hdf5"
    write_well(flow, path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="truncated, damaged or no file of The Well"):
        read_well(path)


def test_other_files_are_refused(flow, tmp_path, monkeypatch):
    path = tmp_path / "flow.hdf5"
    with pytest.raises(FileNotFoundError, match="no file"):
        read_well(path)
    write_well(flow, path)
    with pytest.raises(ValueError, match="did you mean 'velocity'"):
        read_well(path, ["velocities"])
    with h5py.File(path, "a") as file:
        file["boundary_conditions/x_wall"].attrs["bc_type"] = "SLIPPY"
    with pytest.raises(ValueError, match=r"flow.hdf5: .*unknown boundary 'slippy'"):
        read_well(path)
    write_well(flow, path)
    with h5py.File(path, "a") as file:
        file.attrs["n_trajectories"] = 9
    with pytest.raises(ValueError, match=r"flow.hdf5: field .* has the shape .* where trajectories, frames and grid"):
        read_well(path)
    write_well(flow, path)
    with h5py.File(path, "a") as file:
        for group in ("t0_fields", "t1_fields", "t2_fields"):
            file[group].attrs["field_names"] = []
    with pytest.raises(ValueError, match=r"flow.hdf5: no fields"):
        read_well(path)
    with h5py.File(path, "a") as file:
        del file["t1_fields"]
    with pytest.raises(ValueError, match="truncated, damaged or no file of The Well"):
        read_well(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ModuleNotFoundError, match=r"aion-toolkit\[hdf5\]"):
        read_well(path)
