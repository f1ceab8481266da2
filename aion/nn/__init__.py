"""Building blocks: attention, transformer blocks, position embedding, convolutions and quantisation."""

__all__ = ["attention", "block", "context", "convolution", "embedding", "quantize"]
