"""Devices and number types: what can be used, what is refused."""

import pytest
import torch

from aion.device import fast_dtype, usable


def test_the_default_is_a_device_that_works():
    assert usable("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert usable(torch.device("cpu")) == torch.device("cpu")


def test_a_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"cannot compute on device 'cuda:99' .* try 'cpu'"):
        usable("cuda:99")


@pytest.mark.parametrize(("units", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
def test_half_precision_is_chosen_where_there_are_units_for_it(monkeypatch, units, expected):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)
    assert fast_dtype(torch.device("cpu")) == expected
    assert fast_dtype(torch.device("meta")) == torch.float32
