import pytest
import torch

from torch.utils.data import DataLoader

from aion.sky import Sky, SkyDataset, SkyStream

SKY = Sky(seed=2, modalities=["redshift", "legacysurvey_flux_r", "ra"])


def redshifts(batches) -> torch.Tensor:
    return torch.cat([batch["redshift"].value for batch in batches])


EXPECTED = SKY.observe(range(24))["redshift"].value


def test_a_data_set_has_the_objects_of_the_sky_by_number():
    data = SkyDataset(SKY, 20, start=4)
    assert len(data) == 20
    assert torch.equal(data[3]["redshift"].value, EXPECTED[7:8])
    assert torch.equal(data[-1]["redshift"].value, EXPECTED[23:24])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_them_in_batches_whatever_the_workers(workers):
    data = SkyDataset(SKY, 24)
    loader = DataLoader(data, batch_size=7, num_workers=workers, collate_fn=SkyDataset.collate)
    batches = list(loader)
    assert [len(batch["ra"]) for batch in batches] == [7, 7, 7, 3]
    assert torch.equal(redshifts(batches), EXPECTED)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_same_batches_whatever_the_workers(workers):
    loader = DataLoader(SkyStream(SKY, 4, count=6), batch_size=None, num_workers=workers)
    assert torch.equal(redshifts(loader), EXPECTED)


def test_ranks_share_the_batches_and_none_has_what_another_has():
    parts = [list(SkyStream(SKY, 4, count=6, rank=rank, world=2)) for rank in range(2)]
    mixed = [batch for pair in zip(*parts, strict=True) for batch in pair]
    assert torch.equal(redshifts(mixed), EXPECTED)


def test_a_stream_without_a_count_does_not_end_and_may_start_anywhere():
    stream = iter(SkyStream(SKY, 4, start=8))
    assert torch.equal(next(stream)["redshift"].value, EXPECTED[8:12])
    assert torch.equal(next(stream)["redshift"].value, EXPECTED[12:16])
    for _ in range(20):
        assert len(next(stream)["ra"]) == 4


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="at least one object"):
        SkyDataset(SKY, 0)
    with pytest.raises(IndexError, match="objects 0 to 9"):
        SkyDataset(SKY, 10)[10]
    for wrong in ({"batch": 0}, {"batch": 2, "rank": 2, "world": 2}):
        with pytest.raises(ValueError, match="SkyStream: wanted batch"):
            SkyStream(SKY, **wrong)
