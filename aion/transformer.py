r"""The masked-modelling transformer: an encoder of visible tokens, a decoder of queries.

A token enters as the sum of three embeddings: its id, its position (fixed sines and cosines of the physical
coordinate) and its modality. A query is a mask token with a position and a modality. The encoder's output is projected
and gets the position and modality embeddings a second time before the decoder attends to it; that context is also what
`encode` returns. Queries of one modality see each other and the whole context, so what is predicted for one modality
does not depend on which others are asked for.

The options after `weights` are there for checkpoints of others, see `aion.official`.

References:
    | 4M: Massively Multimodal Masked Modeling (Mizrahi et al., 2023), arXiv 2312.06647
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["Transformer"]

import math

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from torch import Tensor, nn

from aion.nn.attention import layer_norm
from aion.nn.block import DecoderBlock, EncoderBlock
from aion.nn.embedding import angles, sine_cosine
from aion.tokens import TokenSequence, Vocabulary


class Transformer(nn.Module):
    """Models the tokens of all modalities of a vocabulary.

    Arguments:
        sizes: number of ids of each modality, by name.
        dim: width D, a multiple of 4 and of `heads`.
        heads: number of attention heads.
        encoder_depth: number of encoder blocks.
        decoder_depth: number of decoder blocks.
        mlp_ratio: see `aion.nn.block.GatedMLP`.
        smoothing: width in ids, by name, over which the target of a modality with ordered ids is spread (a Gaussian).
        weights: weight of a modality in the loss, by name; 1 for those not named.
        rotary: turns the heads of the attention by the positions of tokens too, see `aion.nn.attention`.
        tied: modalities whose ids have the embeddings and the head of another one, by its name: those of one tokenizer.
        norm_bias: gives every norm a bias.
        untied: gives queries modality embeddings of their own instead of those of the tokens.
        mixed: lets a query see the queries of other modalities too.
        uniform: lets a query see all queries of its object and makes it weigh them alike.
        lists: modalities whose tokens have a place in a list, the second coordinate of their position, and no other.
        input_only: modalities that can be given but not asked for.
        output_only: modalities that can be asked for but not given.

    Raises:
        ValueError: for a width that is no multiple of 4 and of `heads` (twice that with `rotary`), a negative depth, a
            width of smoothing that is not positive, a negative weight, tied modalities of different sizes, or an
            unknown modality (with the near misses).
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        dim: int = 768,
        heads: int = 12,
        encoder_depth: int = 12,
        decoder_depth: int = 12,
        mlp_ratio: float = 4.0,
        smoothing: Mapping[str, float] | None = None,
        weights: Mapping[str, float] | None = None,
        rotary: bool = False,
        tied: Mapping[str, str] | None = None,
        norm_bias: bool = False,
        untied: bool = False,
        mixed: bool = False,
        uniform: bool = False,
        lists: Sequence[str] = (),
        input_only: Sequence[str] = (),
        output_only: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.vocabulary = Vocabulary(sizes)
        self.smoothing, self.weights = dict(smoothing or {}), dict(weights or {})
        self.tied = self._check_tied(dict(tied or {}))
        # The rows of embeddings and head: those of the modalities that have their own.
        self.table = Vocabulary({name: size for name, size in self.vocabulary.sizes.items() if name not in self.tied})
        self.lists, self.input_only, self.output_only = sorted(lists), sorted(input_only), sorted(output_only)
        for name in (*self.smoothing, *self.weights, *self.lists, *self.input_only, *self.output_only):
            self.vocabulary.index(name)
        options = {
            "rotary": rotary,
            "tied": self.tied,
            "norm_bias": norm_bias,
            "untied": untied,
            "mixed": mixed,
            "uniform": uniform,
            "lists": self.lists,
            "input_only": self.input_only,
            "output_only": self.output_only,
        }
        self.config = {
            "sizes": self.vocabulary.sizes,
            "dim": dim,
            "heads": heads,
            "encoder_depth": encoder_depth,
            "decoder_depth": decoder_depth,
            "mlp_ratio": mlp_ratio,
            "smoothing": self.smoothing,
            "weights": self.weights,
            # Only what was asked for, so that the hash of a model does not change with every new option.
            **{key: value for key, value in options.items() if value},
        }
        self._check_shape()
        self.dim, self.mixed, self.uniform = dim, mixed, uniform
        self.pairs = dim // heads // 2 if rotary else 0
        self.token_embedding = _embedding(len(self.table), dim)
        self.modality_embedding = _embedding(len(self.vocabulary.names), dim)
        self.query_modality_embedding = _embedding(len(self.vocabulary.names), dim) if untied else None
        self.mask_token = nn.Parameter(torch.empty(dim))
        self.encoder = nn.ModuleList(EncoderBlock(dim, heads, mlp_ratio, norm_bias) for _ in range(encoder_depth))
        self.encoder_norm = layer_norm(dim, norm_bias)
        self.decoder_proj_context = nn.Linear(dim, dim)
        self.decoder = nn.ModuleList(DecoderBlock(dim, heads, mlp_ratio, norm_bias) for _ in range(decoder_depth))
        self.decoder_norm = layer_norm(dim, norm_bias)
        self.head = nn.Parameter(torch.empty(len(self.table), dim))
        if not self.head.is_meta:  # where the first normal draw loads a symbolic algebra, which takes seconds
            self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws new parameters: N(0, 0.02) for embeddings, Xavier for linear layers."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                # fused projections are drawn as the separate ones they stand for
                parts = {"qkv": 3, "kv": 2}.get(name.rpartition(".")[2], 1)
                bound = math.sqrt(6 / (module.in_features + module.out_features / parts))
                nn.init.uniform_(module.weight, -bound, bound, generator=generator)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02, generator=generator)
        nn.init.normal_(self.mask_token, std=0.02, generator=generator)
        nn.init.normal_(self.head, std=0.02, generator=generator)

    @torch.no_grad()
    def embed_codebook(self, name: str, codebook: Tensor, generator: torch.Generator) -> None:
        """Starts the embeddings and the head of a modality from its tokenizer's codebook `(size, d)`.

        Ids that stand for similar things then start near each other, which training would otherwise have to find out
        one id at a time. A tied modality has nothing of its own to start.
        """
        if name in self.tied:
            return
        low, high = self._range(name)
        book = codebook.to(torch.float32) - codebook.float().mean(0)
        book = (book / book.square().sum(1).mean().sqrt().clamp(min=1e-6)).cpu()
        # The fixed positions have an rms of 0.7: embeddings of 0.02 would be lost beside them for thousands of steps.
        for weight, scale in ((self.token_embedding.weight, 0.5), (self.head, 0.05)):
            mixing = torch.randn(book.shape[1], self.dim, generator=generator)
            weight[low:high] += scale * (book @ mixing).to(weight)

    def embed_ids(self, sequence: TokenSequence) -> Tensor:
        """Returns the embeddings of tokens by their ids alone `(B, N, D)`: what enters, without its place."""
        return self.token_embedding(self._rows(sequence))

    def encode(self, sequence: TokenSequence, layer: str = "context") -> Tensor:
        """Encodes tokens as vectors `(B, N, D)`; those of tokens that are not valid mean nothing.

        Arguments:
            sequence: tokens of a batch of objects, each with at least one valid token.
            layer: `"context"` for what the decoder attends to, `"encoder"` for the normalised output of the encoder.

        Raises:
            ValueError: for another layer.
        """
        if layer not in {"context", "encoder"}:
            msg = f"encode: layer must be 'context' or 'encoder', given {layer!r}"
            raise ValueError(msg)
        place = self.place(sequence)
        x = self.embed_ids(sequence) + place
        mask, turned = _key_mask(sequence.valid), self._angles(sequence)
        for block in self.encoder:
            x = block(x, mask, turned)
        x = self.encoder_norm(x)
        return x if layer == "encoder" else self.context(x, place)

    def context(self, encoded: Tensor, place: Tensor) -> Tensor:
        """Returns what the decoder attends to, of the normalised output of the encoder and the places of its tokens."""
        return self.decoder_proj_context(encoded) + place

    def decode(
        self, context: Tensor, visible: TokenSequence, query: TokenSequence, uniform: bool | None = None
    ) -> Tensor:
        """Answers queries `(B, M)`, whose ids are not looked at, from a context `(B, N, D)` by states `(B, M, D)`.

        The context is what `encode` made of `visible`. An object without any valid context is answered from the
        queries alone. `uniform` overrides that of the transformer.
        """
        uniform = self.uniform if uniform is None else uniform
        x = self.mask_token + self.place(query, self.query_modality_embedding)
        # A padding query sees padding only (as if that were a modality), so that no row of the softmax is empty.
        mask = query.valid[:, None, :, None] == query.valid[:, None, None, :]
        if not (self.mixed or uniform):
            mask = mask & (query.modality[:, None, :, None] == query.modality[:, None, None, :])
        mask = None if bool(mask.all()) else mask
        context_mask = _key_mask(visible.valid)
        turned, context_turned = self._angles(query), self._angles(visible)
        for block in self.decoder:
            x = block(x, context, mask, context_mask, uniform, turned, context_turned)
        return self.decoder_norm(x)

    def logits(self, hidden: Tensor, name: str) -> Tensor:
        """Computes the logits of the ids of one modality, `(..., size)`."""
        low, high = self._range(name)
        return F.linear(hidden, self.head[low:high])

    def loss(
        self, batch: tuple[TokenSequence, TokenSequence], generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        """Computes the cross-entropy of the targets: per modality, and `loss`, their weighted mean.

        Arguments:
            batch: visible tokens and targets, as a masking returns them.
            generator: not used; the draws were the masking's.

        Raises:
            ValueError: for a batch without any target.
        """
        visible, target = batch
        hidden = self.decode(self.encode(visible), visible, target)
        rows = target.valid.flatten().nonzero()[:, 0]
        rows = rows[target.modality.flatten()[rows].argsort(stable=True)]
        counts = target.modality.flatten()[rows].bincount(minlength=len(self.vocabulary.names)).tolist()
        # Split once: the gradient of a slice of the head for each modality would be as large as the head.
        heads = dict(zip(self.table.names, self.head.split(list(self.table.sizes.values())), strict=True))
        parts = hidden.flatten(0, 1)[rows].split(counts), target.ids.flatten()[rows].split(counts)
        terms = {
            name: self._cross_entropy(
                name, F.linear(states, heads[self.tied.get(name, name)]), ids - self.vocabulary.ranges[name][0]
            )
            for name, states, ids in zip(self.vocabulary.names, *parts, strict=True)
            if len(ids)
        }
        if not terms:
            msg = "loss: no target in the whole batch: wanted objects of two tokens or more, one of them not shown"
            raise ValueError(msg)
        weights = [self.weights.get(name, 1.0) for name in terms]
        loss = sum(weight * term for weight, term in zip(weights, terms.values(), strict=True)) / sum(weights)
        return {"loss": loss, **terms}

    def _cross_entropy(self, name: str, logits: Tensor, ids: Tensor) -> Tensor:
        if name not in self.smoothing:
            return F.cross_entropy(logits.float(), ids)
        distance = torch.arange(logits.shape[-1], device=ids.device) - ids[:, None]
        soft = (-0.5 * (distance / self.smoothing[name]) ** 2).softmax(dim=-1)
        return F.cross_entropy(logits.float(), soft)

    def _check_shape(self) -> None:
        dim, heads, *depths = (self.config[key] for key in ("dim", "heads", "encoder_depth", "decoder_depth"))
        if min(dim, heads) < 1 or min(depths) < 0:
            msg = f"Transformer: wanted a width, heads and depths, given dim={dim}, heads={heads} and depths {depths}"
            raise ValueError(msg)
        if self.config.get("rotary") and dim % (2 * heads):
            msg = f"rotary: wanted heads of an even width, given dim={dim} and heads={heads}"
            raise ValueError(msg)
        if dim % 4:  # sines and cosines of two coordinates
            msg = f"Transformer: dim must be a multiple of 4, given {dim}"
            raise ValueError(msg)
        if min(self.smoothing.values(), default=1) <= 0 or min(self.weights.values(), default=1) < 0:
            msg = f"Transformer: wanted smoothing > 0 and weights >= 0, given {self.smoothing} and {self.weights}"
            raise ValueError(msg)

    def _check_tied(self, tied: dict[str, str]) -> dict[str, str]:
        for name, other in tied.items():
            sizes = [self.vocabulary.sizes[self.vocabulary.names[self.vocabulary.index(n)]] for n in (name, other)]
            if other in tied or sizes[0] != sizes[1]:
                msg = (
                    f"tied: wanted modalities with as many ids, tied to one that is not tied, given {name!r} with "
                    f"{sizes[0]} to {other!r} with {sizes[1]}"
                )
                raise ValueError(msg)
        return tied

    def _range(self, name: str) -> tuple[int, int]:
        """Returns the first row of embeddings and head of a modality, and the one after the last."""
        self.vocabulary.index(name)
        return self.table.ranges[self.tied.get(name, name)]

    def _rows(self, sequence: TokenSequence) -> Tensor:
        """Returns the row of every token."""
        if not self.tied:
            return sequence.ids
        names = self.vocabulary.names
        shift = [self._range(name)[0] - self.vocabulary.ranges[name][0] for name in names]
        return sequence.ids + torch.tensor(shift, device=sequence.ids.device)[sequence.modality]

    def _angles(self, sequence: TokenSequence) -> Tensor | None:
        return angles(sequence.position, self.pairs) if self.pairs else None

    def place(self, sequence: TokenSequence, modality_embedding: nn.Embedding | None = None) -> Tensor:
        """Returns what tells tokens apart by place and modality, `(B, N, D)`; queries may have their own embedding."""
        position = sine_cosine(sequence.position, self.dim)
        for name in self.lists:
            chosen = sequence.modality == self.vocabulary.index(name)
            if chosen.any():
                position[chosen] = sine_cosine(sequence.position[chosen][:, 1:], self.dim)
        modality = (modality_embedding or self.modality_embedding)(sequence.modality)
        return position.to(self.mask_token.dtype) + modality


def _embedding(count: int, dim: int) -> nn.Embedding:
    """Makes an embedding without drawing it."""
    return nn.Embedding.from_pretrained(torch.empty(count, dim), freeze=False)


def _key_mask(valid: Tensor) -> Tensor | None:
    """Returns which keys may be seen, `(B, 1, 1, N)`, or None if all may."""
    return None if bool(valid.all()) else valid[:, None, None, :]
