"""Native-grid spectra: grids, gaps, scales."""

import pytest
import torch

from aion import Spectrum
from aion.tokens import Tokens


@pytest.fixture
def tokenizer(tokenizers):
    return tokenizers["spectrum"]


def smooth(wavelength: torch.Tensor, scale: float = 1.0) -> Spectrum:
    flux = scale * (2 + torch.sin(wavelength / 300))
    return Spectrum(flux, torch.full_like(flux, 100 / scale**2), wavelength)


def test_unmeasured_pixels_influence_nothing(tokenizer, observations):
    spectrum = observations["desi_spectrum"]
    flux = torch.where(spectrum.measured, spectrum.flux, 1e6)
    changed = Spectrum(flux, spectrum.ivar, spectrum.wavelength)
    assert torch.equal(tokenizer.encode(changed).ids, tokenizer.encode(spectrum).ids)


def test_padding_influences_nothing(tokenizer, observations):
    spectrum = observations["desi_spectrum"]
    longer = Spectrum.stack([spectrum, smooth(torch.linspace(4000, 7000, 1500)[None])])[: len(spectrum)]
    assert longer.flux.shape[1] == 1500
    assert torch.equal(tokenizer.encode(longer).ids, tokenizer.encode(spectrum).ids)


def test_a_rung_has_a_token_exactly_if_a_pixel_of_it_is_measured(tokenizer, observations):
    spectrum = observations["desi_spectrum"]
    tokens = tokenizer.encode(spectrum)
    rung = ((spectrum.wavelength.double() / tokenizer.start).log() / tokenizer.step).long()
    for i in range(len(spectrum)):
        expected = set(rung[i][spectrum.measured[i]].tolist())
        is_code = tokens.valid[i] & (tokens.position[i, :, 0] == 0)
        assert set(tokens.position[i, is_code, 1].long().tolist()) == expected


def test_the_same_rung_is_the_same_wavelength_for_every_grid(tokenizer):
    coarse, fine = smooth(torch.linspace(4000, 6000, 300)[None]), smooth(torch.linspace(4000, 6000, 3000)[None])
    a, b = tokenizer.encode(coarse), tokenizer.encode(fine)
    assert torch.equal(a.valid, b.valid)
    assert torch.equal(a.position, b.position)


@pytest.mark.parametrize("pixels", [100, 343, 20_000])
def test_grids_of_any_length_are_read(tokenizer, pixels):
    tokens = tokenizer.encode(smooth(torch.linspace(3600, 7900, pixels)[None]))
    assert tokens.valid.sum() > 90


def test_overlapping_arms_are_read(tokenizer):
    wavelength = torch.cat([torch.linspace(4000, 5000, 200), torch.linspace(4900, 6000, 200)]).sort().values
    assert tokenizer.encode(smooth(wavelength[None])).valid.any()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_codes_do_not_depend_on_the_flux_scale(tokenizer, scale):
    # By powers of the width of a scale bin, so that quantising the scale leaves the same remainder.
    step = 10 ** (12 / tokenizer.scale_bins)
    scale = step ** round(torch.tensor(scale).log10().item() / (12 / tokenizer.scale_bins))
    wavelength = torch.linspace(4000, 6000, 800)[None]
    one, scaled = tokenizer.encode(smooth(wavelength)), tokenizer.encode(smooth(wavelength, scale))
    assert (one.ids == scaled.ids)[:, 1:].float().mean() > 0.97
    decoded = (
        tokenizer.decode(scaled, like=smooth(wavelength, scale)).flux
        / tokenizer.decode(one, like=smooth(wavelength)).flux
    )
    assert decoded.median().item() == pytest.approx(scale, rel=1e-3)


@pytest.mark.parametrize("flux", [torch.zeros(1, 400), -torch.ones(1, 400), torch.randn(1, 400)])
def test_zero_and_negative_medians_survive(tokenizer, flux):
    spectrum = Spectrum(flux, torch.ones(1, 400), torch.linspace(4000, 6000, 400))
    decoded = tokenizer.decode(tokenizer.encode(spectrum), like=spectrum)
    assert torch.isfinite(decoded.flux).all()
    assert decoded.measured.all()


def test_decoded_ivar_is_zero_exactly_where_nothing_is_known(tokenizer, observations):
    spectrum = observations["desi_spectrum"]
    tokens = tokenizer.encode(spectrum)
    wide = Spectrum(torch.zeros(6, 900), torch.ones(6, 900), torch.linspace(3000, 9000, 900))
    decoded = tokenizer.decode(tokens, like=wide)
    rung = ((wide.wavelength.double() / tokenizer.start).log() / tokenizer.step).floor().long()
    known = tokens.valid[:, 1:]
    inside = (rung >= 0) & (rung < tokenizer.rungs)
    assert torch.equal(decoded.measured, inside & known.gather(1, rung.clamp(0, tokenizer.rungs - 1)))


def test_without_a_grid_the_ladder_is_rendered(tokenizer, observations):
    decoded = tokenizer.decode(tokenizer.encode(observations["desi_spectrum"]))
    assert decoded.flux.shape == (6, tokenizer.rungs * tokenizer.cells)


def test_embedding_is_what_is_quantised(tokenizer, observations):
    latent, measured = tokenizer.embed(observations["desi_spectrum"])
    assert latent.shape == (6, tokenizer.rungs, 3)
    assert latent.abs().max() <= 1
    assert (latent[~measured] == 0).all()


def test_training_lowers_the_loss(tokenizer):
    spectrum = smooth(torch.linspace(4000, 7500, 900).expand(8, -1))
    optimizer = torch.optim.Adam(tokenizer.parameters(), lr=3e-3)
    first = tokenizer.loss(spectrum)["loss"].item()
    for _ in range(60):
        optimizer.zero_grad()
        tokenizer.loss(spectrum)["loss"].backward()
        optimizer.step()
    assert tokenizer.loss(spectrum)["loss"].item() < 0.3 * first


def test_a_spectrum_outside_the_ladder_is_refused_by_row(tokenizer):
    wavelength = torch.stack([torch.linspace(400, 700, 50), torch.linspace(4000, 7000, 50)])
    with pytest.raises(ValueError, match=r"row 0: measured from 400 to 700, .* nm or micron"):
        tokenizer.encode(smooth(wavelength))


def test_ids_out_of_range_are_refused_at_decoding(tokenizer, observations):
    tokens = tokenizer.encode(observations["desi_spectrum"])
    with pytest.raises(ValueError, match=r"ids must lie in \[0, 144\), given 9999"):
        tokenizer.decode(Tokens(torch.full_like(tokens.ids, 9999), tokens.position, tokens.valid))


def test_coverage_is_the_share_of_pixels_on_the_ladder(tokenizer):
    spectrum = smooth(torch.linspace(7000, 8990, 200)[None])
    inside = (spectrum.wavelength >= tokenizer.start) & (
        spectrum.wavelength < tokenizer.start * torch.exp(torch.tensor(tokenizer.rungs * tokenizer.step))
    )
    share = tokenizer.coverage(spectrum).item()
    assert 0 < share < 1
    assert share == pytest.approx(inside.float().mean().item())


def test_codes_and_flux_scales_cannot_stand_in_each_others_place(tokenizer, observations):
    tokens = tokenizer.encode(observations["desi_spectrum"])
    possible = tokenizer.possible(tokens.position)
    assert possible.shape == (*tokens.ids.shape, tokenizer.size)
    assert possible.gather(2, tokens.ids[..., None])[..., 0][tokens.valid].all()
    assert possible.sum(-1)[0, :2].tolist() == [tokenizer.scale_bins, tokenizer.quantizer.size]
