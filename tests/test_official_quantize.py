"""The quantisers: signs as bits, and finite scalars with levels in the state dict."""

import pytest
import torch

from aion.official.quantize import LookupFree, check_levels, published_fsq


@pytest.mark.parametrize("dim", [4, 6])
def test_ids_are_bits_from_the_most_significant_on(dim):
    quantizer = LookupFree(16, dim)
    if dim == 4:
        assert quantizer.ids(torch.tensor([[1.0, -1, -1, 1], [-1, 0, 1, 1]])).tolist() == [9, 3]  # zero is no bit
        assert quantizer.values(torch.tensor([9])).tolist() == [[1, -1, -1, 1]]
    z = torch.randn(5, dim)
    assert quantizer.ids(z).max() < 16
    torch.testing.assert_close(quantizer(z), quantizer.values(quantizer.ids(z)))


def test_every_id_comes_back():
    quantizer, ids = LookupFree(1024, 10), torch.arange(1024)
    assert torch.equal(quantizer.ids(quantizer.values(ids)), ids)


def test_the_gradient_passes_the_signs():
    z = torch.randn(3, 4, requires_grad=True)
    LookupFree(16, 4)(z).sum().backward()
    assert torch.equal(z.grad, torch.ones(3, 4))


def test_signs_do_not_depend_on_autocast():
    z = torch.full((1, 4), 1e-30)
    with torch.autocast("cpu", torch.bfloat16):
        assert LookupFree(16, 4).ids(z).item() == 15


def test_levels_are_kept_as_published():
    quantizer = published_fsq([8, 5, 5, 5])
    assert quantizer.state_dict()["levels"].dtype == torch.int32
    levels = torch.tensor([8.0, 5, 5, 5])
    half, offset = (levels - 1) * 1.001 / 2, (levels % 2 == 0) / 2
    rounded = quantizer.values(torch.arange(1000)) * (levels // 2)
    latent = ((rounded + offset) / half).atanh() - (offset / half).atanh()
    assert torch.equal(quantizer(latent)[1], torch.arange(1000))
    check_levels(quantizer, [8, 5, 5, 5])
    with pytest.raises(ValueError, match=r"holds \[8, 5, 5, 5\], the configuration says \[8, 5, 5\]"):
        check_levels(quantizer, (8, 5, 5))


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="power of 2, given 1000"):
        LookupFree(1000, 10)
    quantizer = LookupFree(16, 4)
    quantizer.mask.copy_(quantizer.mask.flip(0))
    with pytest.raises(ValueError, match="damaged"):
        quantizer.verify()
