"""Scores: against another library, against what is known, and what they must tell apart."""

import math

import pytest
import torch

from aion.forecasting.charts import plot_fan, plot_spectra, plot_verification, save_film
from aion.forecasting.verification import crps, energy_score, power_spectrum, verify


def normal(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_crps_and_energy_agree_with_scoringrules():
    scores = pytest.importorskip("scoringrules")
    ensemble, truth = normal(12, 50), normal(50, seed=1)
    theirs = scores.crps_ensemble(truth.numpy(), ensemble.numpy(), m_axis=0, estimator="fair")
    torch.testing.assert_close(crps(ensemble, truth), torch.as_tensor(theirs))
    ensemble, truth = normal(12, 50, 3), normal(50, 3, seed=1)
    theirs = scores.es_ensemble(truth.numpy(), ensemble.movedim(0, 1).numpy(), m_axis=1, v_axis=2, estimator="fair")
    torch.testing.assert_close(energy_score(ensemble, truth), torch.as_tensor(theirs))


def test_crps_is_the_energy_score_in_one_dimension_and_that_of_a_gaussian():
    ensemble, truth = normal(64, 4000), normal(4000, seed=1)
    torch.testing.assert_close(crps(ensemble, truth), energy_score(ensemble[..., None], truth[..., None]))
    assert crps(ensemble, truth).mean().item() == pytest.approx(1 / math.sqrt(math.pi), rel=0.03)
    few = crps(ensemble[:2], truth).mean().item()
    assert few == pytest.approx(1 / math.sqrt(math.pi), rel=0.05), "fair: two members score as well as many"
    torch.testing.assert_close(crps(ensemble[:1], truth), (ensemble[0] - truth).abs())


def test_a_perfect_ensemble():
    ensemble, truth = normal(31, 400, 6, 2), normal(400, 6, 2, seed=1)
    scores = verify(ensemble, truth)
    torch.testing.assert_close(scores.spread_skill, torch.ones(6, dtype=torch.float64), atol=0.08, rtol=0)
    torch.testing.assert_close(scores.rank_histogram, torch.full((32,), 1 / 32, dtype=torch.float64), atol=0.01, rtol=0)
    torch.testing.assert_close(scores.spectrum_ratio, torch.ones(3, dtype=torch.float64), atol=0.15, rtol=0)
    assert scores.mean("blow_up").sum() == 0
    middle, low, high = scores.interval("crps").tolist()
    assert low < middle < high
    assert low < 1 / math.sqrt(math.pi) < high


def test_what_is_wrong_shows():
    ensemble, truth = normal(31, 200, 5, 1), normal(200, 5, 1, seed=1)
    right = verify(ensemble, truth)
    narrow = verify(0.3 * ensemble, truth)
    assert narrow.spread_skill.max() < 0.5
    assert narrow.rank_histogram[0] > 0.1
    assert narrow.mean("crps").mean() > right.mean("crps").mean()
    assert verify(ensemble + 1, truth).mean("bias").mean() == pytest.approx(1, abs=0.1)
    ensemble[3, :, 2] = torch.nan
    ensemble[4, :, 2] = 1e9
    assert verify(ensemble, truth).mean("blow_up").tolist() == pytest.approx([0, 0, 2 / 31, 0, 0])
    gain = right.gain("crps", narrow)
    assert 0 < gain[1] < gain[0] < gain[2] < 0.5
    assert right.gain("crps", right).tolist() == pytest.approx([0, 0, 0])


def test_groups_are_resampled_together():
    ensemble, truth = (
        normal(8, 40, 3, 1),
        normal(40, 3, 1, seed=1) + normal(4, seed=2).repeat_interleave(10).view(40, 1, 1),
    )
    alone = verify(ensemble, truth).interval("crps")
    together = verify(ensemble, truth, groups=torch.arange(40) // 10).interval("crps")
    assert together[0] == alone[0]
    assert together[2] - together[1] > alone[2] - alone[1]


def test_a_gap_in_the_truth_does_not_count():
    ensemble, truth = normal(8, 30, 4, 2, 12), normal(30, 4, 2, 12, seed=1)
    holes = truth.clone()
    holes[:, 1] = torch.nan
    holes[0, 0, 0, 3] = torch.nan
    scores = verify(ensemble, holes)
    assert scores.mean("crps")[1].isnan()
    torch.testing.assert_close(scores.mean("crps")[2:], verify(ensemble, truth).mean("crps")[2:])
    assert scores.mean("energy")[0].isfinite()
    assert scores.interval("crps").isfinite().all()


def test_bias_against_an_exact_mean_has_no_noise_of_members():
    exact = normal(300, 4, 1, 16)
    ensemble = exact + normal(10, 300, 4, 1, 16, seed=1)
    scores = verify(ensemble, exact + normal(300, 4, 1, 16, seed=2), exact=exact)
    assert scores.mean("bias").abs().max() < 0.002
    assert verify(ensemble + 0.5, exact, exact=exact).mean("bias").mean() == pytest.approx(0.25, rel=0.05)


def test_the_power_of_a_wave_is_at_its_number():
    x = torch.sin(2 * math.pi * 3 * torch.arange(32, dtype=torch.float64) / 32)
    assert power_spectrum(x.expand(2, 32), 1).argmax() == 2
    field = x[None, :].expand(32, 32)
    power = power_spectrum(field[None], 2)
    assert power.argmax() == 2
    assert power[2] > 0.99 * power.sum()


@pytest.mark.parametrize(
    ("ensemble", "truth", "groups", "why"),
    [
        (torch.zeros(3, 2, 4, 1), torch.zeros(2, 5, 1), None, "wanted"),
        (torch.zeros(0, 2, 4, 1), torch.zeros(2, 4, 1), None, "wanted"),
        (torch.zeros(3, 2, 4, 1), torch.full((2, 4, 1), torch.nan), None, "nothing was measured"),
        (torch.zeros(3, 2, 4, 1), torch.zeros(2, 4, 1), torch.zeros(3), "a group for each of 2"),
    ],
)
def test_what_it_refuses(ensemble, truth, groups, why):
    with pytest.raises(ValueError, match=why):
        verify(ensemble, truth, groups=groups)


def test_pictures(tmp_path):
    fan = plot_fan(normal(30, 2), normal(20, 12, 2), normal(12, 2), names=("spots", "flux"))
    assert [axes.get_ylabel() for axes in fan.axes] == ["spots", "flux"]
    assert fan.legends[0].get_texts()[0].get_text() == "90 %"
    fan.savefig(tmp_path / "fan.png")
    spectra = plot_spectra({"mine": normal(3, 2, 4, 1, 16)}, normal(2, 4, 1, 16))
    assert len(spectra.axes[0].get_lines()) == 2
    scores = plot_verification(verify(normal(31, 20, 6, 1), normal(20, 6, 1, seed=1)))
    assert len(scores.axes) == 3
    film = save_film(tmp_path / "film.gif", {"one": normal(3, 8, 8), "other": normal(3, 8, 8)})
    assert film.read_bytes()[:3] == b"GIF"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(ValueError, match="plot_fan"):
        plot_fan(normal(30), normal(20, 12, 1))
    with pytest.raises(ValueError, match="with space"):
        plot_spectra({}, normal(2, 4, 1))
    with pytest.raises(ValueError, match="one shape"):
        save_film(tmp_path / "film.gif", {"one": normal(3, 8)})
