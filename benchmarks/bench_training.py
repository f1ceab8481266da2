"""Measures a training step of the transformer of a recipe against the rate of matrix products on the same machine.

    python benchmarks/bench_training.py                       # benchmarks/recipes/nano.toml, on the CPU
    python benchmarks/bench_training.py --recipe benchmarks/recipes/base.toml --device cuda

Model FLOPs are those of matrix products and attention, forward and backward, by PyTorch's counter, which is taught the
attention of a CPU: twice as many backward as forward. Padding counts, and has a line of its own. Utilisation is their
number, over the time of a step, over the rate of products of two square matrices, the median of turns in which both
alternate. Batches are made beforehand: what making one takes is another line. With one thread on a CPU times are those
that the process had, so that others on the machine matter less.
"""

import argparse
import json
import statistics
import sys
import time

from pathlib import Path

import torch

from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from aion.device import fast_dtype
from aion.masking import BudgetMasking
from aion.model import AION
from aion.recipes import load
from aion.recipes.bundle import FIT
from aion.sky import Sky
from aion.tokenizers import build, store
from aion.training.optimizer import Optimizer
from aion.training.parallel import Prepared

ROOT = Path(__file__).resolve().parents[1]
MATRIX = {"cpu": 2048, "cuda": 8192}
ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda grad, q, k, v, *_, **__: 2 * sdpa_flop_count(q, k, v)
    ),
}


def assemble(recipe: dict, device: str) -> AION:
    """Makes the untrained model of a recipe, what must be fitted to a few objects."""
    tokenizers = {
        name: store.load(config["stored"])
        if "stored" in config
        else build({key: value for key, value in config.items() if key not in FIT})
        for name, config in recipe["tokenizers"].items()
    }
    first = {tokenizer: modality for modality, tokenizer in reversed(recipe["modalities"].items())}
    wanted = [name for name, t in tokenizers.items() if "kind" in recipe["tokenizers"][name] and hasattr(t, "fit")]
    seen = Sky(modalities=[first[name] for name in wanted], complete=True).observe(range(256))
    for name in wanted:
        sample, options = seen[first[name]], {}
        if "spacing" in recipe["tokenizers"][name]:
            options["spacing"] = recipe["tokenizers"][name]["spacing"]
        tokenizers[name].fit(sample[sample.measured.reshape(len(sample), -1).any(1)], **options)
    return AION(tokenizers, recipe["modalities"], recipe["transformer"]).to(device)


def clock(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def rate(device: str, dtype: torch.dtype) -> float:
    """Measures the rate of the products of square matrices, in FLOP/s."""
    size = MATRIX[device]
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    count = 2 if device == "cpu" else 20
    began = clock(device)
    for _ in range(count):
        a @ b
    return count * 2 * size**3 / (clock(device) - began)


def measure(path: Path, device: str, batch: int | None, turns: int, precision: str) -> dict:
    recipe = load(path)
    settings = {**recipe["training"].get("default", {}), **recipe["training"]["transformer"]}
    batch = batch or settings["batch"]
    model = assemble(recipe, device)
    sky = Sky(**{**recipe["sky"], "modalities": list(model.modalities), "device": device})
    masking = BudgetMasking(model.vocabulary, **recipe.get("masking", {}))
    batches, began = [], clock(device)
    for number in range(turns):
        sequence = model.tokenize(sky.observe(torch.arange(number * batch, (number + 1) * batch)))
        batches.append(masking(sequence, torch.Generator().manual_seed(number)))
    making = (clock(device) - began) / turns
    transformer = model.transformer.train()
    dtype = fast_dtype(torch.device(device)) if precision == "auto" else getattr(torch, precision)
    steps, rates, flops, parts = [], [], [], []
    with Prepared(transformer, precision=precision) as prepared:
        optimizer = Optimizer(transformer, weight_decay=0.05)

        def step(data: tuple) -> list[float]:
            times = [clock(device)]
            transformer.zero_grad(set_to_none=True)
            prepared.backward(data, torch.Generator(), 1.0, last=True)
            times.append(clock(device))
            torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
            optimizer.step(1e-4)
            times.append(clock(device))
            return times

        step(batches[0])
        rate(device, dtype)
        for data in batches:
            with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
                prepared.backward(data, torch.Generator(), 1.0, last=True)
            flops.append(counter.get_total_flops())
            rates.append(rate(device, dtype))
            times = step(data)
            steps.append(times[2] - times[0])
            parts.append(times[2] - times[1])
    use = [work / took / best for work, took, best in zip(flops, steps, rates, strict=True)]
    tokens = statistics.mean(float(visible.valid.sum() + target.valid.sum()) for visible, target in batches)
    slots = statistics.mean(visible.valid.numel() + target.valid.numel() for visible, target in batches)
    return {
        "recipe": path.stem,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {torch.get_num_threads()} threads",
        "dtype": str(dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in transformer.parameters()),
        "batch": batch,
        "tokens a step": round(tokens),
        "share of padding": round(1 - tokens / slots, 3),
        "GFLOP a step": round(statistics.median(flops) / 1e9, 1),
        "ms a step": round(1e3 * statistics.median(steps), 1),
        "ms of it optimiser and clipping": round(1e3 * statistics.median(parts), 1),
        "ms to make a batch": round(1e3 * making, 1),
        "GFLOP/s of matrix products": round(statistics.median(rates) / 1e9, 1),
        "utilisation": round(statistics.median(use), 3),
        "torch": torch.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=ROOT / "benchmarks" / "recipes" / "nano.toml")
    parser.add_argument("--device", default="cpu", choices=list(MATRIX))
    parser.add_argument("--batch", type=int, help="objects of a batch, if not those of the recipe")
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    figures = measure(given.recipe, given.device, given.batch, given.turns, given.precision)
    for name, value in figures.items():
        print(f"{name:32} {value}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=2) + "\n")
    else:
        json.dump(figures, sys.stdout)
        print()


if __name__ == "__main__":
    main()
