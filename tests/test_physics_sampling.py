import pytest
import torch

from aion.physics.sampling import BalancedSampler, imbalance

COSTS = {"plane": 1.0, "volume": 4.5, "wide": 2.0}
LENGTHS = {"plane": 1000, "volume": 200, "wide": 500}
STEPS = 200


def table(sampler: BalancedSampler, ranks: int) -> torch.Tensor:
    return torch.tensor([[sampler.cost(step, rank) for rank in range(ranks)] for step in range(STEPS)])


def apart(ranks: int, micro: int) -> torch.Tensor:
    """Costs of ranks that draw as many micro-batches of one window, each on its own."""
    drawn = torch.randint(3, (STEPS, ranks, micro), generator=torch.Generator().manual_seed(0))
    return torch.tensor(sorted(COSTS.values()))[drawn].sum(2)


@pytest.mark.parametrize(("ranks", "group"), [(2, 1), (8, 1), (8, 4)])
def test_ranks_wait_less_for_each_other(ranks, group):
    sampler = BalancedSampler(COSTS, LENGTHS, ranks=ranks, group=group)
    before, after = imbalance(apart(ranks, 4)), imbalance(table(sampler, ranks))
    assert before > 0.1
    assert after < 0.05
    assert after < before / 3


def test_ranks_of_a_group_meet_in_the_same_data_with_different_windows():
    sampler = BalancedSampler(COSTS, LENGTHS, ranks=4, group=2)
    for step in range(20):
        hands = [sampler.batches(step, rank) for rank in range(4)]
        assert [name for name, _ in hands[0]] == [name for name, _ in hands[1]]
        assert [name for name, _ in hands[2]] == [name for name, _ in hands[3]]
        for (name, one), (_, other) in zip(*hands[:2], strict=True):
            assert len(one) == len(other) == sampler.sizes[name]
            assert not set(one.tolist()) & set(other.tolist())
            assert max(*one.tolist(), *other.tolist()) < LENGTHS[name]


def test_data_sets_are_drawn_as_often_as_asked():
    sampler = BalancedSampler(COSTS, LENGTHS, ranks=2, micro=8, weights={"plane": 2, "volume": 1, "wide": 1})
    names = [name for step in range(STEPS) for rank in range(2) for name, _ in sampler.batches(step, rank)]
    assert len(names) == STEPS * 16
    assert names.count("plane") / len(names) == pytest.approx(0.5, abs=0.03)
    assert names.count("volume") / len(names) == pytest.approx(0.25, abs=0.03)


def test_a_step_and_a_seed_give_the_same_windows_and_others_others():
    def windows(seed, step):
        return [(n, w.tolist()) for n, w in BalancedSampler(COSTS, LENGTHS, seed=seed).batches(step, 0)]

    assert windows(0, 3) == windows(0, 3)
    assert windows(0, 3) != windows(0, 4)
    assert windows(0, 3) != windows(1, 3)


def test_small_data_sets_are_not_drawn_twice_at_once():
    sampler = BalancedSampler({"a": 1.0, "b": 10.0}, {"a": 6, "b": 3}, ranks=2, group=2)
    assert sampler.sizes == {"a": 3, "b": 1}


def test_imbalance_is_the_share_of_time_spent_waiting():
    assert imbalance(torch.tensor([[1.0, 1.0], [2.0, 2.0]])) == 0
    assert imbalance(torch.tensor([[1.0, 3.0]])) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lengths": {"plane": 1}}, "same names"),
        ({"weights": {"plane": 1}}, "same names"),
        ({"costs": {}}, "same names"),
        ({"ranks": 3, "group": 2}, "2 of 3"),
        ({"costs": {**COSTS, "wide": 0.0}}, "positive"),
        ({"budget": 0}, "budget 0"),
    ],
)
def test_what_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        BalancedSampler(**{"costs": COSTS, "lengths": LENGTHS, **change})


def _rank(rank: int, folder: str) -> None:
    """Computes the losses of a few steps as one of two ranks and averages the gradients of both."""
    import torch.distributed as dist

    from aion.physics.builders import nano
    from aion.physics.flow import Flow

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    draws = torch.Generator().manual_seed(0)
    data = {
        "plane": Flow(torch.randn(8, 3, 1, 16, 16, generator=draws), ["a"], ["periodic"] * 2),
        "volume": Flow(torch.randn(8, 3, 1, 16, 16, 16, generator=draws), ["a"], ["periodic"] * 3),
    }
    sampler = BalancedSampler({"plane": 1.0, "volume": 3.0}, dict.fromkeys(data, 8), ranks=2, micro=2)
    model = nano(["a"], dim=16, heads=2, depth=1, middle=4)
    model.reset_parameters(torch.Generator().manual_seed(0))
    for step in range(3):
        for name, windows in sampler.batches(step, rank):
            (model.loss(data[name][windows])["loss"] * len(windows)).backward()
    total = torch.cat([p.grad.flatten() if p.grad is not None else p.new_zeros(p.numel()) for p in model.parameters()])
    costs = torch.tensor([sampler.cost(step, rank) for step in range(3)])
    both = [torch.zeros_like(costs) for _ in range(2)]
    dist.all_gather(both, costs)
    assert all(torch.allclose(both[r], torch.tensor([sampler.cost(s, r) for s in range(3)])) for r in range(2))
    dist.all_reduce(total)
    assert torch.isfinite(total).all()
    assert total.abs().max() > 0
    torch.testing.assert_close(both[0], both[1])  # sizes 3 and 1 make all micro-batches cost the same
    dist.destroy_process_group()


def test_two_ranks_agree_without_a_message_and_do_equal_work(tmp_path):
    torch.multiprocessing.start_processes(_rank, (str(tmp_path),), nprocs=2, start_method="fork")
