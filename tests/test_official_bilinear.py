"""Convolutions with fewer multiplications: what the direct sum gives, on any size."""

import pytest
import torch
import torch.nn.functional as F

from aion.official import bilinear
from aion.official.bilinear import convolve, fourier, winograd
from aion.official.magvit import MagViT

ALGORITHMS = {
    "winograd": winograd(),
    "fourier 2 of 3": fourier(2, 3),
    "fourier 5 of 3": fourier(5, 3),
    "fourier 8 of 7": fourier(8, 7),
}


@pytest.fixture(params=ALGORITHMS.values(), ids=ALGORITHMS)
def algorithm(request):
    return request.param


@pytest.mark.parametrize("shape", [(1, 6, 8, 8), (3, 6, 9, 16), (5, 6, 13, 7)])
@pytest.mark.parametrize("together", [1, 2, 8])
def test_it_is_a_convolution(algorithm, shape, together, generator):
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(4, 6, algorithm.kernel, algorithm.kernel, generator=generator)
    bias = torch.randn(4, generator=generator)
    wanted = F.conv2d(x.double(), weight.double(), bias.double(), padding=algorithm.kernel // 2)
    for order in (torch.contiguous_format, torch.channels_last):
        found = convolve(x.to(memory_format=order), weight.to(memory_format=order), bias, algorithm, together)
        torch.testing.assert_close(found.double(), wanted, atol=2e-5, rtol=2e-5)
        assert found.stride(1) == 1, "channels last in memory"


def test_it_needs_fewer_products_than_pixels_times_taps(algorithm):
    products, pixels = algorithm.read.shape
    assert pixels == (algorithm.tile + algorithm.kernel - 1) ** 2
    assert algorithm.weigh.shape == (products, algorithm.kernel**2)
    assert algorithm.write.shape == (algorithm.tile**2, products)
    assert products < algorithm.tile**2 * algorithm.kernel**2


def test_how_many_products_are_held_at_a_time_does_not_matter(generator, monkeypatch):
    x, weight = torch.randn(2, 3, 8, 8, generator=generator), torch.randn(5, 3, 7, 7, generator=generator)
    found = []
    for count in (1, 50, 1000):
        monkeypatch.setattr(bilinear, "PRODUCTS", count)
        found.append(convolve(x, weight, torch.zeros(5), fourier(8, 7), 1))
    torch.testing.assert_close(found[0], found[1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found[0], found[2], atol=1e-5, rtol=1e-5)


def test_a_wide_encoder_gives_the_same_with_and_without(generator):
    model = MagViT(4, 512, 2, 1).eval().to(memory_format=torch.channels_last)
    x = torch.randn(4, 128, 16, 16, generator=generator).contiguous(memory_format=torch.channels_last)
    direct = model.encode(x).detach()  # with gradients wanted nothing fast is used
    with torch.no_grad():
        fast = model.encode(x)
        alone = torch.cat([model.encode(x[i : i + 1]) for i in range(4)])  # nor for so few
    assert not torch.equal(fast, direct)
    torch.testing.assert_close(fast, direct, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(fast, alone, atol=2e-5, rtol=1e-4)
