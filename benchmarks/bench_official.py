"""Compares published AION-1 checkpoints in this package with the published package: the same numbers, and how fast.

    python benchmarks/bench_official.py --work /tmp/bench            # makes the second environment and random weights
    python benchmarks/bench_official.py --work /tmp/bench --tiny     # a trial of the script, of no meaning otherwise

Both packages have the import name `aion` and cannot share an environment: a second one is made under `--work`, or
`--python` names the interpreter of one that is there. Weights are random in the configurations of the released models,
so that nothing is downloaded but packages. Every measurement is a process of its own; both packages take turns, and
times and ratios are medians over them.
"""

import argparse
import json
import os
import subprocess
import sys
import time

from pathlib import Path

import torch

from bench_official_worker import peak, timed
from safetensors.torch import load_file, save_file

HERE = Path(__file__).resolve()
ROOT = HERE.parents[1]
PACKAGES = (f"torch=={torch.__version__.split('+')[0]}", "polymathic-aion==0.0.2")
SHAPES = {  # width, heads, blocks; the largest with fewer blocks than released
    "base": (768, 12, 12),
    "large": (1024, 16, 24),
    "xlarge": (2048, 32, 2),
    "tiny": (32, 2, 2),
}
BATCH, TOKENS, MATRIX = 8, 576, 2048
SIDES, KINDS = ("theirs", "ours"), ("float32", "bfloat16")


# ---- tasks of this package, each in a process of its own


def query(model, name, count):
    from aion.official.names import PUBLISHED
    from aion.tokens import TokenSequence

    position = torch.cartesian_prod(*(torch.arange(n) for n in PUBLISHED[name].grid)).float().expand(count, -1, -1)
    modality = torch.full(position.shape[:2], model.vocabulary.index(name))
    return TokenSequence(torch.zeros_like(modality), modality, position, torch.ones_like(modality, dtype=torch.bool))


def pack(model, ids):
    from aion.official.names import name_of
    from aion.tokens import Tokens

    parts = {}
    for key, value in ids.items():
        place = query(model, name_of(key), len(value))
        parts[name_of(key)] = Tokens(value, place.position, place.valid)
    return model.vocabulary.pack(parts)


def outputs(folder, inputs, expected):
    """Compares contexts and logits: the largest difference over the largest value, of each."""
    from aion.official.checkpoint import read_transformer
    from aion.official.names import name_of
    from aion.tokens import TokenSequence

    model, ids, expected = read_transformer(Path(folder), parity=True)[0].eval(), load_file(inputs), load_file(expected)
    worst = {}

    def compare(name, value):
        worst[name] = ((value - expected[name]).abs().max() / expected[name].abs().max()).item()

    with torch.no_grad():
        sequence = pack(model, ids)
        context = model.encode(sequence)
        order = [sequence.modality[0] == model.vocabulary.index(name_of(key)) for key in load_order(ids)]
        compare("context", torch.cat([context[:, chosen] for chosen in order], dim=1))
        for keys in (["tok_z"], ["tok_z", "tok_flux_g"], ["tok_spectrum_desi"]):
            visible = pack(model, {key: value for key, value in ids.items() if key not in keys})
            parts = [query(model, name_of(key), len(visible)) for key in keys]
            wanted = TokenSequence(**{k: torch.cat([getattr(p, k) for p in parts], 1) for k in vars(parts[0])})
            hidden = model.decode(model.encode(visible), visible, wanted)
            for key in keys:
                chosen = wanted.modality[0] == model.vocabulary.index(name_of(key))
                compare(f"{'+'.join(keys)}.{key}", model.logits(hidden[:, chosen], name_of(key)))
    return worst


def load_order(ids):
    """Returns the keys in the order in which safetensors gives them, which is that of the published context."""
    return list(ids)


def observation(name, data):
    from aion import Catalog, Field, Image, Scalar, Spectrum
    from aion.observations import BAND_ALIASES
    from aion.official.image import HSC_ZERO_POINT

    part = {key.partition(".")[2]: value for key, value in data.items() if key.startswith(f"{name}.")}
    if name.endswith("_image"):
        bands = [ours for theirs, ours in BAND_ALIASES.items() if theirs.startswith("HSC") == name.startswith("hsc")]
        flux = part["flux"] / (HSC_ZERO_POINT if name.startswith("hsc") else 1.0)
        return Image(flux, torch.ones_like(flux), bands)
    if name.endswith("_spectrum"):
        return Spectrum(**part)
    if name == "legacysurvey_segmentation_map":
        return Field(part["value"])
    if name == "legacysurvey_catalog":
        return Catalog(*(part["pixels"] - 48) * 0.262, *part["shapes"])
    return Scalar(part["value"])


def tokens(folder, inputs, expected):
    """Compares the tokens of every modality: the share that is the same."""
    from aion.official.codecs import read_codecs

    data, expected = load_file(inputs), load_file(expected)
    codecs = read_codecs(folder, sorted(expected), parity=True)
    same = {}
    for name, wanted in expected.items():
        ids = codecs[name].encode(observation(name, data)).ids
        offset = 204 if name == "legacysurvey_catalog" else 0
        same[name] = (ids - offset == wanted.reshape(ids.shape)).double().mean().item()
    return same


def embed(folder, batch, tokens, runs, dtype, threads, out):
    """Times the embedding of images of 576 tokens, and matrix products for comparison."""
    from aion.official.checkpoint import read_transformer

    torch.set_num_threads(threads)
    kind = getattr(torch, dtype)
    model = read_transformer(Path(folder))[0].eval().to(kind)
    ids = {"tok_image": torch.randint(0, 4375, (batch, tokens), generator=torch.Generator().manual_seed(0))}
    sequence = pack(model, ids)
    one, other = torch.randn(2, MATRIX, MATRIX, generator=torch.Generator().manual_seed(0)).to(kind)
    with torch.no_grad():
        found = model.encode(sequence).float().mean(1)
        seconds = timed(lambda: model.encode(sequence).mean(1), runs)
        product = timed(lambda: one @ other, runs)
    save_file({"embedding": found}, out)
    rate = work(model) * batch * tokens / seconds
    return {
        "seconds": seconds,
        "tokens_per_second": batch * tokens / seconds,
        "peak": peak(),
        "rate": rate,
        "share": rate / (2 * MATRIX**3 / product),
    }


def work(model, tokens=TOKENS):
    """Counts the floating-point operations of the encoder for one token among `tokens`."""
    linear = sum(p.numel() for p in model.encoder.parameters() if p.ndim == 2)
    linear += model.decoder_proj_context.weight.numel()
    return 2 * linear + 4 * tokens * model.dim * len(model.encoder)


def tokenize(folder, inputs, name, runs, dtype, threads, out):
    """Times the tokenizer of a modality."""
    from aion.official.codecs import read_codecs

    torch.set_num_threads(threads)
    codec = read_codecs(folder, [name], parity=True)[name]
    given = observation(name, load_file(inputs))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        ids = codec.encode(given).ids
        seconds = timed(lambda: codec.encode(given), runs)
    save_file({"ids": ids}, out)
    return {"seconds": seconds, "peak": peak()}


def load(folder, threads):
    """Times loading until every weight was read."""
    from aion.official.checkpoint import read_transformer

    torch.set_num_threads(threads)
    before, start = peak(), time.perf_counter()
    model, _ = read_transformer(Path(folder))
    seconds = time.perf_counter() - start
    total = sum(p.detach().sum().item() for p in model.parameters())
    size = (Path(folder) / "model.safetensors").stat().st_size
    return {
        "seconds": seconds,
        "touched": time.perf_counter() - start,
        "memory": (peak() - before) / size,
        "total": total,
    }


def cuda(folder, batch, tokens, runs, out):
    """Times the embedding in bfloat16 on a CUDA device against its rate of matrix products."""
    from aion.official.checkpoint import read_transformer

    model = read_transformer(Path(folder))[0].eval().to("cuda", torch.bfloat16)
    ids = {"tok_image": torch.randint(0, 4375, (batch, tokens), generator=torch.Generator().manual_seed(0))}
    sequence = pack(model, ids).to("cuda")
    one, other = torch.randn(2, 8192, 8192, device="cuda").bfloat16()

    def wait(function):
        function()
        torch.cuda.synchronize()

    with torch.no_grad():
        seconds = timed(lambda: wait(lambda: model.encode(sequence).mean(1)), runs)
        product = timed(lambda: wait(lambda: one @ other), runs)
    rate = work(model) * batch * tokens / seconds
    return {"tokens_per_second": batch * tokens / seconds, "share": rate / (2 * 8192**3 / product)}


# ---- what drives them


def run(python, script, task, **arguments):
    """Runs a task in a process of its own and returns what it says."""
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "PYTHONHOME"}}
    environment |= {"HF_HUB_OFFLINE": "1"} | ({"PYTHONPATH": str(ROOT)} if script == HERE else {})
    command = [str(python), str(script), task, json.dumps(arguments, default=str)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=arguments.get("folder", "/"))
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        msg = f"{script.name} {task} failed"
        raise SystemExit(msg)
    return json.loads(done.stdout.splitlines()[-1])


def environment(work):
    """Makes the environment of the published package and returns its interpreter, or None with a message."""
    python = work / "venv" / "bin" / "python"
    if (work / "venv" / "ready").exists():
        return python
    try:
        subprocess.run([sys.executable, "-m", "venv", work / "venv"], check=True, capture_output=True, text=True)
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = (getattr(error, "stderr", "") or str(error)).strip().splitlines()[-1:]
        print(f"skipped: no environment with {' and '.join(PACKAGES)} could be made: {' '.join(reason)}")
        return None
    (work / "venv" / "ready").touch()
    return python


def config(size):
    from aion.official.names import PUBLISHED

    dim, heads, depth = SHAPES[size]
    domains = sorted(published.key for published in PUBLISHED.values())
    return {
        "act_layer": "SiLU", "decoder_depth": depth, "dim": dim, "domains_in": domains, "domains_out": domains,
        "encoder_depth": depth, "gated_mlp": True, "mlp_bias": False, "mlp_ratio": 4.0, "norm_bias": False,
        "num_heads": heads, "proj_bias": False, "qk_norm": True, "qkv_bias": False,
    }  # fmt: skip


def make_inputs(work):
    """Writes observations of every modality, and token ids."""
    from aion.official.names import PUBLISHED

    draws = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=draws)

    wavelength = torch.linspace(3600, 9824, 7781).expand(BATCH, -1)
    ivar = torch.rand(BATCH, 7781, generator=draws) * (torch.rand(BATCH, 7781, generator=draws) > 0.05)
    flux = (3 + normal(BATCH, 7781)) * (ivar > 0)
    data = {
        "legacysurvey_image.flux": 0.5 * normal(BATCH, 4, 96, 96),
        "hsc_image.flux": 30 * normal(BATCH, 5, 96, 96),
        "legacysurvey_segmentation_map.value": torch.rand(BATCH, 96, 96, generator=draws),
        "legacysurvey_catalog.pixels": torch.randint(0, 96, (2, BATCH, 10), generator=draws),
        "legacysurvey_catalog.shapes": normal(3, BATCH, 10),
    }
    for survey in ("desi", "sdss"):
        data |= {
            f"{survey}_spectrum.{k}": v.clone() for k, v in (("flux", flux), ("ivar", ivar), ("wavelength", wavelength))
        }
    known = {key.partition(".")[0] for key in data}
    for name, published in PUBLISHED.items():
        if name not in known:
            shape = (BATCH, published.tokens) if published.tokens > 1 else (BATCH,)
            data[f"{name}.value"] = normal(*shape) * (0.2 if name == "redshift" else 3)
            data[f"{name}.key"] = torch.tensor(list(published.key.encode()), dtype=torch.uint8)
    save_file({key: value.contiguous() for key, value in data.items()}, work / "observations.safetensors")
    lengths = {"tok_image": 576, "tok_spectrum_desi": 273, "tok_flux_r": 1, "tok_xp_bp": 55, "tok_z": 1}
    ids = {key: torch.randint(0, 1024, (2, length), generator=draws) for key, length in lengths.items()}
    save_file(ids, work / "ids.safetensors")


def header(*columns):
    print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def parity(theirs, work, sizes):
    """Compares numbers in the mode of parity."""
    print("\n## Parity with random weights, float32")
    header("what", "largest difference over largest value")
    for size in sizes:
        folder, wanted = work / size, work / f"{size}.outputs.safetensors"
        found = run(theirs, WORKER, "outputs", folder=folder, inputs=work / "ids.safetensors", out=wanted)
        found = run(sys.executable, HERE, "outputs", folder=folder, inputs=work / "ids.safetensors", expected=wanted)
        for name, worst in found.items():
            print(f"| {size} {SHAPES[size][2]} + {SHAPES[size][2]} blocks: {name} | {worst:.1e} |")
    paths = {"folder": work / sizes[0], "inputs": work / "observations.safetensors"}
    wanted = work / "tokens.safetensors"
    run(theirs, WORKER, "tokens", **paths, out=wanted)
    same = run(sys.executable, HERE, "tokens", **paths, expected=wanted)
    worst = {name: share for name, share in same.items() if share < 1}
    print(f"| tokens of {len(same)} modalities | {len(same) - len(worst)} identical |")
    for name, share in worst.items():
        print(f"| tokens of {name} | {100 * share:.3f} % the same |")


def turns(interpreter, task, rounds, **arguments):
    """Runs a task of both packages in turn, so that a machine whose speed drifts is fair to both.

    Each argument names a variant and holds whose it is, `"theirs"` (which the interpreter runs) or `"ours"`, and its
    options. Returns the results of each by name, a list with one of every round.
    """
    found = {name: [] for name in arguments}
    for _ in range(rounds):
        for name, (side, options) in arguments.items():
            python, script = (interpreter, WORKER) if side == "theirs" else (sys.executable, HERE)
            found[name].append(run(python, script, task, **options))
    return found


def middle(values):
    return sorted(values)[len(values) // 2]


def ratio(found, one, other):
    """Returns the median over rounds of how many times as long one took as the other in the same round."""
    return middle([a["seconds"] / b["seconds"] for a, b in zip(found[one], found[other], strict=True)])


def seconds(found, name):
    return middle([result["seconds"] for result in found[name]])


def speed(theirs, work, size, rounds, runs, threads):
    """Compares times."""
    folder = work / size
    print(f"\n## Speed, {threads} threads, batch {BATCH}, medians of {rounds} turns of {runs} runs each")
    header("embedding of images, 576 tokens", "published", "here", "ratio", "tokens/s", "peak memory")
    options = {"folder": folder, "batch": BATCH, "tokens": TOKENS, "runs": runs, "threads": threads}
    outs = {(side, kind): work / f"{side}.{kind}.safetensors" for side in SIDES for kind in KINDS}
    found = turns(theirs, "embed", rounds, **{
        f"{side} {kind}": (side, {**options, "dtype": kind, "out": outs[side, kind]}) for side, kind in outs
    })  # fmt: skip
    for one, other in (("float32", "float32"), ("bfloat16", "bfloat16"), ("float32", "bfloat16")):
        a, b = f"theirs {one}", f"ours {other}"
        peaks = " and ".join(f"{max(r['peak'] for r in found[name]) / 2**30:.1f}" for name in (a, b))
        print(f"| {one}, here {other} | {seconds(found, a):.2f} s | {seconds(found, b):.2f} s ", end="")
        print(f"| {ratio(found, a, b):.2f} | {BATCH * TOKENS / seconds(found, b):,.0f} | {peaks} GiB |")
    for kind in KINDS:
        rate, share = (middle([result[key] for result in found[f"ours {kind}"]]) for key in ("rate", "share"))
        print(f"\n{kind}: {rate / 1e9:,.0f} GFLOP/s, {100 * share:.0f} % of the rate of matrix products.")
    base = load_file(outs["ours", "float32"])["embedding"]
    for side, kind in (("theirs", "float32"), ("ours", "bfloat16")):
        other = load_file(outs[side, kind])["embedding"]
        print(f"Embeddings, {side} in {kind}: {((other - base).norm() / base.norm()).item():.1e} relative L2.")
    tokenizers(theirs, work, folder, rounds, runs, threads)
    loading(theirs, folder, rounds, threads)


def tokenizers(theirs, work, folder, rounds, runs, threads):
    header("tokenization", "published, float32", "float32", "ratio", "bfloat16", "ratio", "the same tokens")
    for name in ("legacysurvey_image", "hsc_image", "desi_spectrum"):
        options = {"folder": folder, "inputs": work / "observations.safetensors", "name": name, "runs": runs}
        options |= {"threads": threads}
        outs = {kind: work / f"{name}.{kind}.safetensors" for kind in KINDS}
        found = turns(
            theirs, "tokenize", rounds,
            theirs=("theirs", {**options, "dtype": "float32", "out": ""}),
            **{kind: ("ours", {**options, "dtype": kind, "out": out}) for kind, out in outs.items()},
        )  # fmt: skip
        one, other = (load_file(out)["ids"] for out in outs.values())
        columns = [f"{seconds(found, 'theirs'):.2f} s"]
        for kind in KINDS:
            columns += [f"{seconds(found, kind):.2f} s", f"{ratio(found, 'theirs', kind):.2f}"]
        print(f"| {name} | {' | '.join(columns)} | {100 * (one == other).double().mean().item():.2f} % |")


def loading(theirs, folder, rounds, threads):
    options = {"folder": folder, "threads": threads}
    found = turns(theirs, "load", rounds, **{side: (side, options) for side in SIDES})
    header("loading", "published", "here", "ratio")
    for key, title in (("seconds", "until it returns"), ("touched", "until every weight was read once")):
        one, other = (middle([result[key] for result in found[side]]) for side in SIDES)
        print(f"| {title} | {one:.2f} s | {other:.2f} s | {one / other:.1f} |")
    one, other = (max(result["memory"] for result in found[side]) for side in SIDES)
    print(f"| peak memory over the size of the weights | {one:.2f} | {other:.2f} | |")
    one, other = imports(theirs, rounds), imports(sys.executable, rounds)
    print(f"| import beyond `import torch` | {one:.2f} s | {other:.2f} s | |")


def imports(python, runs):
    """Returns what `import aion` and its model class take beyond `import torch`, in seconds."""
    code = "import time, torch; s = time.perf_counter(); from aion import AION; print(time.perf_counter() - s)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT) if str(python) == sys.executable else ""}
    times = [
        float(subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, cwd="/").stdout)
        for _ in range(runs)
    ]
    return sorted(times)[runs // 2]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for the environment, weights and results")
    parser.add_argument("--python", type=Path, help="interpreter of an environment that has the published package")
    parser.add_argument("--sizes", nargs="+", default=["base", "large", "xlarge"], choices=sorted(SHAPES))
    parser.add_argument("--rounds", type=int, default=3, help="turns of both packages")
    parser.add_argument("--runs", type=int, default=3, help="timed runs in each turn, after one more")
    parser.add_argument("--no-parity", action="store_true", help="compare times only")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tiny", action="store_true", help="small widths: to try the script")
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    work = arguments.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    theirs = arguments.python or environment(work)
    if theirs is None:
        return
    sizes = ["tiny"] if arguments.tiny else arguments.sizes
    print(f"# Published checkpoints: torch {torch.__version__}, {', '.join(PACKAGES[1:])}, sizes {', '.join(sizes)}")
    make_inputs(work)
    for size in sizes:
        if not (work / size / "ready").exists():
            options = {"tokenizers": size == sizes[0], "tiny": arguments.tiny}
            inputs = work / "observations.safetensors"
            (work / size).mkdir(exist_ok=True)
            run(theirs, WORKER, "make", folder=work / size, config=config(size), inputs=inputs, **options)
            (work / size / "ready").touch()
    if not arguments.no_parity:
        parity(theirs, work, sizes)
    speed(theirs, work, sizes[0], arguments.rounds, arguments.runs, arguments.threads)
    if torch.cuda.is_available():
        found = run(sys.executable, HERE, "cuda", folder=work / sizes[0], batch=256, tokens=TOKENS, runs=5, out="")
        print(f"\nCUDA, bfloat16, batch 256: {found['tokens_per_second']:,.0f} tokens/s, {100 * found['share']:.0f} %")


WORKER = HERE.with_name("bench_official_worker.py")
TASKS = {function.__name__: function for function in (outputs, tokens, embed, tokenize, load, cuda)}

if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] in TASKS:
        print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
    else:
        main()
