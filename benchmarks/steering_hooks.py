"""What steering adds to the time and memory of a forward pass; a verb of `steering.py`."""

__all__ = ["hooks"]

import argparse
import contextlib
import resource
import statistics
import time

import torch

from aion import AION
from aion.physics.systems import simulate
from aion.physics.walrus import Walrus
from aion.sky import Sky
from aion.steering import Direction, capture, fingerprint


def hooks(arguments: argparse.Namespace) -> None:
    """Compares the processor time of forward passes, in turn, so that other work on the machine slows them alike."""
    if arguments.model:
        model = Walrus.from_pretrained(arguments.model)
        window = simulate("shear", 8, frames=model.context)
        layer, layers, forward = "blocks.0", "blocks.*", lambda: model(window)
        channels, layout = model.config["dim"], "BTHWDC"
    else:
        model = AION.from_pretrained("aion-nano")
        sky = Sky(modalities=("desi_spectrum",), complete=True, varied=False)
        sequence = model.tokenize(sky.observe(range(16)))
        layer, layers, forward = "transformer.encoder.0", "transformer.encoder.*", lambda: model.embed_tokens(sequence)
        channels, layout = model.transformer.dim, "BNC"
    direction = Direction(torch.ones(channels), layer, layout, fingerprint(model))
    contexts = {
        "plain": contextlib.nullcontext,
        "add": lambda: direction.applied(model, 0.2),
        "ablate": lambda: direction.applied(model, 0.2, "ablate"),
        "capture of all blocks": lambda: capture(model, layers),
    }
    seconds = {name: [] for name in contexts}
    with torch.no_grad():
        for _ in range(arguments.repeats):
            for name, context in contexts.items():
                with context():
                    begun = time.process_time()
                    forward()
                    seconds[name].append(time.process_time() - begun)
    plain = statistics.median(seconds["plain"])
    for name, values in seconds.items():
        middle, least = statistics.median(values), min(values)
        ratios = statistics.median(value / base for value, base in zip(values, seconds["plain"], strict=True))
        print(f"{name:24s} median {1e3 * middle:8.2f} ms  least {1e3 * least:8.2f} ms  {100 * (ratios - 1):+.1f} %")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.no_grad(), capture(model, layers):
        for _ in range(arguments.windows):
            forward()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(f"capture of {arguments.windows} batches at {plain:.3f} s: peak memory grew by {grown:.1f} MiB")
