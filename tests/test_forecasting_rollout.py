"""Rolling out: every call sees what was seen or made before it, at its true times, and nothing else."""

import pytest
import torch

from aion.forecasting.rollout import roll_out
from aion.forecasting.template import autoregressive, hierarchy2, multiscale


@pytest.mark.parametrize("scheme", [multiscale(3, 2.5), autoregressive(3), hierarchy2(3)])
def test_a_line_is_drawn_on(scheme):
    past = torch.arange(-9.0, 1)[None, :, None].repeat(2, 1, 1)
    past[1] += 100
    counted = []

    def draw(start, values, known, wanted, offsets, context):
        assert context is None
        assert torch.equal(known.sum(1), torch.full((2, 1), len(offsets[0]) - int(wanted[0].sum())))
        first = torch.where(known, values - offsets[..., None], 0).sum(1, keepdim=True) / known.sum(1, keepdim=True)
        return torch.where(wanted, first + offsets[..., None], start)

    drawing = [torch.Generator().manual_seed(row) for row in range(2)]
    made = roll_out(draw, past, scheme.calls(18), drawing, told=counted.append)
    torch.testing.assert_close(made[0, :18, 0], torch.arange(1.0, 19))
    torch.testing.assert_close(made[1, :18, 0], torch.arange(101.0, 119))
    assert counted == [2] * len(scheme.calls(18))
    assert past[0, -1] == 0


def test_a_gap_is_not_known_and_each_row_has_its_own_noise():
    past = torch.zeros(2, 4, 1)
    past[0, 1] = torch.nan
    seen = []

    def draw(start, values, known, wanted, offsets, context):
        seen.append(known[..., 0].tolist())
        return start + context[:, None]

    drawing = [torch.Generator().manual_seed(row) for row in range(2)]
    made = roll_out(draw, past, autoregressive(3).calls(3), drawing, torch.tensor([[0.0], [1.0]]))
    assert seen == [[[True, False, True, True] + [False] * 3, [True] * 4 + [False] * 3]]
    for row in range(2):
        noise = torch.randn(7, 1, generator=torch.Generator().manual_seed(row))
        torch.testing.assert_close(made[row], noise[4:] + row)
