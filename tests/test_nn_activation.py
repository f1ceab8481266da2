"""Functions of single numbers: as precise as those of torch."""

import torch

from aion.nn.activation import asinh


def test_asinh_is_that_of_torch_in_double_precision(generator):
    x = torch.cat([torch.randn(1000, generator=generator) * 10.0**k for k in range(-12, 18)])
    given = x.clone()
    torch.testing.assert_close(asinh(x), x.double().asinh().float(), rtol=3e-7, atol=0)
    assert x.equal(given)


def test_asinh_of_the_ends_of_the_range():
    x = torch.tensor([0.0, -0.0, torch.inf, -torch.inf, torch.nan])
    assert asinh(x)[:2].equal(x[:2])
    assert asinh(x)[2:4].isfinite().all()
    assert asinh(x)[4].isnan()


def test_asinh_has_the_gradient_of_torch():
    x = torch.linspace(-3, 3, 7, requires_grad=True)
    asinh(x).sum().backward()
    torch.testing.assert_close(x.grad, (1 + x.detach() ** 2).rsqrt())
