"""What `bench_official.py` runs in the environment of the published package: `bench_official_worker.py TASK JSON`.

Prints one line of JSON. Nothing of ours is imported here: both packages have the import name `aion`.
"""

import json
import resource
import sys
import time

from pathlib import Path

import torch

from safetensors.torch import load_file, save_file

DES, HSC = [f"DES-{band}" for band in "GRIZ"], [f"HSC-{band}" for band in "GRIZY"]
IMAGE = {"quantizer_levels": [7, 5, 5, 5, 5]}
SPECTRUM = {"encoder_dims": (96, 192, 384, 512), "latent_channels": 512, "embedding_dim": 10}
SPECTRUM |= {"decoder_dims": (384, 192, 96, 2)}
TINY_IMAGE = {**IMAGE, "hidden_dims": 16, "multisurvey_projection_dims": 12, "num_consecutive": 1}
TINY_SPECTRUM = {"encoder_depths": (1,) * 4, "encoder_dims": (8, 8, 8, 16), "decoder_depths": (1,) * 4}
TINY_SPECTRUM |= {"decoder_dims": (8, 8, 8, 2), "latent_channels": 16, "embedding_dim": 10}


def timed(function, runs):
    """Returns the median time in seconds of `runs` calls after one more."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


def peak():
    """Returns the peak memory of the process in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def redraw(module, seed=0):
    """Draws every parameter anew, so that signals neither die nor grow and norms do something."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim < 2 or "grn" in name:
                parameter.normal_(std=0.1, generator=generator)
                parameter.add_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif "emb" in name or (parameter.ndim == 3 and parameter.shape[0] == 1):
                parameter.normal_(std=0.5, generator=generator)
            else:
                parameter.normal_(std=parameter[0].numel() ** -0.5, generator=generator)
    return module


def centre(layer, run, scale):
    """Makes the outputs of the last layer before the quantiser vary about 0.

    By medians: places beyond the data have values far from all others, beside which the rest would hardly vary.
    """
    seen = []
    hook = layer.register_forward_hook(lambda _module, _given, output: seen.append(output))
    run()
    hook.remove()
    with torch.no_grad():
        value = seen[0].movedim(1, -1).flatten(0, -2)
        middle = value.median(0).values
        factor = scale / (1.4826 * (value - middle).abs().median(0).values)
        layer.weight.mul_(factor.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        layer.bias.sub_(middle).mul_(factor)


def make(folder, config, tokenizers, tiny=False, inputs=None):
    """Writes a repository with random weights: `config` of the transformer, and the tokenizers if asked for."""
    from aion import AION

    model = redraw(AION(config))
    model.save_pretrained(folder)
    if tokenizers:
        codecs(Path(folder), tiny, load_file(inputs))
    return {"parameters": sum(p.numel() for p in model.parameters())}


@torch.no_grad()
def codecs(folder, tiny, data):
    from aion.codecs import CatalogCodec, ImageCodec, ScalarFieldCodec, SpectrumCodec
    from aion.codecs.config import MODALITY_CODEC_MAPPING

    from aion import modalities

    image = redraw(ImageCodec(**(TINY_IMAGE if tiny else IMAGE)).eval())
    centre(image.pre_quant_proj, lambda: image.encode(observation("legacysurvey_image", data)), 1.0)
    image.save_pretrained(folder, modality=modalities.LegacySurveyImage)
    spectrum = redraw(SpectrumCodec(**(TINY_SPECTRUM if tiny else SPECTRUM)).eval())
    centre(spectrum.quant_conv, lambda: spectrum.encode(observation("desi_spectrum", data)), 1.0)
    spectrum.save_pretrained(folder, modality=modalities.DESISpectrum)
    field = redraw(ScalarFieldCodec(16 if tiny else 512, embedding_dim=4).eval())
    centre(field.encode_proj, lambda: field.encode(observation("legacysurvey_segmentation_map", data)), 1.0)
    field.save_pretrained(folder, modality=modalities.LegacySurveySegmentationMap)
    generator = torch.Generator().manual_seed(1)
    for cls, kind in MODALITY_CODEC_MAPPING.items():
        size = {"modality": cls.name, "codebook_size": 1024, "reservoir_size": 2000}
        if kind.__name__ == "ScalarCodec":
            codec, sample = kind(**size), torch.randn(2000, generator=generator) * 3
        elif kind.__name__ == "LogScalarCodec":
            codec, sample = kind(**size, min_log_value=-3), torch.randn(2000, generator=generator) * 20
        elif kind.__name__ == "MultiScalarCodec":
            functions = {"compression_fns": ["arcsinh"], "decompression_fns": ["sinh"]}
            codec, sample = kind(**size, **functions, num_quantizers=55), torch.randn(2000, 55, generator=generator)
        elif kind.__name__ == "GridScalarCodec":
            codec, sample = kind(modality=cls.name, codebook_size=1024), None
        else:
            continue
        if sample is not None:
            codec.quantizer(sample)
        codec.save_pretrained(folder, modality=cls)
    catalog = CatalogCodec()
    for name in ("SHAPE_E1", "SHAPE_E2", "SHAPE_R"):
        table = torch.randn(1024, generator=generator).sort().values
        catalog.quantizer.quantizers[name]._index_to_val.copy_(table)
    catalog.save_pretrained(folder, modality=modalities.LegacySurveyCatalog)


def observation(name, data):
    """Makes an observation of the published package; images of HSC are in its own unit."""
    from aion import modalities as m

    part = {key.partition(".")[2]: value.clone() for key, value in data.items() if key.startswith(f"{name}.")}
    if name.endswith("_image"):
        cls, bands = (m.HSCImage, HSC) if name.startswith("hsc") else (m.LegacySurveyImage, DES)
        return cls(flux=part["flux"], bands=bands)
    if name.endswith("_spectrum"):
        cls = m.DESISpectrum if name.startswith("desi") else m.SDSSSpectrum
        return cls(**part, mask=part["ivar"] == 0)
    if name == "legacysurvey_segmentation_map":
        return m.LegacySurveySegmentationMap(field=part["value"])
    if name == "legacysurvey_catalog":
        return m.LegacySurveyCatalog(*part["pixels"].long(), *part["shapes"])
    key = data[f"{name}.key"].numpy().tobytes().decode()
    return {cls.token_key: cls for cls in m.ScalarModalities.values()}[key](value=part["value"])


def codec_of(folder, cls):
    """Builds the codec of a modality from its folder."""
    from aion.codecs.config import MODALITY_CODEC_MAPPING

    path = Path(folder) / "codecs" / cls.name
    config = json.loads((path / "config.json").read_text())
    codec = MODALITY_CODEC_MAPPING[cls](**config).eval()
    codec.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    return codec


def tokens(folder, inputs, out):
    """Encodes every modality."""
    data, found = load_file(inputs), {}
    with torch.no_grad():
        for name in sorted({key.partition(".")[0] for key in data}):
            given = observation(name, data)
            found[name] = codec_of(folder, type(given)).encode(given).long()
    save_file({key: value.contiguous() for key, value in found.items()}, out)
    return {"modalities": len(found)}


def outputs(folder, inputs, out):
    """Computes contexts and logits."""
    from aion import AION, modalities

    model, ids = AION.from_pretrained(folder).eval(), load_file(inputs)
    classes = {c.token_key: c for c in vars(modalities).values() if hasattr(c, "num_tokens") and c.token_key}
    found = {}
    with torch.no_grad():
        found["context"] = model.encode(ids, num_encoder_tokens=sum(v.shape[1] for v in ids.values()))
        for keys in (["tok_z"], ["tok_z", "tok_flux_g"], ["tok_spectrum_desi"]):
            given = {key: value for key, value in ids.items() if key not in keys}
            for key, value in model(given, [classes[k] for k in keys]).items():
                found[f"{'+'.join(keys)}.{key}"] = value
    save_file({key: value.contiguous() for key, value in found.items()}, out)
    return {}


def embed(folder, batch, tokens, runs, dtype, threads, out):
    """Times the embedding of images of 576 tokens."""
    from aion import AION

    torch.set_num_threads(threads)
    model = AION.from_pretrained(folder).eval().to(getattr(torch, dtype))
    ids = {"tok_image": torch.randint(0, 4375, (batch, tokens), generator=torch.Generator().manual_seed(0))}
    with torch.no_grad():
        found = model.encode(ids, num_encoder_tokens=tokens).float().mean(1)
        seconds = timed(lambda: model.encode(ids, num_encoder_tokens=tokens).mean(1), runs)
    save_file({"embedding": found}, out)
    return {"seconds": seconds, "tokens_per_second": batch * tokens / seconds, "peak": peak()}


def tokenize(folder, inputs, name, runs, dtype, threads, out):
    """Times the tokenizer of a modality."""
    torch.set_num_threads(threads)
    given = observation(name, load_file(inputs))
    codec = codec_of(folder, type(given)).to(getattr(torch, dtype))
    for key, value in vars(given).items():
        if torch.is_tensor(value) and value.is_floating_point():
            setattr(given, key, value.to(getattr(torch, dtype)))
    with torch.no_grad():
        seconds = timed(lambda: codec.encode(given), runs)
    return {"seconds": seconds, "peak": peak()}


def load(folder, threads):
    """Times loading until every weight was read."""
    from aion import AION

    torch.set_num_threads(threads)
    before, start = peak(), time.perf_counter()
    model = AION.from_pretrained(folder)
    seconds = time.perf_counter() - start
    total = sum(p.detach().sum().item() for p in model.parameters())
    size = (Path(folder) / "model.safetensors").stat().st_size
    touched = time.perf_counter() - start
    return {"seconds": seconds, "touched": touched, "memory": (peak() - before) / size, "total": total}


if __name__ == "__main__":
    TASKS = {f.__name__: f for f in (make, tokens, outputs, embed, tokenize, load)}
    print(json.dumps(TASKS[sys.argv[1]](**json.loads(sys.argv[2]))))
