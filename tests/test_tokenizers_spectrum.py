"""Native-grid spectra: grids, gaps, scales, octaves, atoms."""

import math

import pytest
import torch

from aion import Spectrum
from aion.nn.embedding import turn
from aion.tokenizers import SpectrumTokenizer
from aion.tokenizers.slots import ATOM, CODE, SCALE, SWELL, stands
from aion.tokens import Tokens


@pytest.fixture
def tokenizer(tokenizers):
    return tokenizers["spectrum"]


@pytest.fixture
def several():
    """Builds a tokenizer with octaves, atoms and swells."""
    sizes = {"width": 16, "depth": 1, "levels": [5, 4, 4], "scale_bins": 64}
    return SpectrumTokenizer(**sizes, octaves=[-2, 0, 2, 4], atoms=12, swells=4, tokens=230).eval()


GRIDS = {
    "coarse": torch.linspace(3360, 10200, 343),
    "medium": torch.linspace(3600, 9800, 5000),
    "fine": torch.cat([torch.linspace(a, b, 1500) for a, b in ((4713, 4790), (5648, 5730), (7585, 7690))]),
}


def line(wavelength: torch.Tensor, centre: float = 6563.0, height: float = 60.0) -> Spectrum:
    """Makes a flat spectrum with one strong line, without noise."""
    flux = 1 + height * torch.exp(-0.5 * ((wavelength - centre) / 3) ** 2)
    return Spectrum(flux, torch.full_like(flux, 400.0), wavelength)


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
    rung = ((spectrum.wavelength.double() / tokenizer.ladder.start).log() / tokenizer.ladder.step).long()
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
def test_grids_of_any_length_are_read(tokenizer, several, pixels):
    spectrum = smooth(torch.linspace(3600, 7900, pixels)[None])
    assert tokenizer.encode(spectrum).valid.sum() > 90
    decoded = several.decode(several.encode(spectrum), like=spectrum)
    assert decoded.measured.all()
    assert torch.isfinite(decoded.flux).all()


def test_overlapping_arms_are_read(tokenizer):
    wavelength = torch.cat([torch.linspace(4000, 5000, 200), torch.linspace(4900, 6000, 200)]).sort().values
    assert tokenizer.encode(smooth(wavelength[None])).valid.any()


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_codes_do_not_depend_on_the_flux_scale(tokenizer, scale):
    # By powers of the width of a scale bin, so that quantising the scale leaves the same remainder.
    step = 10 ** (12 / tokenizer.flux_scale.bins)
    scale = step ** round(torch.tensor(scale).log10().item() / (12 / tokenizer.flux_scale.bins))
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
    rung = ((wide.wavelength.double() / tokenizer.ladder.start).log() / tokenizer.ladder.step).floor()
    for i in range(6):
        is_code = tokens.valid[i] & (stands(tokens.position[i]) == CODE)
        assert torch.equal(decoded.measured[i], torch.isin(rung[i].float(), tokens.position[i, is_code, 1]))


def test_without_a_grid_the_cells_of_the_tokens_are_rendered(several):
    spectra = [smooth(wavelength[None]) for wavelength in GRIDS.values()]
    tokens = several.encode(Spectrum.stack(spectra))
    decoded = several.decode(tokens)
    codes = (tokens.valid & (stands(tokens.position) == CODE)).sum(1)
    assert decoded.flux.shape == (3, 16 * codes.max())
    for i, spectrum in enumerate(spectra):
        measured = decoded.measured[i]
        assert measured.sum() == 16 * codes[i]
        assert decoded.wavelength[i][measured].diff().min() > 0
        assert decoded.wavelength[i][0].item() == pytest.approx(spectrum.wavelength[0, 0].item(), rel=0.02)
        torch.testing.assert_close(
            several.decode(tokens[i], like=decoded[i]).flux[:, measured], decoded.flux[i : i + 1, measured]
        )


def test_embeddings_are_normalised_and_in_the_order_of_the_codes(several):
    spectrum = Spectrum.stack([smooth(wavelength[None]) for wavelength in GRIDS.values()])
    spectrum = Spectrum.stack([spectrum, Spectrum(torch.zeros(1, 9), torch.zeros(1, 9), torch.linspace(5e3, 6e3, 9))])
    vectors, valid = several.embed(spectrum)
    tokens = several.encode(spectrum)
    assert vectors.shape == (4, valid.shape[1], 16)
    assert torch.equal(valid.sum(1), (tokens.valid & (stands(tokens.position) == CODE)).sum(1))
    assert not valid[3].any()
    assert (vectors[~valid] == 0).all()
    position = tokens.position[:, 1 : 1 + vectors.shape[1], 1]
    _, ids = several.quantizer(several.to_latent(turn(vectors, -position)))
    for i in range(3):
        assert torch.equal(ids[i][valid[i]], tokens.ids[i, 1 : 1 + valid[i].sum()])


@pytest.mark.parametrize("name", GRIDS)
def test_octaves_are_those_of_the_grid_and_stand_in_the_position(several, name):
    octave = {"coarse": -2, "medium": 0, "fine": 4}[name]
    spectrum = smooth(GRIDS[name][None])
    tokens = several.encode(spectrum)
    is_code = tokens.valid & (stands(tokens.position) == CODE)
    assert (tokens.position[is_code][:, 0] == -octave / 8).all()
    lowest = math.log(GRIDS[name][0].item() / several.ladder.start) / several.ladder.step
    assert tokens.position[is_code][0, 1].item() == pytest.approx(lowest, abs=2.0**-octave)
    rungs = ((spectrum.wavelength.double() / several.ladder.start).log() / several.ladder.step * 2.0**octave).long()
    assert is_code.sum() == len(rungs.unique())


def test_grids_mixed_in_a_batch_are_read_as_alone(several):
    spectra = [line(wavelength[None]) for wavelength in GRIDS.values()]
    batch = Spectrum.stack([*spectra, *spectra[::-1]])
    tokens = several.encode(batch)
    decoded = several.decode(tokens, like=batch)
    for i, spectrum in enumerate([*spectra, *spectra[::-1]]):
        alone = several.encode(spectrum)
        assert torch.equal(alone.ids[alone.valid], tokens[i].ids[tokens[i].valid])
        assert torch.equal(alone.position[alone.valid], tokens[i].position[tokens[i].valid])
        flux = several.decode(alone, like=spectrum).flux[0]
        torch.testing.assert_close(decoded.flux[i, : len(flux)], flux, rtol=1e-3, atol=1e-3)


def test_the_order_of_tokens_does_not_matter(several, generator):
    spectrum = line(GRIDS["medium"][None])
    tokens = several.encode(spectrum)
    order = torch.randperm(tokens.ids.shape[1], generator=generator)
    shuffled = Tokens(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order])
    one, other = several.decode(tokens, like=spectrum), several.decode(shuffled, like=spectrum)
    torch.testing.assert_close(one.flux, other.flux, rtol=1e-5, atol=1e-5)


def test_atoms_carry_lines_that_codes_cannot(several):
    spectrum = line(GRIDS["medium"][None])
    tokens = several.encode(spectrum)
    is_atom = tokens.valid & (stands(tokens.position) == ATOM)
    assert is_atom.any()
    assert tokens.valid.sum() <= 230
    codes = Tokens(tokens.ids, tokens.position, tokens.valid & ~is_atom)
    near = (spectrum.wavelength - 6563).abs() < 20
    with_atoms, without = (several.decode(t, like=spectrum).flux - spectrum.flux for t in (tokens, codes))
    assert with_atoms[near].square().sum() < 0.1 * without[near].square().sum()
    ranks = tokens.position[is_atom]
    assert len(ranks.unique(dim=0)) == len(ranks)  # no two tokens stand in one place


def test_places_are_those_of_the_grid_whatever_the_flux(several):
    batch = Spectrum.stack([line(wavelength[None]) for wavelength in GRIDS.values()])
    zero = Spectrum(torch.full_like(batch.flux, 1e25), batch.ivar, batch.wavelength)
    tokens, places = several.encode(batch), several.places(zero)
    for i in range(3):
        own = tokens.valid[i] & torch.isin(stands(tokens.position[i]), torch.tensor([CODE, SCALE]))
        assert torch.equal(tokens.position[i, own], places.position[i, places.valid[i]])


def test_two_views_of_the_same_objects_are_drawn_together(several, generator):
    wavelength = torch.linspace(4000, 8000, 900).expand(6, -1)
    shape = torch.randn(6, 1, generator=generator)
    flux = 2 + shape * torch.sin(wavelength / 400)
    one, other = (
        Spectrum(flux + 0.1 * torch.randn(flux.shape, generator=generator), torch.full_like(flux, 100.0), wavelength)
        for _ in range(2)
    )
    optimizer = torch.optim.Adam(several.parameters(), lr=3e-3)
    first = several.loss((one, other))
    assert torch.isfinite(first["loss"])
    for _ in range(10):
        optimizer.zero_grad()
        several.loss((one, other))["contrast"].backward()
        optimizer.step()
    assert several.loss((one, other))["contrast"] < 0.9 * first["contrast"]


def test_hidden_pixels_are_drawn_by_the_generator_alone(several):
    spectrum = line(GRIDS["medium"].expand(3, -1))
    draws = [several.loss(spectrum, torch.Generator().manual_seed(seed))["loss"].item() for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


def test_a_batch_without_a_measured_pixel_has_no_loss(several):
    with pytest.raises(ValueError, match="no spectrum of the batch has a measured pixel"):
        several.loss(Spectrum(torch.zeros(2, 9), torch.zeros(2, 9), torch.linspace(5e3, 6e3, 9)))


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
    inside = (spectrum.wavelength >= tokenizer.ladder.start) & (spectrum.wavelength < tokenizer.ladder.stop)
    share = tokenizer.coverage(spectrum).item()
    assert 0 < share < 1
    assert share == pytest.approx(inside.float().mean().item())


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ((0.0, 9999.0), "rungs must lie in"),
        ((0.125, 5.0), "codes of several octaves, or of none"),
        ((1.0, 0.0), "position of some says"),
    ],
)
def test_tokens_that_stand_nowhere_are_refused_at_decoding(several, position, message):
    spectrum = smooth(GRIDS["medium"][None])
    tokens = several.encode(spectrum)
    changed = tokens.position.clone()
    changed[0, 5] = torch.tensor(position)
    with pytest.raises(ValueError, match=message):
        several.decode(Tokens(tokens.ids, changed, tokens.valid), like=spectrum)


def test_each_kind_of_id_has_its_own_places(several):
    batch = Spectrum.stack([line(wavelength[None]) for wavelength in GRIDS.values()])
    tokens = several.encode(batch)
    possible = several.possible(tokens.position)
    assert possible.shape == (*tokens.ids.shape, several.size)
    assert possible.gather(2, tokens.ids[..., None])[..., 0][tokens.valid].all()
    sizes = {several.quantizer.size, 64, several.atoms.size, several.swells.size}
    assert set(possible.sum(-1)[tokens.valid].tolist()) == sizes


def test_a_spectrum_of_few_tokens_may_have_more_atoms(several):
    short, long = (Spectrum.stack([line(torch.linspace(3600, stop, 5000)[None])]) for stop in (6800, 9800))
    found = []
    for spectrum in (short, long):
        tokens = several.encode(spectrum)
        place = stands(tokens.position)[tokens.valid]
        found.append(int(torch.isin(place, torch.tensor([ATOM, SWELL])).sum()))
        assert (place == SWELL).sum() <= 4
        assert tokens.valid.sum() <= 230
    assert found[0] > found[1] >= 12


def test_swells_bring_the_decoded_continuum_nearer(several):
    wavelength = torch.linspace(3600, 9800, 5000)[None]
    spectrum = Spectrum(1 + 0.5 * torch.sin(wavelength / 900), torch.full_like(wavelength, 1e4), wavelength)
    tokens = several.encode(spectrum)
    kept = stands(tokens.position) != SWELL
    without = Tokens(tokens.ids, tokens.position, tokens.valid & kept)
    error = [(several.decode(t, like=spectrum).flux - spectrum.flux).square().mean() for t in (tokens, without)]
    assert (~kept & tokens.valid).any()
    assert error[0] < error[1]


def test_the_codebook_tells_all_ids_apart(several):
    book = several.codebook()
    assert len(book.unique(dim=0)) == several.size
