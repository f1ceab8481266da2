"""Scalar bins against numpy's quantiles and digitize."""

import json
import math
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

from safetensors.torch import save_file

from aion import Scalar
from aion.tokenizers import ScalarTokenizer
from aion.tokenizers.edges import levels
from aion.tokenizers.reservoir import Reservoir
from aion.tokens import Tokens

# Every way to place and read bins.
KINDS = [
    {},
    {"spacing": "quantile"},
    {"spacing": "log1p"},
    {"transform": "log"},
    {"transform": "log", "spacing": "quantile"},
    {"transform": "asinh"},
    {"transform": "asinh", "softening": 0.1},
    {"transform": "asinh", "components": 3},
    {"components": 3, "beyond": "warn"},
    {"limits": [1e-3, 50.0], "beyond": "error"},
    {"transform": "log", "limits": [0.05, 20]},
    {"bins": 2},
    {"bins": 4096, "rung": 0.005},
]
KINDS = pytest.mark.parametrize("options", KINDS, ids=str)


def draw(options: dict, count: int = 3000, seed: int = 0) -> Scalar:
    """Draws values above 0, within 1e-3 and 50, of which many are equal."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, options["components"]) if "components" in options else (count,)
    value = torch.randn(shape, generator=generator).mul(1.5).exp().clamp(1e-3, 50)
    return Scalar(torch.where(torch.rand(shape, generator=generator) < 0.05, 0.75, value))


def make(options: dict) -> ScalarTokenizer:
    arguments = {"bins": 256, **options}
    spacing = {"spacing": arguments.pop("spacing")} if "spacing" in arguments else {}
    return ScalarTokenizer(**arguments).fit(draw(options), **spacing)


def straight(tokenizer: ScalarTokenizer, value: torch.Tensor) -> torch.Tensor:
    """Applies the transform by the formulas of numpy."""
    value = value.double().numpy()
    if tokenizer.transform == "log":
        value = np.log(value)
    elif tokenizer.transform == "asinh":
        value = np.arcsinh(value / tokenizer.softening.double().numpy())
    return torch.from_numpy(value)


@KINDS
def test_round_trips_are_within_half_a_bin(options):
    tokenizer = make(options)
    value = draw(options, seed=1).value.reshape(3000, -1)
    low, high = tokenizer.edges[:, 0], tokenizer.edges[:, -1]
    inside = Scalar(torch.minimum(torch.maximum(value, low), high))
    tokens = tokenizer.encode(inside)
    decoded = tokenizer.decode(tokens).value.reshape(3000, -1)
    component = torch.arange(tokenizer.components)
    edges = straight(tokenizer, tokenizer.edges.T).T
    width = edges.diff(dim=1)[component, tokens.ids]
    error = (straight(tokenizer, decoded) - straight(tokenizer, inside.value)).abs()
    rounding = 3e-7 * straight(tokenizer, decoded).abs() + 3e-7
    assert (error <= width / 2 + rounding).all()
    assert (decoded >= low).all()
    assert (decoded <= high).all()


@KINDS
def test_residuals_are_in_half_widths_of_bins(options):
    tokenizer, scalar = make({**options, "beyond": "clip"}), draw(options, seed=1)
    residual = tokenizer.residual(scalar)
    assert residual.shape == (3000, tokenizer.components)
    width = tokenizer.edges.diff() / tokenizer.edges[:, :-1].abs()
    wide = (width > 1e-4).gather(1, tokenizer.encode(scalar).ids.T).T  # others are as narrow as rounding
    assert residual[wide].max() <= 1.02
    assert 0.3 < residual[wide].mean() < 0.7
    assert tokenizer.residual(Scalar(scalar.value * math.nan)).isnan().all()


@KINDS
def test_decoded_values_have_the_same_ids_again(options):
    tokenizer = make(options)
    shape = (tokenizer.size, tokenizer.components)
    component = torch.arange(tokenizer.components).expand(shape)
    ids = torch.arange(tokenizer.size)[:, None].expand(shape)
    position = torch.stack([torch.zeros(shape), component.float()], dim=-1)
    decoded = tokenizer.decode(Tokens(ids, position, torch.ones(shape, dtype=torch.bool)))
    assert torch.equal(tokenizer.encode(decoded).ids, ids)


@KINDS
def test_edges_rise_and_a_posterior_stands_on_them(options):
    tokenizer = make(options)
    assert (tokenizer.edges.diff() > 0).all()
    if tokenizer.components == 1:
        posterior = tokenizer.posterior(torch.rand(3, tokenizer.size, generator=torch.Generator().manual_seed(0)))
        assert torch.equal(posterior.edges, tokenizer.edges[0].double())
        low, high = posterior.interval(0.9)
        assert (low < high).all()


def test_saved_and_loaded_elsewhere_they_give_the_same_tokens(tmp_path, root):
    configs = []
    for number, options in enumerate(KINDS.args[1]):
        tokenizer, scalar = make(options), draw(options, 50)
        tokens = tokenizer.encode(scalar)
        wanted = {"value": scalar.value, "ids": tokens.ids, "decoded": tokenizer.decode(tokens).value}
        state = {f"state.{name}": value for name, value in tokenizer.state_dict().items()}
        save_file({k: v.contiguous() for k, v in (wanted | state).items()}, tmp_path / str(number))
        configs.append(tokenizer.config)
    (tmp_path / "configs").write_text(json.dumps(configs))
    code = f"""
import json, pathlib, torch
from safetensors.torch import load_file
from aion import Scalar
from aion.tokenizers import build
folder = pathlib.Path({str(tmp_path)!r})
for number, config in enumerate(json.loads((folder / "configs").read_text())):
    wanted, tokenizer = load_file(folder / str(number)), build(config)
    state = {{k.partition(".")[2]: v for k, v in wanted.items() if k.startswith("state.")}}
    tokenizer.load_state_dict(state)
    tokens = tokenizer.encode(Scalar(wanted["value"]))
    assert torch.equal(tokens.ids, wanted["ids"])
    assert torch.equal(tokenizer.decode(tokens).value, wanted["decoded"])
print(number)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(configs) - 1


@pytest.mark.parametrize("components", [1, 3])
def test_fitting_a_stream_is_fitting_all_at_once(components):
    scalar = draw({"components": components})
    fits = [
        ScalarTokenizer(64, components).fit(scalar),
        ScalarTokenizer(64, components).fit(scalar[i : i + 700] for i in range(0, 3000, 700)),
        ScalarTokenizer(64, components).fit(Reservoir(components, 3000).update(scalar)),
        ScalarTokenizer(64, components).fit(scalar[torch.randperm(3000, generator=torch.Generator().manual_seed(0))]),
    ]
    assert all(torch.equal(fit.edges, fits[0].edges) for fit in fits)


def test_a_fit_resumed_from_a_file_is_that_of_one_go(tmp_path):
    scalar = draw({}, 20_000)
    whole = Reservoir(capacity=1000, seed=5).update(scalar)
    Reservoir(capacity=1000, seed=5).update(scalar[:9001]).save(tmp_path / "state.safetensors")
    resumed = Reservoir.load(tmp_path / "state.safetensors").update(scalar[9001:])
    assert torch.equal(ScalarTokenizer().fit(resumed).edges, ScalarTokenizer().fit(whole).edges)


def test_a_fit_to_a_sample_is_as_good_as_stated():
    scalar = draw({}, 200_000)
    sample = Reservoir(capacity=10_000).update(scalar)
    tokenizer = ScalarTokenizer(bins=128).fit(sample)
    below = (scalar.value[:, None] < tokenizer.edges[0, 1:-1]).double().mean(0)
    tied = (scalar.value[:, None] == tokenizer.edges[0, 1:-1]).double().mean(0)
    wanted = ScalarTokenizer(bins=128).fit(scalar)
    exact = (scalar.value[:, None] < wanted.edges[0, 1:-1]).double().mean(0)
    assert ((below - exact).abs() <= sample.rank_error + tied).all()
    assert torch.equal(tokenizer.edges[0, [0, -1]], wanted.edges[0, [0, -1]])


def test_bins_are_equal_steps_of_the_normal_score_and_nearly_all_used(generator):
    value = torch.randn(100_000, generator=generator).exp()
    tokenizer = ScalarTokenizer().fit(Scalar(value))
    share = torch.bincount(tokenizer.encode(Scalar(value)).ids[:, 0], minlength=1024) / 100_000
    np.testing.assert_allclose(share[32:-32], levels(960, 1 / 1024).diff(), atol=2e-5)
    np.testing.assert_allclose([share[:32].sum(), share[-32:].sum()], 1 / 1024, atol=2e-5)
    other = torch.randn(100_000, generator=generator).exp()
    assert (torch.bincount(tokenizer.encode(Scalar(other)).ids[:, 0], minlength=1024) > 0).float().mean() > 0.95


def test_clipping_is_reported_as_asked():
    given = Scalar([-1.0, 0.5, 2.0, float("nan"), 1.0, 0.0])
    beyond = {}
    for policy in ("clip", "warn", "error"):
        tokenizer = ScalarTokenizer(bins=4, beyond=policy).fit(Scalar([0.0, 1.0]), "quantile")
        assert tokenizer.clipped(given).flatten().tolist() == [True, False, True, False, False, False]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tokenizer.encode(given[[1, 3, 4, 5]])
            beyond[policy] = tokenizer
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert beyond["clip"].encode(given).ids.flatten().tolist() == [0, 2, 3, 0, 3, 0]
        assert beyond["clip"].loss(given)["clipped"].item() == pytest.approx(2 / 5)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            assert beyond["warn"].encode(given).ids.flatten().tolist() == [0, 2, 3, 0, 3, 0]
    assert [str(w.message) for w in caught] == [
        "values beyond the bins, which reach from 0 to 1, share the ids of the outermost ones; see clipped()"
    ]
    with pytest.raises(ValueError, match=r"row 0 \(2 such rows\): -1 lies beyond the bins, .* from 0 to 1; .* NaN"):
        beyond["error"].encode(given)


def test_limits_are_the_outermost_edges_and_what_lies_beyond_counts_as_them():
    scalar = draw({})
    tokenizer = ScalarTokenizer(bins=32, transform="log", limits=(0.5, 2)).fit(scalar)
    assert tokenizer.edges[0, 0] == 0.5
    assert tokenizer.edges[0, -1] == pytest.approx(2, abs=1e-6)
    inner = tokenizer.edges[0, 2:-2]
    share = (scalar.value[:, None] < inner).float().mean(0)
    assert share[0] > (scalar.value < 0.5).float().mean()
    assert tokenizer.decode(tokenizer.encode(Scalar([-3.0, 0.0, 99.0]))).value.tolist() == pytest.approx([0.5, 0.5, 2])


def test_the_softening_is_the_median_unless_given():
    scalar = draw({"components": 3})
    fitted = ScalarTokenizer(16, 3, transform="asinh").fit(scalar)
    torch.testing.assert_close(fitted.softening, scalar.value.abs().quantile(0.5, dim=0), rtol=2e-3, atol=0)
    assert "softening" in fitted.state_dict()
    given = ScalarTokenizer(16, 3, transform="asinh", softening=2.0).fit(scalar)
    assert given.softening.tolist() == [2, 2, 2]


def test_older_bundles_have_no_new_settings_in_their_configuration():
    assert ScalarTokenizer(256, 55).config == {"kind": "scalar", "bins": 256, "components": 55, "rung": None}
    new = ScalarTokenizer(256, transform="asinh", softening=2, limits=(0, 1), beyond="error").config
    assert new["limits"] == [0.0, 1.0]
    assert {"transform", "softening", "beyond"} <= set(new)


def test_quantile_edges_and_ids_agree_with_numpy(generator):
    value = torch.randn(1001, generator=generator)
    tokenizer = ScalarTokenizer(bins=16).fit(Scalar(value), spacing="quantile")
    edges = np.quantile(value.double().numpy(), np.linspace(0, 1, 17))
    np.testing.assert_allclose(tokenizer.edges[0].numpy(), edges, atol=1e-6)
    ids = tokenizer.encode(Scalar(value)).ids[:, 0]
    np.testing.assert_array_equal(ids.numpy(), np.digitize(value.numpy(), tokenizer.edges[0, 1:-1].numpy()))
    assert torch.bincount(ids).float().std() < 1


def test_log1p_edges_are_equal_steps():
    tokenizer = ScalarTokenizer(bins=64).fit(Scalar([0.0, 1.5]), spacing="log1p")
    steps = tokenizer.edges[0].double().log1p().diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-4, atol=0)


def test_decoding_is_idempotent(tokenizers, observations):
    tokenizer = tokenizers["vector"]
    once = tokenizer.encode(observations["gaia_bp_coefficients"])
    twice = tokenizer.encode(tokenizer.decode(once))
    assert torch.equal(once.ids, twice.ids)
    assert torch.equal(once.valid, twice.valid)


def test_nan_has_no_token_and_comes_back_as_nan():
    tokenizer = ScalarTokenizer(bins=4).fit(Scalar([0.0, 1.0]))
    tokens = tokenizer.encode(Scalar([0.5, float("nan")]))
    assert tokens.valid.flatten().tolist() == [True, False]
    assert tokenizer.decode(tokens).value.isnan().tolist() == [False, True]


def test_vectors_survive_a_change_of_token_order(tokenizers, observations):
    tokenizer, observation = tokenizers["vector"], observations["gaia_bp_coefficients"]
    tokens, order = tokenizer.encode(observation), torch.tensor([2, 0, 3, 1])
    shuffled = Tokens(tokens.ids[:, order], tokens.position[:, order], tokens.valid[:, order])
    torch.testing.assert_close(tokenizer.decode(shuffled).value, tokenizer.decode(tokens).value, equal_nan=True)


def test_posterior_reads_the_edges(tokenizers):
    posterior = tokenizers["redshift"].posterior(torch.full((2, 32), 1.0))
    assert torch.equal(posterior.edges.float(), tokenizers["redshift"].edges[0])


def tokens(id_: int, component: int) -> Tokens:
    return Tokens(torch.tensor([[id_]]), torch.tensor([[[0.0, component]]]), torch.tensor([[True]]))


def test_what_is_not_valid_may_have_any_id():
    one = tokens(99, 7)
    assert ScalarTokenizer(8).decode(Tokens(one.ids, one.position, ~one.valid)).value.isnan().all()


def test_bins_without_width_of_older_bundles_have_no_posterior():
    tokenizer = ScalarTokenizer(4)
    tokenizer.edges[0, :4] = 0
    with pytest.raises(ValueError, match="3 of 4 have none: this scalar was fitted to many equal values"):
        tokenizer.posterior(torch.ones(1, 4))


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (lambda: ScalarTokenizer(bins=1), "bins >= 2"),
        (lambda: ScalarTokenizer().fit(Scalar([1.0, 1.0])), "at least two different values"),
        (
            lambda: ScalarTokenizer().fit(Scalar([1.0, 2.0]), spacing="lin"),
            "unknown spacing 'lin'; known: log1p, normal, quantile",
        ),
        (
            lambda: ScalarTokenizer(components=3).encode(Scalar([[1.0, 2.0]])),
            r"wanted 3 component\(s\) per object, given 2",
        ),
        (lambda: ScalarTokenizer(components=3).posterior(torch.ones(1, 256)), "needs one component"),
        (
            lambda: ScalarTokenizer().fit(Scalar([-1.0, 2.0]), spacing="log1p"),
            "log1p needs values above -1, given -1",
        ),
        (lambda: ScalarTokenizer(transform="ln"), "unknown transform 'ln'; known: asinh, log, none"),
        (lambda: ScalarTokenizer(beyond="eror"), "unknown policy beyond= 'eror'; did you mean 'error'"),
        (lambda: ScalarTokenizer(softening=1.0), "softening is a positive number, for transform='asinh' alone"),
        (lambda: ScalarTokenizer(transform="asinh", softening=0.0), "a positive number, .* given 0.0"),
        (lambda: ScalarTokenizer(limits=(1, 1)), "the smaller first, given"),
        (lambda: ScalarTokenizer(limits=(0, math.inf)), "two finite numbers"),
        (
            lambda: ScalarTokenizer(transform="log").fit(Scalar([0.0, 2.0])),
            "a logarithm needs values above 0, given 0; transform='asinh' does not",
        ),
        (lambda: ScalarTokenizer(transform="asinh").fit(Scalar([0.0, 0.0, 2.0])), "component 0 is mostly 0"),
        (
            lambda: ScalarTokenizer(limits=(0, 1), beyond="error").fit(Scalar([0.5, 2.0])),
            r"wanted values within the limits \[0.0, 1.0\], given 0.5 to 2",
        ),
        (lambda: ScalarTokenizer(8, 2).fit(Scalar([[1.0, 3.0], [2.0, 3.0]])), "component 1: wanted at least two"),
        (lambda: ScalarTokenizer(8, 2).fit(Reservoir(3)), r"wanted 2 component\(s\) per object, given 3"),
        (lambda: ScalarTokenizer(8, 2).fit([Scalar([1.0])]), r"wanted 2 component\(s\) per object, given 1"),
        (lambda: ScalarTokenizer(8).fit([]), "at least two different values, given 0 values"),
        (lambda: ScalarTokenizer(8).decode(tokens(8, 0)), r"scalar tokens: ids must lie in \[0, 8\), given 8"),
        (lambda: ScalarTokenizer(8).decode(tokens(-1, 0)), r"ids must lie in \[0, 8\), given -1"),
        (lambda: ScalarTokenizer(8).decode(tokens(0, 1)), r"wanted components in \[0, 1\), given 1"),
    ],
)
def test_bad_input_is_refused(action, message):
    with pytest.raises(ValueError, match=message):
        action()


def test_with_a_rung_a_shift_in_ln_wavelength_turns_the_codebook_alike_everywhere():
    tokenizer = ScalarTokenizer(bins=400, rung=0.005).fit(Scalar([0.0, 0.5]), spacing="log1p")
    book = tokenizer.codebook(64)
    assert book.shape == (400, 64)
    likeness = book @ book.T / 32  # of redshifts: a function of the difference in ln(1 + z) alone, 1 at 0
    for lag in (0, 1, 7, 100):
        along = likeness.diagonal(lag)
        torch.testing.assert_close(along, along[:1].expand_as(along), atol=2e-4, rtol=0)
    assert (likeness - torch.eye(400)).max() < 0.99  # even neighbours, a fifth of a rung apart, differ
