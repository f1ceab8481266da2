r"""Draws tokens that were not observed, a few at a time, each time looking at those already drawn.

Asked for all tokens at once, the transformer gives the distribution of each by itself; drawing from those ignores that
they depend on each other. So some are drawn, become input like what was observed, and the rest is asked for again:

- **ROAR** (random order): at every step the next ones of an order drawn for each object.
- **MaskGIT**: at every step all are drawn and the most probable are kept, few at first.
- **one-pass**: all at once.

With **guidance** s the logits :math:`l_u + s\,(l_c - l_u)` are drawn from, where u was not shown the observations and c
was; both saw the tokens drawn so far. s = 1 is no guidance, larger values follow the observations more closely.

References:
    | MaskGIT: Masked Generative Image Transformer (Chang et al., 2022), arXiv 2202.04200
    | Classifier-Free Diffusion Guidance (Ho and Salimans, 2022), arXiv 2207.12598
    | 4M: Massively Multimodal Masked Modeling (Mizrahi et al., 2023), arXiv 2312.06647
    | AION-1: Omnimodal Foundation Model for Astronomical Sciences (Parker et al., 2025), arXiv 2510.17960
"""

__all__ = ["Generation", "SCHEMES", "codes", "draw", "nothing", "places", "schedule"]

import math

from collections.abc import Callable, Iterable
from numbers import Integral, Real

import torch

from torch import Tensor

from aion.observations import Observation, near_miss
from aion.tokenizers import Tokenizer
from aion.tokens import Tokens, TokenSequence, join
from aion.transformer import Transformer

SCHEMES = ("maskgit", "one-pass", "roar")


class Generation:
    """Draws the tokens of one modality, a few at a time.

    Arguments:
        members: number of draws E per object.
        scheme: one of `SCHEMES`.
        steps: most steps, at least 1; not looked at by `"one-pass"`. There are never more steps than tokens.
        temperature: by which logits are divided, at least 0; 0 takes the most probable id.
        top_k: draws from the `top_k` most probable ids only.
        top_p: draws from the fewest ids only that together have at least this probability, in (0, 1].
        guidance: s above.

    Raises:
        TypeError: for an option that should be a number and is none.
        ValueError: for one that is out of range.
    """

    def __init__(
        self,
        members: int = 1,
        scheme: str = "roar",
        steps: int = 25,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
    ) -> None:
        if scheme not in SCHEMES:
            msg = f"generate: unknown scheme {scheme!r}; {near_miss(scheme, SCHEMES)}"
            raise ValueError(msg)
        for key, value in (("members", members), ("steps", steps), ("top_k", 1 if top_k is None else top_k)):
            if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
                msg = f"generate: {key} must be a whole number of at least 1, given {value!r}"
                raise ValueError(msg)
        _check_number("temperature", temperature, lambda value: 0 <= value < math.inf)
        _check_number("top_p", 1.0 if top_p is None else top_p, lambda value: 0 < value <= 1)
        _check_number("guidance", guidance, math.isfinite)
        self.members, self.scheme, self.steps, self.guidance = members, scheme, steps, guidance
        self.temperature, self.top_k, self.top_p = temperature, top_k, top_p

    def ensemble(
        self,
        transformer: Transformer,
        tokenizer: Tokenizer,
        sequences: Iterable[TokenSequence],
        query: TokenSequence,
        like: Observation | None = None,
        generator: torch.Generator | None = None,
    ) -> list[Observation]:
        """Draws observations of one modality: a list of members, each of all objects.

        Arguments:
            transformer: in evaluation mode.
            tokenizer: of the modality.
            sequences: what was observed, the objects in batches.
            query: where the tokens wanted are, of all objects.
            like: the grid wanted, of all objects; None for the tokenizer's own.
            generator: source of the draws.
        """
        drawn: list[list[Observation]] = [[] for _ in range(self.members)]
        start = 0
        for sequence in sequences:
            rows = slice(start, start + len(sequence))
            start, part = rows.stop, query[rows]
            ids = self(transformer, sequence, part, codes(tokenizer), tokenizer.possible, generator)
            for member, pieces in enumerate(drawn):
                tokens = Tokens(ids[:, member], part.position, part.valid)
                pieces.append(tokenizer.decode(tokens, None if like is None else like[rows]))
        return [pieces[0] if len(pieces) == 1 else tokenizer.observation.stack(pieces) for pieces in drawn]

    @torch.no_grad()
    def __call__(
        self,
        transformer: Transformer,
        visible: TokenSequence,
        query: TokenSequence,
        size: int,
        possible: Callable[[Tensor], Tensor | None] | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Draws the tokens that a query asks for.

        The encoder runs once per step at most, and the first step once for all members. Draws are taken object by
        object, so that with a generator on the CPU a batch cut in two gives what it would give whole.

        Arguments:
            transformer: in evaluation mode.
            visible: what was observed of B objects; length 0, or an object without valid tokens, is "nothing".
            query: one modality, the positions wanted `(B, M)`; its ids are not looked at.
            size: number of ids that have a meaning, `[0, size)`; no others are drawn.
            possible: tells which ids may stand at positions `(B, m, 2)`, `(B, m, size)`, or returns None if all may.
            generator: source of the draws.

        Returns:
            Ids `(B, E, M)` in `[0, size)`; 0 where the query is not valid.

        Raises:
            TypeError: for a seed in place of a generator.
            ValueError: for a query of several modalities.
        """
        name, noise = _asked_for(transformer, query), self._noise(query, generator)
        counts = schedule(query.valid.sum(1), 1 if self.scheme == "one-pass" else self.steps, self.scheme == "maskgit")
        everyone = torch.arange(len(query), device=noise.device).repeat_interleave(self.members)
        ids, low = torch.zeros_like(query.ids[everyone]), transformer.vocabulary.ranges[name][0]
        known = torch.zeros_like(ids, dtype=torch.bool)
        for step, count in enumerate(counts[:, everyone]):
            if not count.any():
                continue
            if len(query) < len(ids):  # nothing drawn yet: the same for all members
                first = slice(None, None, self.members)
                index, logits = self._ask(transformer, visible, query, known[first], ids[first], name)
                index, logits = index[everyone], logits[everyone]
                visible, query = visible[everyone], query[everyone]
            else:
                index, logits = self._ask(transformer, visible, query, known, ids + low, name)
            logits = logits[..., :size]
            position = query.position.gather(1, index[..., None].expand(-1, -1, 2))
            if possible is not None and (mask := possible(position)) is not None:
                logits = logits.masked_fill(~mask[..., :size], -math.inf)
            u = noise[:, 1 + min(step, noise.shape[1] - 2)].gather(1, index)
            drawn, probability = draw(logits, u, self.temperature, self.top_k, self.top_p)
            order = probability if self.scheme == "maskgit" else noise[:, 0].gather(1, index)
            left = (query.valid & ~known).gather(1, index)
            rank = torch.where(left, order, -1.0).argsort(dim=1, descending=True, stable=True).argsort(1)
            chosen = left & (rank < count[:, None])
            row, column = torch.arange(len(ids), device=ids.device)[:, None].expand_as(index)[chosen], index[chosen]
            ids[row, column], known[row, column] = drawn[chosen], True
        return ids.unflatten(0, (-1, self.members))

    def _noise(self, query: TokenSequence, generator: torch.Generator | None) -> Tensor:
        """Draws, for every token of every member, a place in the order and numbers to draw its ids by."""
        if not isinstance(generator, torch.Generator | None):
            hint = "torch.Generator().manual_seed(...)"
            msg = f"generate: generator must be a torch.Generator, given {generator!r}: {hint}"
            raise TypeError(msg)
        rounds = self.steps if self.scheme == "maskgit" else 1  # of draws for one token
        shape = (len(query), self.members, 1 + rounds, query.ids.shape[1])
        device = generator.device if generator is not None else "cpu"
        return torch.rand(shape, generator=generator, device=device).to(query.ids.device).flatten(0, 1)

    def _ask(
        self,
        transformer: Transformer,
        visible: TokenSequence,
        query: TokenSequence,
        known: Tensor,
        ids: Tensor,
        name: str,
    ) -> tuple[Tensor, Tensor]:
        """Asks for the tokens not yet known: which they are `(B, m)` and their logits `(B, m, size)`."""
        left = query.valid & ~known
        length = max(int(left.sum(1).max()), 1)
        index = (~left).to(torch.uint8).argsort(dim=1, stable=True)[:, :length]
        asked = query.gather(index, left.gather(1, index))
        given = join(visible, TokenSequence(ids, query.modality, query.position, known))
        if self.guidance == 1:
            sequence = given.select(given.valid)
        else:  # both in one batch: one run of the encoder
            own = torch.arange(given.ids.shape[1], device=ids.device) >= visible.ids.shape[1]
            twice = _stack(given, given)
            sequence = twice.select(torch.cat([given.valid, given.valid & own]))
            asked = _stack(asked, asked)
        # Never uniform: a published checkpoint generates with full attention even where its `forward` has not.
        hidden = transformer.decode(transformer.encode(sequence), sequence, asked, uniform=False)
        logits = transformer.logits(hidden, name).float()
        if self.guidance != 1:
            conditional, unconditional = logits.chunk(2)
            logits = unconditional + self.guidance * (conditional - unconditional)
        return index, logits


def codes(tokenizer: Tokenizer) -> int:
    """Returns how many ids a tokenizer makes: a published vocabulary may have more."""
    return getattr(tokenizer, "codes", tokenizer.size)


def nothing(count: int, device: torch.device) -> TokenSequence:
    """Returns the tokens of objects of which nothing was observed: one each, not valid."""
    zero = torch.zeros(count, 1, dtype=torch.long, device=device)
    return TokenSequence(zero, zero, torch.zeros(count, 1, 2, device=device), zero.bool())


def places(tokenizer: Tokenizer, count: int) -> Tokens:
    """Returns tokens without meaning `(count, N)` where a tokenizer with a grid of its own, or components, has them.

    Raises:
        ValueError: if its tokens are where the observation is.
    """
    grid = (1, tokenizer.components) if hasattr(tokenizer, "components") else getattr(tokenizer, "grid", None)
    if grid is None:
        msg = f"generate: this tokenizer ({tokenizer.kind}) has no grid of its own: give like=, on the grid wanted"
        raise ValueError(msg)
    position = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float32) for n in grid)).expand(count, -1, -1)
    valid = torch.ones(position.shape[:2], dtype=torch.bool)
    return Tokens(torch.zeros_like(valid, dtype=torch.long), position, valid)


def schedule(tokens: Tensor, steps: int, cosine: bool = False) -> Tensor:
    """Splits tokens `(B,)` over steps: how many of each object are drawn at each `(S, B)`.

    Arguments:
        tokens: number of tokens of each object.
        steps: most steps S.
        cosine: few at first and at the end instead of the same number at each step, the larger ones first.
    """
    if cosine:
        bounds = (1 + torch.cos(math.pi * torch.arange(steps + 1, dtype=torch.float64) / steps)) / 2
        wanted = (-bounds.diff()[:, None] * tokens.cpu()).round().long()
        wanted[-1] = tokens.cpu()
        total = torch.minimum(wanted.cumsum(0), tokens.cpu())
        counts = total.diff(dim=0, prepend=torch.zeros_like(total[:1]))
    else:
        each, more = tokens.cpu() // steps, tokens.cpu() % steps
        counts = each + (torch.arange(steps)[:, None] < more).long()
    return counts.to(tokens.device)


def draw(
    logits: Tensor, u: Tensor, temperature: float = 1.0, top_k: int | None = None, top_p: float | None = None
) -> tuple[Tensor, Tensor]:
    """Draws ids from logits `(..., V)` by numbers `u` `(...)` uniform in [0, 1).

    `top_k` and `top_p` choose among the ids before the temperature acts.

    Returns:
        Ids `(...)` and the probability of each: that by which it was drawn, or its own for a temperature of 0.
    """
    logits = logits.double()
    if temperature == 0:
        probability, ids = logits.softmax(-1).max(-1)
        return ids, probability
    if top_k is not None and top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -math.inf)
    if top_p is not None:
        ordered, order = logits.softmax(-1).sort(-1, descending=True)
        beyond = torch.zeros_like(ordered, dtype=torch.bool).scatter(-1, order, ordered.cumsum(-1) - ordered >= top_p)
        logits = logits.masked_fill(beyond, -math.inf)
    probabilities = ((logits - logits.max(-1, keepdim=True).values) / temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1)
    # The first id whose cumulative probability is beyond u, so that one of probability 0 is never drawn.
    level = u.to(cumulative.dtype)[..., None] * cumulative[..., -1:]
    ids = torch.searchsorted(cumulative, level, right=True).clamp(max=logits.shape[-1] - 1)
    return ids[..., 0], probabilities.gather(-1, ids)[..., 0]


def _check_number(name: str, value: object, good: Callable[[float], bool]) -> None:
    if not isinstance(value, Real):
        msg = f"generate: {name} must be a number, given {value!r}"
        raise TypeError(msg)
    if not good(value):
        msg = f"generate: {name} is out of range, given {value!r}"
        raise ValueError(msg)


def _asked_for(transformer: Transformer, query: TokenSequence) -> str:
    """Returns the name of the one modality of a query."""
    if len(names := query.modality[query.valid].unique()) > 1:
        msg = f"generate: wanted a query of one modality, given {len(names)}"
        raise ValueError(msg)
    return transformer.vocabulary.names[int(names[0]) if len(names) else 0]


def _stack(*parts: TokenSequence) -> TokenSequence:
    """Joins batches of one length."""
    return TokenSequence(**{key: torch.cat([getattr(part, key) for part in parts]) for key in vars(parts[0])})
