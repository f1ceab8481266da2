import pytest
import torch

from torch import nn

from aion.steering import find_layers, fingerprint


def test_patterns(toy):
    deep = nn.ModuleDict({"a": toy, "b": nn.Linear(2, 2)})
    assert list(find_layers(deep, "a.blocks.1")) == ["a.blocks.1"]
    assert list(find_layers(deep, "a.*")) == ["a.blocks", "a.pair", "a.odd", "a.idle"]
    assert list(find_layers(deep, "*.blocks.*")) == ["a.blocks.0", "a.blocks.1", "a.blocks.2"]
    assert list(find_layers(deep, "**.2")) == ["a.blocks.2"]
    assert set(find_layers(deep, "**")) == {name for name, _ in deep.named_modules()} - {""}
    assert find_layers(deep, "b")["b"] is deep["b"]


@pytest.mark.parametrize("pattern", ["blocks.3", "block.0", "", "blocks.[01]"])
def test_no_layer_is_an_error(toy, pattern):
    with pytest.raises(ValueError, match="no layer of Toy fits"):
        find_layers(toy, pattern)


def test_only_modules_have_layers(toy):
    with pytest.raises(TypeError, match="wanted a torch module"):
        find_layers(torch.ones(3), "x")
    with pytest.raises(TypeError, match="wanted a torch module"):
        find_layers(toy, 3)


def test_the_fingerprint_is_of_the_weights(toy):
    first = fingerprint(toy)
    copy = type(toy)().eval()
    copy.load_state_dict(toy.state_dict())
    assert fingerprint(copy) == first == fingerprint(torch.compile(toy, backend="eager"))
    assert fingerprint(nn.DataParallel(toy)) == first
    with torch.no_grad():
        copy.blocks[2].bias[0] += 1
    assert fingerprint(copy) != first
    assert fingerprint(toy.double()) != first
