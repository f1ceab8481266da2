"""Makes small random transformers in the published layout, and what the published package computes with them.

The tests use `build` to make repositories from the documented layout: no weight is stored, every tensor follows from
its name. What the published package makes of them is stored in `tests/data/official/`. To make it again, in an
environment that holds that package (it cannot share one with ours, both are imported as `aion`) and no `aion` of ours:

    python -m venv official && official/bin/pip install torch==2.13.0 polymathic-aion==0.0.2
    official/bin/python tests/make_official_model_fixtures.py
"""

import json
import sys
import tempfile
import zlib

from pathlib import Path

import numpy as np

from safetensors.numpy import save_file

FIXTURES = Path(__file__).parent / "data" / "official"
LIST = 512
SIZES = {"tok_image": 4375, "tok_image_hsc": 4375, "tok_segmap": 1000, "catalog": 3468, "tok_z": 1025}
GRIDS = {
    **dict.fromkeys(("tok_image", "tok_image_hsc"), (24, 24)),
    "tok_segmap": (12, 12),
    **dict.fromkeys(("tok_spectrum_desi", "tok_spectrum_sdss"), (1, 273)),
    **dict.fromkeys(("tok_xp_bp", "tok_xp_rp"), (1, 55)),
}
DOMAINS = sorted(
    [*SIZES, *(key for key in GRIDS if key not in SIZES)]
    + [f"tok_mag_{band}" for band in "grizy"]
    + [f"tok_a_{band}" for band in "grizy"]
    + [f"tok_shape{part}" for part in ("11", "12", "22", "_r", "_e1", "_e2")]
    + [f"tok_flux_{band}" for band in ("g", "r", "i", "z", "w1", "w2", "w3", "w4", "g_gaia", "bp_gaia", "rp_gaia")]
    + ["tok_ebv", "tok_parallax", "tok_ra", "tok_dec"]
)
FEW = ["catalog", "tok_flux_g", "tok_flux_r", "tok_xp_bp", "tok_z"]
CONFIG = {
    "act_layer": "SiLU",
    "decoder_depth": 2,
    "dim": 16,
    "domains_in": DOMAINS,
    "domains_out": DOMAINS,
    "encoder_depth": 2,
    "gated_mlp": True,
    "mlp_bias": False,
    "mlp_ratio": 4.0,
    "norm_bias": False,
    "num_heads": 2,
    "proj_bias": False,
    "qk_norm": True,
    "qkv_bias": False,
}
VARIANTS = {
    "tied": {},
    "untied": {"domains_in": FEW, "domains_out": FEW, "share_modality_embeddings": False, "num_heads": 4},
    "biased": {"domains_in": FEW, "domains_out": FEW, "norm_bias": True, "decoder_sep_mask": False, "dim": 24},
    "lopsided": {"domains_in": FEW[:4], "domains_out": FEW[1:], "encoder_depth": 1, "decoder_depth": 3},
}
TOKENS = {"tok_image": 576, "tok_spectrum_desi": 273, "catalog": 20, "tok_flux_g": 1, "tok_xp_bp": 55, "tok_z": 1}
GIVEN = ["tok_z", "tok_flux_g"]  # for generation
STRIDE = 32  # of the tokens whose encoder output and logits are stored
EVERY = 5  # of the logits of a token


def number(name, shape, scale):
    """Draws a tensor that follows from its name, uniform with a standard deviation."""
    draws = np.random.default_rng(zlib.crc32(name.encode())).random(shape, dtype=np.float32)
    return ((draws - 0.5) * np.float32(12**0.5 * scale)).astype(np.float32)


def table(domain, dim):
    """Computes a stored position table `(1, P, dim)`."""
    if domain == "catalog":
        coordinates = [np.arange(LIST)]
    else:
        rows, columns = GRIDS.get(domain, (1, 1))
        coordinates = [np.repeat(np.arange(rows), columns), np.tile(np.arange(columns), rows)]
    width = dim // 2 // len(coordinates)
    omega = 10000.0 ** (-np.arange(width) / width)
    blocks = [f(c[:, None] * omega) for c in coordinates for f in (np.sin, np.cos)]
    return np.concatenate(blocks, axis=1)[None].astype(np.float32)


def blocks(config):
    """Lists names and shapes of all tensors but embeddings."""
    dim, head = config["dim"], config["dim"] // config["num_heads"]
    hidden = int(2 * int(dim * config["mlp_ratio"]) / 3)
    mlp = {"mlp.fc1.weight": (hidden, dim), "mlp.fc2.weight": (dim, hidden), "mlp.fc3.weight": (hidden, dim)}
    own = {"qkv.weight": (3 * dim, dim), "proj.weight": (dim, dim)}
    cross = {"q.weight": (dim, dim), "kv.weight": (2 * dim, dim), "proj.weight": (dim, dim)}
    linear = {
        "encoder": mlp | {f"attn.{k}": v for k, v in own.items()},
        "decoder": mlp
        | {f"self_attn.{k}": v for k, v in own.items()}
        | {f"cross_attn.{k}": v for k, v in cross.items()},
    }
    norms = {
        "encoder": {"norm1": dim, "norm2": dim, "attn.q_norm": head, "attn.k_norm": head},
        "decoder": dict.fromkeys(("norm1", "norm2", "query_norm", "context_norm"), dim)
        | {f"{kind}_attn.{qk}_norm": head for kind in ("self", "cross") for qk in "qk"},
    }
    for side in ("encoder", "decoder"):
        for i in range(config[f"{side}_depth"]):
            yield from ((f"{side}.{i}.{name}", shape) for name, shape in linear[side].items())
            for name, width in norms[side].items():
                yield from ((f"{side}.{i}.{name}.{part}", (width,)) for part in ("weight", "bias"))
        yield from ((f"{side}_norm.{part}", (dim,)) for part in ("weight", "bias"))
    yield "decoder_proj_context.weight", (dim, dim)
    yield "decoder_proj_context.bias", (dim,)
    yield "mask_token", (1, 1, dim)


def tensors(config):
    """Makes every tensor of a repository, those of tied pairs by both names."""
    dim, shared = config["dim"], config.get("share_modality_embeddings", True)
    for name, shape in blocks(config):
        if "norm" in name:
            weight, bias = name.endswith("weight"), config["norm_bias"]
            yield name, number(name, shape, 0.2 * (weight or bias)) + np.float32(weight)
        else:
            yield name, number(name, shape, shape[-1] ** -0.5 if len(shape) == 2 else 0.5)
    for side, domains in (("encoder", config["domains_in"]), ("decoder", config["domains_out"])):
        for domain in domains:
            prefix = f"{side}_embeddings.{domain}"
            size = SIZES.get(domain, 1024)
            yield f"{prefix}.token_emb.weight", number(f"{prefix}.token_emb", (size, dim), 0.5)
            yield f"{prefix}.mod_emb", number(f"{domain}.mod_emb" if shared else prefix, (1, 1, dim), 0.5)
            yield f"{prefix}.pos_emb", table(domain, dim)
            if side == "decoder":
                yield f"{prefix}.to_logits.weight", number(f"{prefix}.to_logits", (size, dim), 0.5)


def build(folder, variant="tied", **changes):
    """Writes a repository without tokenizers and returns its folder."""
    config = CONFIG | VARIANTS[variant] | changes
    state, dropped = dict(tensors(config)), {}
    if config.get("share_modality_embeddings", True):
        for domain in sorted({*config["domains_in"]} & {*config["domains_out"]}):
            first, second = (f"{side}_embeddings.{domain}.mod_emb" for side in ("decoder", "encoder"))
            dropped[second] = first
            del state[second]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata=dropped)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    return folder


def inputs(config):
    """Makes token ids of two objects by domain, and which of them are masked: some of the catalogue's of the second."""
    generator = np.random.default_rng(7)
    ids = {k: generator.integers(0, min(SIZES.get(k, 1024), 1024), (2, n)) for k, n in TOKENS.items()}
    ids["catalog"] += 204
    masked = {k: np.zeros((2, n), dtype=bool) for k, n in TOKENS.items()}
    masked["catalog"][1, [3, 4, 11]] = True
    keys = [k for k in TOKENS if k in config["domains_in"]]
    return {k: ids[k] for k in keys}, {k: masked[k] for k in keys}


def compute(folder, config):
    """Runs the published package on a repository."""
    import torch

    from aion import AION, modalities

    model = AION.from_pretrained(folder, strict=True).eval()
    raw = []
    model.encoder_norm.register_forward_hook(lambda _module, _given, output: raw.append(output))
    ids, masked = ({k: torch.from_numpy(v) for k, v in part.items()} for part in inputs(config))
    total, out = sum(v.shape[1] for v in ids.values()), {}
    with torch.no_grad():
        out["context"] = model.encode(ids, masked, num_encoder_tokens=total)
        out["encoder"] = raw[0][:, ::STRIDE]
        classes = {c.token_key: c for c in vars(modalities).values() if hasattr(c, "num_tokens") and c.token_key}
        for asked in (["tok_z"], ["tok_z", "tok_flux_g", "tok_flux_r"], ["tok_xp_bp", "tok_z"], ["tok_image"]):
            if not {*asked} <= {*config["domains_out"]}:
                continue
            # Of the published model itself, and with queries that see all of their own modality.
            given = {k: v for k, v in ids.items() if k not in asked and k != "catalog"}
            name = "+".join(asked)
            for key, logits in model(given, [classes[k] for k in asked]).items():
                out[f"parity/{name}/{key}"] = logits[:, ::STRIDE, ::EVERY]
            if len(asked) > 1:
                continue
            count = sum(v.shape[1] for v in given.values())
            tokens, emb, mask, _ = model.embed_inputs(given, num_encoder_tokens=count)
            size = TOKENS[name]
            targets = model.embed_targets({name: torch.zeros(2, size, dtype=torch.bool)}, size)
            hidden = model._decode(model._encode(tokens, emb, mask), mask, targets[0], targets[1], targets[4] & False)
            out[f"full/{name}/{name}"] = model.decoder_embeddings[name].to_logits(hidden)[:, ::STRIDE, ::EVERY]
        if {*GIVEN} <= {*config["domains_in"]}:
            out |= {f"guided/{scale}": guided(model, ids, scale) for scale in (1.0, 2.5)}
    return {k: v.contiguous().numpy() for k, v in out.items()}


def guided(model, ids, scale):
    """Runs the published generation in one step, without temperature: the most probable ids under guidance."""
    import torch

    from aion.fourm import generate
    from aion.fourm.modality_info import MODALITY_INFO

    state = {key: {"tensor": ids[key].clone()} for key in GIVEN}
    for key in GIVEN:
        state = generate.init_full_input_modality(state, MODALITY_INFO, key, "cpu")
    state = generate.init_empty_target_modality(state, MODALITY_INFO, "tok_xp_bp", 2, TOKENS["tok_xp_bp"], "cpu")
    steps = generate.build_chained_generation_schedules(
        cond_domains=GIVEN,
        target_domains=["tok_xp_bp"],
        tokens_per_target=[TOKENS["tok_xp_bp"]],
        autoregression_schemes=["roar"],
        decoding_steps=[1],
        token_decoding_schedules=["linear"],
        temps=[0.0],
        temp_schedules=["constant"],
        cfg_scales=[scale],
        cfg_schedules=["constant"],
    )
    found = generate.GenerationSampler(model).generate(state, steps, top_k=0.0, top_p=0.0, seed=0)
    return found["tok_xp_bp"]["tensor"].to(torch.int16)


def main():
    import importlib.metadata

    found = {}
    for variant in VARIANTS:
        with tempfile.TemporaryDirectory() as folder:
            repository = build(Path(folder) / variant, variant)
            config = json.loads((repository / "config.json").read_text())
            found |= {f"{variant}/{k}": v for k, v in compute(repository, config).items()}
    FIXTURES.mkdir(parents=True, exist_ok=True)
    made = {k: importlib.metadata.version(k) for k in ("polymathic-aion", "torch", "numpy")}
    path = FIXTURES / "model.safetensors"
    save_file(found, path, metadata=made | {"python": sys.version.split()[0]})
    path.chmod(0o644)
    print(f"{path}: {len(found)} arrays, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
