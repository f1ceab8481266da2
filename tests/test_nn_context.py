"""Global context: what is masked does not count, and where things are does."""

import pytest
import torch

from aion.nn.context import GlobalContext


@pytest.fixture
def context():
    return GlobalContext(8)


def test_unmasked_members_alone_decide(context, generator):
    x = torch.randn(3, 8, 20, generator=generator)
    position = torch.arange(20.0)
    mask = (torch.rand(3, 1, 20, generator=generator) < 0.6).float()
    changed = torch.where(mask > 0, x, 1e6)
    torch.testing.assert_close(context(changed, mask, position), context(x, mask, position))
    assert (context(x, mask, position)[(mask == 0).expand_as(x)] == 0).all()


def test_members_that_do_not_count_may_be_left_out(context, generator):
    x, position = torch.randn(2, 8, 20, generator=generator), torch.arange(20.0)
    mask = torch.ones(2, 1, 20)
    mask[..., 12:] = 0
    short = context(x[..., :12], mask[..., :12], position[:12])
    torch.testing.assert_close(context(x, mask, position)[..., :12], short)


def test_every_member_hears_of_every_other(context, generator):
    x = torch.randn(1, 8, 20, generator=generator, requires_grad=True)
    context(x, torch.ones(1, 1, 20), torch.arange(20.0))[0, :, 0].sum().backward()
    assert (x.grad[0].abs().sum(0) > 0).all()


def test_where_a_feature_was_is_kept(context):
    x = torch.zeros(2, 8, 20)
    x[0, :, 3] = x[1, :, 11] = 1.0
    out = context(x, torch.ones(2, 1, 20), torch.arange(20.0))
    assert (out[0, :, 0] - out[1, :, 0]).abs().max() > 1e-3


def test_no_member_at_all_gives_zeros(context):
    out = context(torch.ones(1, 8, 5), torch.zeros(1, 1, 5), torch.arange(5.0))
    assert (out == 0).all()
