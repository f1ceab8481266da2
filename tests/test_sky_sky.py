import math

import pytest
import torch

from aion.device import usable
from aion.observations import Image, Observation, Spectrum
from aion.sky import MODALITIES, OPTIONAL, Sky
from aion.sky.galaxies import MAX_REDSHIFT

EVERY = pytest.mark.parametrize("name", [*MODALITIES, *OPTIONAL])
OBJECTS = torch.arange(24)


def tensors(observation: Observation) -> list[torch.Tensor]:
    parts = {key: value for key, value in vars(observation).items() if key != "pixel_scale"}
    return [value for value in parts.values() if isinstance(value, torch.Tensor)]


def same(a: Observation, b: Observation) -> bool:
    """Bit for bit, NaN equal to NaN."""
    return all(
        torch.equal(x.nan_to_num(nan=-1e30), y.nan_to_num(nan=-1e30))
        for x, y in zip(tensors(a), tensors(b), strict=True)
    )


@pytest.fixture(scope="module")
def sky() -> dict[str, Observation]:
    return Sky(seed=1, modalities=(*MODALITIES, *OPTIONAL)).observe(OBJECTS)


def test_every_modality_has_every_object(sky):
    assert tuple(Sky().modalities) == MODALITIES
    assert tuple(sky) == (*MODALITIES, *OPTIONAL)
    assert all(len(observation) == len(OBJECTS) for observation in sky.values())


@EVERY
def test_an_object_does_not_depend_on_its_batch(sky, name):
    """Bit for bit: alone, shuffled, repeated, and with only this modality computed."""
    one = Sky(seed=1, modalities=[name])
    order = [17, 3, 3, 9]
    assert same(one.observe(order)[name], sky[name][order])
    for index in (0, 5):
        assert same(one.observe([index])[name], sky[name][index])


@EVERY
def test_seeds_are_other_skies(sky, name):
    other = Sky(seed=2, modalities=[name]).observe(OBJECTS)[name]
    assert not same(other, sky[name])


def test_indices_may_be_any_integers_and_are_not_written_to():
    one = Sky(seed=1, modalities=["redshift"])
    given = torch.tensor([4, 2**40, -7])
    copy = given.clone()
    value = one.observe(given)["redshift"].value
    assert torch.equal(given, copy)
    assert torch.equal(one.observe([4, 2**40, -7])["redshift"].value, value)
    assert torch.equal(one.observe(given.to(torch.int64))["redshift"].value, value)
    assert torch.equal(one.observe(range(4, 5))["redshift"].value, value[:1])


def test_results_may_be_written_to():
    """What is given out is nobody else's: changing it does not change the sky."""
    one = Sky(seed=1, modalities=["desi_spectrum", "legacysurvey_image", "redshift"], complete=True)
    first = one.observe([1, 2])
    kept = {name: [t.clone() for t in tensors(o)] for name, o in first.items()}
    for observation in first.values():
        for tensor in tensors(observation):
            tensor.mul_(0)
    for name, observation in one.observe([1, 2]).items():
        assert all(torch.equal(a, b) for a, b in zip(tensors(observation), kept[name], strict=True))


def test_without_noise_all_else_is_the_same(sky):
    clean = Sky(seed=1, modalities=(*MODALITIES, *OPTIONAL)).observe(OBJECTS, noise=False)
    for name, observation in sky.items():
        if not isinstance(observation, Image | Spectrum):
            assert torch.equal(clean[name].measured, observation.measured)
        else:
            assert torch.equal(clean[name].ivar, observation.ivar)
            chi = ((clean[name].flux - observation.flux) * observation.ivar.sqrt())[observation.measured]
            assert (chi.double() ** 2).mean().item() == pytest.approx(1, abs=0.1)
    assert torch.equal(clean["redshift"].value, sky["redshift"].value)


def test_some_objects_lack_some_surveys_and_complete_ones_lack_none():
    names = ["desi_spectrum", "sdss_spectrum", "legacysurvey_flux_r", "legacysurvey_image"]
    for complete in (False, True):
        seen = Sky(modalities=names, complete=complete).observe(range(60))
        for name in names:
            has = seen[name].measured.reshape(60, -1).any(1)
            assert has.all() == complete
            assert has.any()


def test_points_have_gaia_and_galaxies_have_not():
    one = Sky(galaxies=0.5)
    index = torch.arange(200)
    labels, seen = (
        one.labels(index),
        Sky(galaxies=0.5, modalities=["gaia_flux_g", "gaia_bp_coefficients"]).observe(index),
    )
    star, galaxy = labels["kind"] == 1, labels["kind"] == 0
    assert 70 < star.sum() < 130
    assert not seen["gaia_flux_g"].measured[galaxy].any()
    assert seen["gaia_flux_g"].measured[star].float().mean() > 0.8
    assert seen["gaia_bp_coefficients"].value.shape == (200, 55)
    assert 0.2 < seen["gaia_bp_coefficients"].measured.all(1)[star].float().mean() < 0.8


@pytest.mark.parametrize(("galaxies", "quasars", "kind"), [(1.0, 0.0, 0.0), (0.0, 0.1, 1.0), (1.0, 1.0, 2.0)])
def test_one_kind_alone(galaxies, quasars, kind):
    one = Sky(galaxies=galaxies, quasars=quasars)
    assert (one.labels(range(50))["kind"] == kind).all()
    assert len(one.observe(range(3))["desi_spectrum"]) == 3


def test_labels_are_the_truth_and_have_meaning():
    one = Sky(modalities=["redshift", "legacysurvey_flux_r", "legacysurvey_shape_r"], complete=True)
    labels, seen = one.labels(range(2000)), one.observe(range(2000), noise=False)
    star, galaxy = labels["kind"] == 1, labels["kind"] == 0
    assert torch.equal(labels["redshift"], seen["redshift"].value)
    assert labels["redshift"][star].abs().max() < 2e-3
    assert (labels["redshift"][~star] > 0).all()
    magnitude = 22.5 - 2.5 * torch.log10(seen["legacysurvey_flux_r"].value)
    torch.testing.assert_close(magnitude, labels["magnitude"], rtol=0, atol=1e-4)
    ranges = {"log_age": (-2.5, 1.2), "metallicity": (-1.36, 0.36), "dust": (0, 1), "burst": (0, 1), "sigma": (60, 350)}
    ranges |= {"log_mass": (3, 13), "mass_age": (0, 13), "log_ssfr": (-14, -8), "bulge": (0, 1), "companion": (0, 0.5)}
    ranges |= dict.fromkeys(("arms", "ring", "bar"), (0, 0.6))
    for name, (low, high) in ranges.items():
        assert labels[name][~galaxy].isnan().all()
        assert labels[name][galaxy].min() >= low
        assert labels[name][galaxy].max() <= high
    for name, (low, high) in {"teff": (2500, 4e4), "logg": (-1, 7), "feh": (-3.5, 1)}.items():
        assert labels[name][~star].isnan().all()
        assert labels[name][star].min() >= low
        assert labels[name][star].max() <= high
    assert torch.equal(seen["legacysurvey_shape_r"].measured, galaxy)


def test_shapes_of_points_and_ellipticities_of_round_galaxies_are_not_measured():
    names = ["legacysurvey_shape_e1", "legacysurvey_shape_e2", "legacysurvey_shape_r"]
    one = Sky(modalities=names, complete=True)
    galaxy, seen = one.labels(range(2000))["kind"] == 0, one.observe(range(2000))
    for name in names[:2]:
        assert not seen[name].measured[~galaxy].any()
        measured = seen[name].measured[galaxy]
        assert 0.5 < measured.float().mean() < 0.999
        assert torch.equal(measured, seen[names[2]].value[galaxy] >= 0.45)
    assert torch.equal(seen[names[2]].measured, galaxy)


@pytest.mark.parametrize("highest", [0.01, 0.4, 1.0, MAX_REDSHIFT])
def test_redshifts_fill_their_range(highest):
    z = Sky(galaxies=1, quasars=0, max_redshift=highest, modalities=["redshift"]).observe(range(4000))["redshift"].value
    assert z.min() > 0
    assert z.max() <= highest
    assert (z > 0.8 * highest).float().mean() > 0.02
    assert (z < 0.2 * highest).float().mean() > 0.02
    if highest == 1.0:
        assert ((z > 0.05) & (z < 0.3)).float().mean() > 0.3


def test_sky_positions_are_uniform():
    seen = Sky(modalities=["ra", "dec"]).observe(range(4000))
    ra, dec = seen["ra"].value, torch.sin(torch.deg2rad(seen["dec"].value))
    for value, low, high in ((ra, 0, 360), (dec, -1, 1)):
        histogram = torch.histc(value, 10, low, high)
        assert ((histogram - 400) ** 2 / 400).sum() < 9 + 5 * math.sqrt(18)


def test_photometry_and_spectra_are_of_one_object():
    """The mean of a spectrum over r is the r flux up to the fibre, the same for both spectrographs up to theirs."""
    names = ["desi_spectrum", "sdss_spectrum", "legacysurvey_flux_r"]
    seen = Sky(modalities=names, complete=True, varied=False, seed=4).observe(range(80), noise=False)
    r = seen["legacysurvey_flux_r"].value * 3.631e-12 * 2.998e18 / 6439**2  # 1e-17 erg/s/cm2/A
    for name in names[:2]:
        spectrum = seen[name]
        inside = (spectrum.wavelength > 5700) & (spectrum.wavelength < 7200) & spectrum.measured
        mean = (spectrum.flux * inside).sum(1) / inside.sum(1)
        loss = torch.log10(mean / r)
        assert loss.min() > -0.8
        assert loss.max() < 0.2


SEEN = pytest.mark.parametrize("name", ["desi_spectrum", "sdss_spectrum", "legacysurvey_image", "hsc_image"])


@SEEN
def test_the_blank_sky_is_the_same_whatever_the_object(name):
    """Bit for bit: grid, gaps, bad pixels, calibration and the noise of the sky know nothing of what stands there."""
    skies = [
        Sky(galaxies=1, quasars=0, modalities=[name], complete=True),
        Sky(galaxies=1, quasars=0, max_redshift=0.1, modalities=[name], complete=True),
        Sky(galaxies=1, quasars=1, modalities=[name], complete=True),
        Sky(galaxies=0, modalities=[name], complete=True),
    ]
    first, *others = (one.observe(range(10), light=False)[name] for one in skies)
    assert all(same(first, other) for other in others)
    shining = skies[0].observe(range(10))[name]
    assert (shining.ivar <= first.ivar * (1 + 1e-5)).all()  # photons of the object add noise
    if isinstance(first, Spectrum):
        assert torch.equal(shining.measured, first.measured)
        assert torch.equal(shining.wavelength, first.wavelength)


def score(features: torch.Tensor, target: torch.Tensor) -> float:
    """R2 of a ridge on the last third, trained on the others."""
    known = target.isfinite()
    features, target = features[known].double(), target[known].double()
    features = (features - features.mean(0)) / features.std(0).clamp(min=1e-9)
    n = len(target) * 2 // 3
    x, y = features[:n], target[:n] - target[:n].mean()
    weight = torch.linalg.solve(x.T @ x + n * torch.eye(x.shape[1], dtype=torch.float64), x.T @ y)
    rest = target[n:] - target[:n].mean()
    return (1 - ((rest - features[n:] @ weight) ** 2).mean() / rest.var()).item()


@pytest.mark.parametrize("name", ["desi_spectrum", "sdss_spectrum", "legacysurvey_image"])
def test_what_is_kept_without_light_scores_at_chance_for_every_label(name):
    """The control of a simulation that leaks: flux zero; grids, masks and the ivar of the blank sky kept."""
    one = Sky(modalities=[name], complete=True)
    labels, seen = one.labels(range(600)), one.observe(range(600), light=False)[name]
    measured = seen.measured.flatten(1).double()
    parts = [torch.nn.functional.avg_pool1d(measured[:, None], 400)[:, 0]]
    depth = torch.where(seen.measured, seen.ivar.log(), 0).flatten(1).double()
    parts.append(torch.nn.functional.avg_pool1d(depth[:, None], 400)[:, 0])
    if isinstance(seen, Spectrum):
        ends = [torch.where(seen.measured, seen.wavelength, fill) for fill in (1e5, 0.0)]
        parts += [seen.wavelength[:, ::800], ends[0].amin(1, keepdim=True), ends[1].amax(1, keepdim=True)]
    features = torch.cat([part.double() for part in parts], 1)
    targets = {**labels, "log redshift": labels["redshift"].clamp(min=1e-3).log()}
    targets |= {f"kind {kind}": (labels["kind"] == kind).float() for kind in range(3)}
    for label, target in targets.items():
        assert score(features, target) < 0.07, label


def test_the_device_may_be_chosen_by_itself():
    assert Sky(modalities=["redshift"], device="auto").device == usable("auto")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"galaxies": 1.2}, ValueError, "between 0 and 1"),
        ({"quasars": -0.1}, ValueError, "quasars is a share"),
        ({"max_redshift": 3.0}, ValueError, "max_redshift"),
        ({"max_redshift": 0.0}, ValueError, "max_redshift"),
        ({"modalities": ["desi_spectra"]}, ValueError, "did you mean 'desi_spectrum'"),
        ({"modalities": "redshift"}, TypeError, "sequence of names"),
        ({"seed": 1.5}, TypeError, "seed must be an integer, given 1.5"),
        ({"device": "gpu"}, ValueError, "cannot compute on device 'gpu'"),
    ],
)
def test_wrong_skies_are_refused(arguments, error, words):
    with pytest.raises(error, match=words):
        Sky(**arguments)


@pytest.mark.parametrize(
    ("indices", "error"),
    [([], ValueError), (torch.zeros(2, 2, dtype=torch.long), ValueError), (5, ValueError), ([0.5], TypeError)],
)
def test_wrong_numbers_are_refused(indices, error):
    for ask in (Sky().observe, Sky().labels):
        with pytest.raises(error, match="object number"):
            ask(indices)
