"""The forecaster: exact where the denoiser is, reproducible, alone or in company, on disk, and what it refuses."""

import json
import math

import numpy as np
import pytest
import torch

from aion.forecasting.forecaster import Forecaster
from aion.forecasting.gaussian import PROCESSES, gaussian_forecast, gaussian_scheme_skill
from aion.forecasting.prior import GaussianDenoiser
from aion.forecasting.template import Scheme, autoregressive, hierarchy2, multiscale
from aion.forecasting.windows import Windows, patterns

TINY = {"dim": 16, "depth": 1, "heads": 2, "modulation": 8}


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def waves(number=6, frames=40, channels=1, space=()):
    return torch.randn(number, frames, channels, *space, generator=draws(7)) + torch.sin(
        torch.arange(frames) / 3.0
    ).view(1, -1, 1, *[1] * len(space))


@pytest.fixture(scope="module")
def fitted():
    return Forecaster(("flux",), units=("Jy",), cadence="1 day", network=TINY, steps=4).fit(waves(), 5, batch=8)


@pytest.mark.parametrize("scheme", [multiscale(3, 2.5), autoregressive(3)])
def test_with_the_exact_denoiser_it_is_the_closed_form(scheme):
    acf = PROCESSES["slow and fast OU, noise"](np.arange(60))
    acf /= acf[0]
    frames, past, horizon, number = np.arange(19), 10, 9, 120
    x = (
        np.random.default_rng(0).standard_normal((number, 19))
        @ np.linalg.cholesky(acf[abs(frames[:, None] - frames)]).T
    )
    given = torch.as_tensor(x[:, :past, None]).float()
    forecaster = Forecaster(denoiser=GaussianDenoiser(acf), steps=12)
    made = forecaster.forecast(given, horizon, 12, generator=draws(), scheme=scheme)[..., 0].double().numpy()
    skill = gaussian_scheme_skill(acf, scheme, horizon, past)
    weights, covariance = gaussian_forecast(acf, past, horizon)
    ratio = made.var(0, ddof=1).mean(0) / covariance.diagonal()
    np.testing.assert_allclose(ratio, skill["variance_ratio"], rtol=0.25)
    assert ratio.mean() == pytest.approx(skill["variance_ratio"].mean(), rel=0.08)
    bias2 = ((made.mean(0) - x[:, :past] @ weights.T) ** 2).mean(0) - made.var(0, ddof=1).mean(0) / 12
    assert bias2.mean() == pytest.approx((skill["bias"] ** 2).mean(), rel=0.25)


def test_it_learns_a_wave_in_a_hundred_steps():
    data = torch.sin(torch.arange(200) / 5.0).view(1, 200, 1)
    forecaster = Forecaster(network={**TINY, "dim": 32}, steps=6)
    forecaster.fit(data, 100, batch=16, lr=5e-3)
    batch = Windows([forecaster.normalisation(data[0])], patterns(3, 2.5), 256, 5)(0)
    with torch.no_grad():
        fitted, fresh = (
            model.denoiser.loss(batch, draws())["loss"].item() for model in (forecaster, Forecaster(network=TINY))
        )
    assert fitted < 0.8 * fresh


def test_a_network_learns_on_top_of_a_prior():
    forecaster = Forecaster(network=TINY).fit(waves(), 0)
    forecaster.denoiser.loss(Windows(list(waves()), patterns(3, 2.5), 16)(0), draws())["loss"].backward()
    slopes = {name: p.grad.abs().sum() for name, p in forecaster.denoiser.network.named_parameters()}
    assert all(slope for name, slope in slopes.items() if not name.startswith("level")), "the level comes in by and by"


@pytest.mark.parametrize("space", [(), (8,), (8, 4)])
def test_any_space_and_any_horizon(space):
    data = waves(3, 30, 2, space)
    network = {**TINY, "patch": 4}
    forecaster = Forecaster(("a", "b"), space, network=network, steps=3).fit(data, 2, batch=2)
    for horizon in (1, 9, 20):
        made = forecaster.forecast(data[:2, :12], horizon, 2)
        assert made.shape == (2, 2, horizon, 2, *space)
        assert made.isfinite().all()
        assert len(forecaster.trace(horizon)) == horizon
    assert forecaster.trace(9) == [0, 1, 0, 1, 1, 2, 2, 2, 0]


@pytest.mark.parametrize("scheme", [None, multiscale(3, 1.5), autoregressive(3), hierarchy2(3), autoregressive(2)])
def test_one_network_serves_every_scheme(fitted, scheme):
    assert fitted.forecast(waves(2)[:, :12], 10, 2, scheme=scheme).isfinite().all()


def test_an_object_is_what_it_is_alone_whatever_the_chunks(fitted):
    past = waves(3)[:, :12]
    together = fitted.forecast(past, 12, 5, generator=draws())
    alone = fitted.forecast(past[1:2], 12, 5, generator=draws())
    torch.testing.assert_close(together[:, 1:2], alone, atol=1e-4, rtol=0)
    pieces = fitted.forecast(past, 12, 5, generator=draws(), chunk=2)
    torch.testing.assert_close(together, pieces, atol=1e-4, rtol=0)
    longer = fitted.forecast(torch.cat([past[:, :3] * 0 + 9, past], 1), 12, 5, generator=draws())
    torch.testing.assert_close(together, longer, atol=1e-4, rtol=0)
    assert not torch.equal(together, fitted.forecast(past, 12, 5, generator=draws(1)))
    assert (together.std(0) > 0).all()


def test_gaps_are_not_seen_and_the_past_is_not_written_to(fitted):
    past = waves(2)[:, :12]
    holes = past.clone()
    holes[0, 3:11] = torch.nan
    kept = holes.clone()
    made = fitted.forecast(holes, 9, 3, generator=draws())
    assert made.isfinite().all()
    assert torch.equal(holes.nan_to_num(99), kept.nan_to_num(99))
    whole = fitted.forecast(past, 9, 3, generator=draws())
    torch.testing.assert_close(made[:, 1], whole[:, 1], atol=1e-4, rtol=0)
    assert not torch.allclose(made[:, 0], whole[:, 0])


def test_missing_pixels_and_a_context():
    data = waves(4, 30, 1, (8,))
    data[0, :, :, 2:4] = torch.nan
    forecaster = Forecaster(space=(8,), network={**TINY, "patch": 4, "context": 3}, steps=3)
    contexts = torch.eye(4)[:, :3]
    forecaster.fit(data, 3, batch=4, contexts=contexts)
    torch.nn.init.normal_(forecaster.denoiser.network.write.weight, std=0.1, generator=draws())
    torch.nn.init.normal_(forecaster.denoiser.network.blocks[0].modulate.weight, std=0.5, generator=draws())
    made = forecaster.forecast(data[:, :12], 4, 2, context=contexts)
    assert made.isfinite().all()
    assert not torch.allclose(made, forecaster.forecast(data[:, :12], 4, 2, context=1 - contexts))
    for wrong in (None, contexts[:2], contexts[:, :2], contexts * torch.nan):
        with pytest.raises(ValueError, match=r"contexts: wanted finite \(4, 3\)"):
            forecaster.forecast(data[:, :12], 4, 2, context=wrong)
    with pytest.raises(ValueError, match="contexts: wanted none"):
        Forecaster(space=(8,), network={**TINY, "patch": 4}).fit(data, 1, contexts=contexts)


def test_the_same_in_bfloat16(fitted):
    past = waves(2)[:, :12]
    with torch.autocast("cpu", torch.bfloat16):
        rough = fitted.forecast(past, 6, 8, generator=draws())
    fine = fitted.forecast(past, 6, 8, generator=draws())
    assert rough.dtype == torch.float32
    assert (rough - fine).abs().mean() < 0.05 * fine.std()


def test_saved_and_loaded_it_forecasts_the_same(fitted, tmp_path):
    digest = fitted.save_pretrained(tmp_path / "model")
    again = Forecaster.from_pretrained(tmp_path / "model")
    assert again.sha256 == digest == fitted.sha256
    assert again.config == fitted.config
    assert again.provenance == fitted.provenance
    past = waves(2)[:, :12]
    assert torch.equal(again.forecast(past, 9, 2), fitted.forecast(past, 9, 2))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == ["config.json", "forecaster.safetensors"]
    fitted.save_pretrained(tmp_path / "model")  # replaces what it wrote


def test_what_is_damaged_is_refused(fitted, tmp_path):
    fitted.save_pretrained(tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    text = config.read_text()
    config.write_text(text.replace('"alpha": 2.5', '"alpha": 2.0'))
    with pytest.raises(ValueError, match="altered"):
        Forecaster.from_pretrained(tmp_path / "model")
    config.write_text("{}")
    with pytest.raises(ValueError, match="not the configuration"):
        Forecaster.from_pretrained(tmp_path / "model")
    config.write_text(text)
    weights = tmp_path / "model" / "forecaster.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"abcd")
    with pytest.raises(ValueError, match="altered or damaged"):
        Forecaster.from_pretrained(tmp_path / "model")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(FileExistsError, match="no forecaster"):
        fitted.save_pretrained(tmp_path / "other")
    with pytest.raises(FileNotFoundError, match="no config"):
        Forecaster.from_pretrained(tmp_path / "other")
    assert json.loads(text)["provenance"]["steps"] == 5


def test_a_checkpoint_of_another_normalisation(tmp_path):
    Forecaster(network=TINY).fit(waves(), 3, batch=4, checkpoint=tmp_path)
    with pytest.raises(ValueError, match="of another training"):
        Forecaster(network=TINY).fit(1000 * waves(), 3, batch=4, checkpoint=tmp_path)


def test_a_past_that_is_too_short(fitted):
    with pytest.raises(ValueError, match=r"has 6 frames.*9 frames back.*4 are missing; autoregressive K=3 needs 4"):
        fitted.forecast(waves(1)[:, :6], 3, 2)
    assert fitted.forecast(waves(1)[:, :6], 3, 2, scheme=autoregressive(3)).isfinite().all()


@pytest.mark.parametrize(
    ("past", "options", "error", "why"),
    [
        (waves(1)[:, :12] * 1e4, {}, ValueError, r"'flux' of object 0 .* in other units\?"),
        (torch.full((1, 12, 1), torch.nan), {}, ValueError, "nothing was measured of object 0"),
        (waves(1, 12, 2), {}, ValueError, r"wanted a past \(B, P, 1\)"),
        (waves(1)[0, :12], {}, ValueError, r"wanted a past \(B, P, 1\)"),
        (torch.zeros(1, 12, 1, dtype=torch.long), {}, TypeError, "floating-point"),
        (np.zeros((1, 12, 1)), {}, TypeError, "floating-point"),
        (waves(1)[:, :12], {"horizon": 0}, ValueError, "horizon must be a whole number"),
        (waves(1)[:, :12], {"horizon": 2.5}, ValueError, "horizon must be a whole number"),
        (waves(1)[:, :12], {"members": 0}, ValueError, "members must be"),
        (waves(1)[:, :12], {"chunk": 0}, ValueError, "chunk must be"),
        (waves(1)[:, :12], {"scheme": multiscale(4, 1.5)}, ValueError, "makes 4 frames a call, the network 3"),
        (waves(1)[:, :40], {"scheme": multiscale(3, 4.0)}, ValueError, "42 frames wide, those of training 18"),
    ],
)
def test_pasts_and_options_it_refuses(fitted, past, options, error, why):
    with pytest.raises(error, match=why):
        fitted.forecast(past, **{"horizon": 3, "members": 2, **options})


def test_a_scheme_that_breaks_the_rules_never_gets_there():
    with pytest.raises(ValueError, match="not admissible"):
        Scheme("mine", 3, 1, (((0, 1), (1,)),))


@pytest.mark.parametrize(
    ("data", "error", "why"),
    [
        (torch.ones(3, 40, 1), ValueError, r"'value' is constant \(1\)"),
        (torch.full((3, 40, 1), torch.nan), ValueError, "not measured at all"),
        (waves(3, 4), ValueError, "at most 4 frames: wanted at least 7"),
        (waves(3, 40, 2), ValueError, r"wanted trajectories \(T, 1\)"),
        ([], ValueError, "at least one trajectory"),
        (torch.zeros(3, 40, 1, dtype=torch.int32), TypeError, "floating-point"),
    ],
)
def test_data_it_refuses(data, error, why):
    with pytest.raises(error, match=why):
        Forecaster(network=TINY).fit(data, 2)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"channels": ("a", "a")}, "different names"),
        ({"channels": ()}, "different names"),
        ({"units": ("m", "s")}, "a unit for each"),
        ({"transform": "log"}, "no transform 'log'"),
        ({"alpha": 0.5}, "alpha must be"),
        ({"steps": 1}, "at least 2 steps"),
        ({"noise": {"least": -1}}, "0 < least"),
        ({"space": (10,)}, "multiples of patch=8"),
        ({"network": {"dim": 10, "heads": 4}}, "multiple of twice heads"),
    ],
)
def test_arguments_it_refuses(options, why):
    with pytest.raises(ValueError, match=why):
        Forecaster(**options)


def test_a_denoiser_of_ones_own_is_neither_trained_nor_saved(tmp_path):
    forecaster = Forecaster(denoiser=GaussianDenoiser(np.ones(5)))
    with pytest.raises(ValueError, match="GaussianDenoiser of yours"):
        forecaster.fit(waves(), 2)
    with pytest.raises(ValueError, match="GaussianDenoiser of yours"):
        forecaster.save_pretrained(tmp_path / "model")


def test_the_square_root_of_counts():
    data = waves().abs() * 50
    forecaster = Forecaster(transform="sqrt", network=TINY, steps=3).fit(data, 2, batch=4)
    normal = forecaster.normalisation(data)
    torch.testing.assert_close(forecaster.normalisation.undo(normal), data, rtol=1e-4, atol=1e-3)
    assert normal.std(correction=0).item() == pytest.approx(1, rel=1e-3)
    assert math.isclose(normal.mean().item(), 0, abs_tol=1e-4)
