"""Building blocks: attention, transformer blocks, position embedding, convolutions and quantisation."""

__all__ = ["activation", "attention", "block", "context", "convolution", "embedding", "quantize"]
