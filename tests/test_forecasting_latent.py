"""Forecasts through an autoencoder: shapes, gaps, and an autoencoder that must be the same."""

import pytest
import torch

from aion.forecasting.forecaster import Forecaster
from aion.forecasting.latent import LatentForecaster, PrincipalComponents
from aion.steering import fingerprint

TINY = {"dim": 16, "depth": 1, "heads": 2, "modulation": 8, "patch": 2}


class Halving(torch.nn.Module):
    """An autoencoder with a grid of codes: `(N, C, L)` to `(N, C, L / 2)`."""

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(2.0))

    def encode(self, x):
        return self.scale * x.unflatten(-1, (-1, 2)).mean(-1)

    def decode(self, codes):
        return (codes / self.scale).repeat_interleave(2, -1)


def waves(number=5, frames=40):
    generator = torch.Generator().manual_seed(3)
    phase = torch.arange(8) / 3.0 + torch.arange(frames).view(-1, 1, 1) / 4.0
    return torch.sin(phase) + 0.3 * torch.randn(number, frames, 1, 8, generator=generator)


@pytest.fixture(params=["components", "halving"])
def autoencoder(request):
    if request.param == "halving":
        return Halving()
    return PrincipalComponents(3, (1, 8)).fit(waves().flatten(0, 1))


def build(autoencoder):
    return LatentForecaster.build(autoencoder, (1, 8), network=TINY, steps=4).fit(waves(), 2, batch=4)


def test_futures_are_decoded_and_the_autoencoder_stays(autoencoder):
    before = fingerprint(autoencoder)
    forecaster = build(autoencoder)
    past = waves()[:2, :12]
    past[0, 4, 0, 3] = torch.nan
    made = forecaster.forecast(past, 5, 3)
    assert made.shape == (3, 2, 5, 1, 8)
    assert made.isfinite().all()
    torch.testing.assert_close(autoencoder.decode(autoencoder.encode(made[0, 0])), made[0, 0], atol=1e-5, rtol=1e-5)
    assert fingerprint(autoencoder) == before == forecaster.forecaster.config["sources"]["autoencoder"]


def test_a_frame_with_a_hole_is_missing_whole(autoencoder):
    forecaster = build(autoencoder)
    holed, missing = waves()[:1, :12], waves()[:1, :12]
    holed[0, 11, 0, 3] = torch.nan
    missing[0, 11] = torch.nan
    assert torch.equal(forecaster.forecast(holed, 4, 2), forecaster.forecast(missing, 4, 2))


def test_it_is_kept_with_the_hash_of_its_autoencoder(autoencoder, tmp_path):
    forecaster = build(autoencoder)
    digest = forecaster.save_pretrained(tmp_path / "model")
    again = LatentForecaster.from_pretrained(tmp_path / "model", autoencoder)
    assert again.forecaster.sha256 == digest
    past = waves()[:1, :12]
    assert torch.equal(again.forecast(past, 4, 2), forecaster.forecast(past, 4, 2))
    with pytest.raises(ValueError, match="made for another autoencoder: wanted one of hash"):
        LatentForecaster.from_pretrained(tmp_path / "model", PrincipalComponents(2, (1, 8)))
    with pytest.raises(ValueError, match="made for another autoencoder: wanted none"):
        LatentForecaster(autoencoder, Forecaster())


def test_principal_components_are_those_of_the_frames():
    frames = waves().flatten(0, 1)
    left = [
        (frames - coder.decode(coder.encode(frames))).square().mean().item()
        for coder in (PrincipalComponents(count, (1, 8)).fit(frames) for count in (1, 4, 8))
    ]
    assert left[0] > left[1] > left[2]
    assert left[2] < 1e-10
    values = torch.linalg.eigvalsh(torch.cov(frames.flatten(1).double().T, correction=0))
    assert left[1] == pytest.approx(values[:4].sum().item() / 8, rel=1e-3)


def test_what_it_refuses():
    with pytest.raises(ValueError, match="1 to 8 components"):
        PrincipalComponents(9, (1, 8))
    with pytest.raises(ValueError, match="without gaps"):
        PrincipalComponents(2, (1, 8)).fit(torch.full((3, 1, 8), torch.nan))
    with pytest.raises(ValueError, match="nothing was measured of object 0"):
        build(Halving()).forecast(torch.full((1, 12, 1, 8), torch.nan), 3, 2)
