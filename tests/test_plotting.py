import subprocess
import sys

import numpy as np
import pytest
import torch

from matplotlib.figure import Figure

from aion.observations import BANDS, Image, Scalar, Spectrum
from aion.plotting import plot_image, plot_posterior, plot_spectrum
from aion.posterior import Posterior

VERMILION, BLUE, INK = "#D55E00", "#0072B2", "#333333"


def spectrum(n=200, b=2, seed=0):
    rng = np.random.default_rng(seed)
    ivar = rng.uniform(1, 4, (b, n))
    ivar[:, 80:100] = 0
    return Spectrum(5 + rng.normal(size=(b, n)), ivar, np.linspace(4000, 9000, n))


def posterior(mean=(0.3, 1.2), width=0.02):
    edges = torch.linspace(0, 2, 401)
    center = (edges[1:] + edges[:-1]) / 2
    return Posterior(edges, torch.exp(-0.5 * ((center - torch.tensor(mean)[:, None]) / width) ** 2))


def image(size=(9, 7), bands=("decam-g", "decam-r", "decam-z"), b=2):
    flux = np.random.default_rng(0).normal(size=(b, len(bands), *size))
    flux[:, :, 4, 3] += 50
    return Image(flux, np.ones(flux.shape), bands)


def line(axes, color):
    (found,) = [entry for entry in axes.lines if entry.get_color() == color and len(entry.get_xdata()) > 2]
    return np.array(found.get_xdata()), np.array(found.get_ydata())


def legend(axes):
    return [text.get_text() for text in axes.get_legend().get_texts()]


FIGURES = {
    "spectrum": lambda **k: plot_spectrum(spectrum(), spectrum(), **k),
    "flux alone": lambda **k: plot_spectrum(spectrum(), **k),
    "posterior": lambda **k: plot_posterior(posterior(), 0.31, **k),
    "image": lambda **k: plot_image(image(), **k),
}


@pytest.mark.parametrize("name", FIGURES)
def test_figures_are_drawn_into_what_is_given_and_saved(name, tmp_path):
    new = FIGURES[name](title="An object")
    assert isinstance(new, Figure)
    assert new.get_suptitle() == "An object"
    new.savefig(tmp_path / "new.png", dpi=50)
    assert (tmp_path / "new.png").read_bytes().startswith(b"\x89PNG")
    new.savefig(tmp_path / "new.pdf")
    given = Figure(figsize=(8, 3), layout="constrained")
    left, right = given.subfigures(1, 2)
    assert FIGURES[name](figure=left) is left
    assert FIGURES[name](figure=right) is right
    assert len(given.axes) == 2 * len(new.axes)
    given.savefig(tmp_path / "given.png", dpi=50)


@pytest.mark.parametrize("name", FIGURES)
def test_axes_are_labelled_with_units_and_in_legible_colours(name):
    figure = FIGURES[name]()
    for axes in figure.axes:
        assert axes.get_ylabel()
    assert figure.axes[-1].get_xlabel()
    text = " ".join(axes.get_xlabel() + axes.get_ylabel() for axes in figure.axes)
    assert any(unit in text for unit in ("Å", "arcsec", "Redshift"))


def test_pyplot_is_never_touched_and_threads_do_no_harm(root):
    code = """
import sys, threading, torch
from aion.observations import Spectrum
from aion.plotting import plot_spectrum
assert not any(name.startswith("matplotlib") for name in sys.modules), "loaded at import"
one = torch.ones(1, 50)
spectrum = Spectrum(one, one, torch.linspace(4000, 5000, 50))
figures = []
threads = [threading.Thread(target=lambda: figures.append(plot_spectrum(spectrum, spectrum))) for _ in range(3)]
[thread.start() for thread in threads], [thread.join() for thread in threads]
assert len(figures) == 3
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=root)


def test_gaps_are_gaps():
    one = spectrum()
    x, y = line(plot_spectrum(one).axes[0], INK)
    np.testing.assert_allclose(x, one.wavelength[0], rtol=1e-6)
    assert np.isnan(y[80:100]).all()
    np.testing.assert_allclose(y[:80], one.flux[0, :80], rtol=1e-6)
    assert np.isfinite(y[100:]).all()


def test_holes_in_the_grid_are_gaps():
    one = spectrum()
    keep = torch.cat([torch.arange(120), torch.arange(150, 200)])
    holed = Spectrum(one.flux[:, keep], one.ivar[:, keep], one.wavelength[:, keep])
    x, y = line(plot_spectrum(holed).axes[0], INK)
    assert len(x) == 171
    assert np.isnan(y[120])
    assert np.isfinite(y[[119, 121]]).all()


def test_the_reconstruction_and_its_residuals_in_sigma():
    one, model = spectrum(), spectrum(seed=1)
    model = Spectrum(model.flux, torch.where(torch.arange(200) < 20, 0, model.ivar), model.wavelength)
    top, bottom = plot_spectrum(one, model, row=1).axes
    y = line(top, VERMILION)[1]
    assert np.isnan(y[:20]).all()
    np.testing.assert_allclose(y[100:], model.flux[1, 100:], rtol=1e-6)
    expected = ((one.flux - model.flux) * one.ivar.sqrt())[1].numpy()
    shown = line(bottom, INK)[1]
    np.testing.assert_allclose(shown[100:], expected[100:], rtol=1e-5)
    assert np.isnan(shown[:20]).all()
    assert np.isnan(shown[80:100]).all()
    (text,) = [entry.get_text() for entry in bottom.texts]
    assert text == f"mean square {np.nanmean(shown**2):.2f}"
    assert legend(top) == ["±1 σ", "flux", "reconstruction"]
    assert bottom.get_ylim()[0] == -bottom.get_ylim()[1]


def test_smoothing_is_for_display_only_and_is_said():
    one = spectrum()
    plain, smooth = plot_spectrum(one, one), plot_spectrum(one, one, smooth=7)
    assert "flux, mean over 7 pixels" in legend(smooth.axes[0])
    assert not any("mean" in text for text in legend(plain.axes[0]))
    flux, weight = one.flux[0].double().numpy(), one.ivar[0].double().numpy()
    shown = line(smooth.axes[0], INK)[1]
    for i in (3, 50, 77, 120, 199):  # 77: beside the gap
        near = slice(max(i - 3, 0), i + 4)
        assert shown[i] == pytest.approx((weight[near] * flux[near]).sum() / weight[near].sum(), rel=1e-6)
    assert np.isnan(shown[80:100]).all()
    np.testing.assert_array_equal(line(smooth.axes[1], INK)[1], line(plain.axes[1], INK)[1])


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("smooth", [1, 9])
def test_short_spectra(n, smooth, tmp_path):
    one = Spectrum(np.full((1, n), 3.0), np.ones((1, n)), np.linspace(4000, 4000 + n, n))
    plot_spectrum(one, one, smooth=smooth).savefig(tmp_path / "short.png", dpi=40)
    assert (tmp_path / "short.png").stat().st_size > 0


def test_noisy_ends_and_hot_pixels_do_not_set_the_scale():
    flux, ivar = np.ones((1, 2000)), np.ones((1, 2000))
    flux[0, :50], ivar[0, :50] = 1e4, 1e-8
    flux[0, 1000] = 1e6
    low, high = plot_spectrum(Spectrum(flux, ivar, np.linspace(4000, 9000, 2000))).axes[0].get_ylim()
    assert low < 1 < high < 10


@pytest.mark.parametrize("truth", [0.31, np.float32(0.31), torch.tensor(0.31), torch.tensor([0.31, 1.0]), [0.31, 1.0]])
def test_a_posterior_beside_the_truth(truth):
    one = posterior()
    (axes,) = plot_posterior(one, truth).axes
    low, high = (end[0].item() for end in one.interval(0.68))
    assert legend(axes) == [f"68 %: {low:.3f} to {high:.3f}", "median: 0.300", "survey pipeline: 0.3100"]
    left, right = axes.get_xlim()
    assert left < low < high < right
    assert left < 0.31 < right
    assert right - left < 0.5
    filled = next(patch for patch in axes.patches if patch.get_fill())
    values, edges, _ = filled.get_data()
    assert (values * np.diff(edges)).sum() == pytest.approx(0.68, abs=1e-6)
    outline = next(patch for patch in axes.patches if not patch.get_fill())
    values, edges, _ = outline.get_data()
    assert (values * np.diff(edges)).sum() == pytest.approx(1)


def test_the_row_drawn_is_the_row_asked_for():
    (axes,) = plot_posterior(posterior(), [0.3, 1.25], row=1, truth_label="Redrock").axes
    assert "median: 1.200" in legend(axes)
    assert "Redrock: 1.2500" in legend(axes)
    np.testing.assert_allclose(line(plot_spectrum(spectrum(), row=-1).axes[0], INK)[1][0], spectrum().flux[1, 0])


def test_a_truth_far_away_is_shown_and_one_that_is_missing_is_not():
    (axes,) = plot_posterior(posterior(), 3.5).axes
    assert axes.get_xlim()[1] > 3.5
    for missing in (None, np.nan, torch.tensor([torch.nan, 1.0])):
        (axes,) = plot_posterior(posterior(), missing).axes
        assert len(legend(axes)) == 2


def test_a_posterior_in_a_single_bin(tmp_path):
    one = Posterior(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([[0.0, 1.0, 0.0]]))
    plot_posterior(one).savefig(tmp_path / "one.png", dpi=40)
    assert plot_posterior(one).axes[0].get_ylim()[1] == pytest.approx(1.08)


def pixels(**arguments):
    (axes,) = plot_image(**arguments).axes
    (shown,) = axes.images
    return np.asarray(shown.get_array()), axes


def test_an_image_is_drawn_on_the_sky_row_0_below():
    picture = image()
    shown, axes = pixels(image=picture)
    assert shown.shape == (9, 7, 3)
    assert 0 <= shown.min() <= shown.max() <= 1
    assert np.unravel_index(shown.sum(2).argmax(), (9, 7)) == (4, 3)
    np.testing.assert_allclose(axes.images[0].get_extent(), np.array([-7, 7, -9, 9]) * 0.262 / 2, rtol=1e-6)
    assert axes.images[0].origin == "lower"
    assert axes.get_title(loc="left") == "decam-z, decam-r, decam-g"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_red_is_the_longest_wavelength_whatever_the_order(order):
    names = ("decam-g", "decam-r", "decam-z")
    flux = np.zeros((1, 3, 1, 3))
    flux[0, range(3), 0, range(3)] = 100.0 * np.array([BANDS[name] for name in names]) ** 1.5
    shown, _ = pixels(image=Image(flux[:, list(order)], np.ones(flux.shape), [names[i] for i in order]))
    np.testing.assert_array_equal(shown[0].argmax(1), [2, 1, 0])


def test_bands_asked_for_and_bands_without_a_pixel():
    picture = image()
    grey, axes = pixels(image=picture, bands=("decam-r",))
    assert np.array_equal(grey, pixels(image=picture, bands="decam-r")[0])
    assert (grey[..., 0] == grey[..., 2]).all()
    assert axes.get_title(loc="left") == "decam-r"
    both = Image.stack([image(bands=("decam-g", "decam-r")), image(bands=("decam-z",))])
    assert pixels(image=both)[1].get_title(loc="left") == "decam-r, decam-g"
    assert pixels(image=both, row=2)[1].get_title(loc="left") == "decam-z"


def test_pixels_that_were_not_measured_are_grey():
    picture = image()
    ivar = picture.ivar.clone()
    ivar[:, 1, 0, :] = 0
    shown, _ = pixels(image=Image(picture.flux, ivar, picture.bands))
    assert (shown[0] == 0.6).all()
    assert not (shown[1:] == 0.6).all(-1).any()
    ivar[:, 0, 1:] = 0  # no pixel has all three
    assert (pixels(image=Image(picture.flux, ivar, picture.bands))[0] == 0.6).all()


def test_hues_do_not_depend_on_brightness():
    flux = np.full((1, 3, 1, 4), 1.0)
    flux[0, 2] *= 3
    flux *= np.array([10.0, 100.0, 1000.0, 1e4])
    shown, _ = pixels(image=Image(flux, np.ones(flux.shape), ("decam-g", "decam-r", "decam-z")))
    ratio = shown[0] / shown[0].max(1, keepdims=True)
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:1], (4, 3)), rtol=1e-6)
    assert (np.diff(shown[0].max(1)) >= 0).all()


@pytest.mark.parametrize("function", [plot_spectrum, plot_image, plot_posterior])
def test_other_things_and_rows_are_refused(function):
    with pytest.raises(TypeError, match=r"wanted .*, given Scalar"):
        function(Scalar([1.0]))
    one = {plot_spectrum: spectrum, plot_image: image, plot_posterior: posterior}[function]()
    for row in (2, -3):
        with pytest.raises(IndexError):
            function(one, row=row)
    with pytest.raises(TypeError):
        function(one, row=0.5)


def test_bad_input_is_refused():
    one = spectrum()
    with pytest.raises(TypeError, match="wanted Spectrum, given Image"):
        plot_spectrum(one, image())
    with pytest.raises(ValueError, match=r"must be on the grid of the spectrum, 200 pixels from 4000\.0 to 9000\.0 Å"):
        plot_spectrum(one, spectrum(n=199))
    dark = Spectrum(one.flux, torch.tensor([[1.0], [0.0]]) * one.ivar, one.wavelength)
    with pytest.raises(ValueError, match="no pixel of row 1 was measured"):
        plot_spectrum(dark, row=1)
    for smooth in (0, -1, 2.0):
        with pytest.raises(ValueError, match="smooth must be a whole number of pixels >= 1"):
            plot_spectrum(one, smooth=smooth)
    with pytest.raises(ValueError, match=r"truth must be a number or \(2,\), one for each object, given shape \(3,\)"):
        plot_posterior(posterior(), [1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match="band 'decam-q' is not in the image; did you mean 'decam-"):
        plot_image(image(), bands=("decam-g", "decam-r", "decam-q"))
    with pytest.raises(ValueError, match="three"):
        plot_image(image(), bands=("decam-g", "decam-r"))


def test_observations_are_not_changed():
    one, model, picture = spectrum(), spectrum(seed=1), image()
    before = [value.clone() for value in (one.flux, one.ivar, one.wavelength, model.flux, picture.flux, picture.ivar)]
    plot_spectrum(one, model, smooth=5)
    plot_image(picture)
    after = (one.flux, one.ivar, one.wavelength, model.flux, picture.flux, picture.ivar)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_narrow_posterior_with_a_far_tail_is_shown_where_it_is():
    share = torch.zeros(1, 1000)
    share[0, 300:303], share[0, 900] = 0.31, 0.07
    (axes,) = plot_posterior(Posterior(torch.linspace(0, 1, 1001), share)).axes
    assert axes.get_xlim()[1] - axes.get_xlim()[0] < 0.05
    assert "93 % shown" in legend(axes)
