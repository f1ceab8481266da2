"""`AION`: tokenizers and a transformer assembled to a model of observations; `aion.storage` saves and loads it."""

__all__ = ["AION"]

from collections.abc import Iterator, Mapping
from numbers import Integral

import torch

from torch import Tensor, nn

from aion.generation import Generation, codes, nothing, places
from aion.observations import Observation, near_miss
from aion.posterior import Posterior
from aion.storage import Stored
from aion.tokenizers import Tokenizer
from aion.tokens import Tokens, TokenSequence
from aion.transformer import Transformer


class AION(Stored):
    """Assembles tokenizers and a transformer.

    Arguments:
        tokenizers: the tokenizers by a name of their own.
        modalities: name of the tokenizer of each modality; several modalities may share one.
        transformer: a transformer, or the keyword arguments of `aion.transformer.Transformer`; `sizes` may be left out
            and may be larger than those of the tokenizers.
        provenance: plain JSON facts on how the model was made.
        unused: tensors of the checkpoint that the model was made from that nothing here reads, by their name there;
            they are kept as they are, to be written back.
    """

    def __init__(
        self,
        tokenizers: Mapping[str, Tokenizer],
        modalities: Mapping[str, str],
        transformer: Transformer | Mapping[str, object],
        provenance: Mapping[str, object] | None = None,
        unused: Mapping[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        if missing := set(modalities.values()) - set(tokenizers):
            msg = f"AION: no tokenizer {sorted(missing)}; given {sorted(tokenizers)}"
            raise ValueError(msg)
        self.parts = nn.ModuleDict({name: tokenizers[name] for name in sorted(tokenizers)})
        self.modalities = {name: modalities[name] for name in sorted(modalities)}
        sizes = {name: self.tokenizer(name).size for name in self.modalities}
        if not isinstance(transformer, Transformer):
            transformer = Transformer(**{"sizes": sizes, **transformer})
        given = transformer.vocabulary.sizes
        if set(given) != set(sizes) or any(given[name] < size for name, size in sizes.items()):
            msg = f"AION: the transformer must have room for the ids of every tokenizer, {sizes}; given {given}"
            raise ValueError(msg)
        self.transformer = transformer
        self.provenance = dict(provenance or {})
        self.unused = dict(unused or {})

    @property
    def vocabulary(self):
        """Returns the vocabulary: the range of ids of every modality."""
        return self.transformer.vocabulary

    @property
    def device(self) -> torch.device:
        """Returns the device of the parameters."""
        return self.transformer.mask_token.device

    @property
    def dim(self) -> int:
        """Returns the width D of the embeddings."""
        return self.transformer.dim

    def tokenizer(self, name: str) -> Tokenizer:
        """Returns the tokenizer of a modality; an unknown name is a `ValueError` with the near misses."""
        if not isinstance(name, str):
            msg = f"wanted the name of one modality, such as {next(iter(self.modalities))!r}, given {name!r}"
            raise TypeError(msg)
        if name not in self.modalities:
            msg = f"this model knows no modality {name!r}; {near_miss(name, self.modalities)}"
            raise ValueError(msg)
        return self.parts[self.modalities[name]]

    def __repr__(self) -> str:
        name = self.provenance.get("name") or "unnamed"
        count = sum(parameter.numel() for parameter in self.parameters())
        lines = (f"  {modality}: {self.tokenizer(modality).describe()}" for modality in self.modalities)
        return "\n".join([f"AION({name}, {count:,} parameters on {self.device}, of {self.dim} features)", *lines])

    # ---- use

    def encode_tokens(self, observations: Mapping[str, Observation]) -> dict[str, Tokens]:
        """Tokenizes each modality by itself, checking names and kinds as `tokenize` does."""
        self._check_mapping(observations)
        if not observations:
            msg = f"wanted observations of at least one of {', '.join(self.modalities)}; given none"
            raise ValueError(msg)
        return {name: self._tokens(name, observation) for name, observation in observations.items()}

    def _tokens(self, name: str, observation: Observation, places: bool = False) -> Tokens:
        """Tokenizes a modality, or finds the places of its tokens alone; errors name the modality."""
        tokenizer = self.tokenizer(name)
        if isinstance(observation, Observation):
            observation = observation.to(self.device)
        try:
            # In float32 under any autocast: half precision in front of the quantiser changes 1 token in 30.
            with torch.autocast(self.device.type, enabled=False):
                tokenizer.check_name(name, observation)
                return tokenizer.places(observation) if places else tokenizer.encode(observation)
        except (TypeError, ValueError) as error:
            msg = f"{name}: {error}"
            raise type(error)(msg) from error

    @torch.no_grad()
    def tokenize(self, observations: Mapping[str, Observation]) -> TokenSequence:
        """Turns observations into one sequence of tokens per object.

        Arguments:
            observations: observations by modality, all of the same B objects. What was not measured (ivar 0, NaN) gives
                no token. Order does not matter.

        Raises:
            TypeError: for an observation of the wrong kind.
            ValueError: for an unknown modality (with the near misses), batches that differ, values that no tokenizer
                knows, or an object without any token (named by its row).
        """
        tokens = self.encode_tokens(observations)
        if unread := sorted(set(tokens) & set(self.transformer.output_only)):
            msg = f"{unread[0]!r} can be asked for but not given: this checkpoint has no embedding of it"
            raise ValueError(msg)
        return self.vocabulary.pack(tokens)

    @torch.no_grad()
    def embed(
        self,
        observations: Mapping[str, Observation],
        pool: str = "mean",
        batch_size: int = 64,
        layer: str = "context",
        progress: str | None = None,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Embeds objects with the frozen encoder.

        Arguments:
            observations: see `tokenize`.
            pool: `"mean"` over the tokens of an object, or `"none"`.
            batch_size: objects that go through the model at once; it does not change the result.
            layer: see `aion.transformer.Transformer.encode`.
            progress: title of a progress bar, which shows on a terminal only; None for none at all.

        Returns:
            `(B, D)` for `"mean"`; for `"none"` the vectors `(B, N, D)` and which are valid `(B, N)`, zeros elsewhere.
        """
        _check_pool(pool)
        batches = self._batches(observations, batch_size, progress)
        pieces = [self.embed_tokens(sequence, pool, layer) for sequence in batches]
        if pool == "mean":
            return torch.cat(pieces)
        length = max(valid.shape[1] for _, valid in pieces)
        vectors = [nn.functional.pad(x, (0, 0, 0, length - x.shape[1])) for x, _ in pieces]
        return torch.cat(vectors), torch.cat([nn.functional.pad(v, (0, length - v.shape[1])) for _, v in pieces])

    @torch.no_grad()
    def embed_tokens(
        self, sequence: TokenSequence, pool: str = "mean", layer: str = "context"
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Embeds a batch of token sequences; see `embed`."""
        _check_pool(pool)
        x = self.transformer.encode(sequence, layer).float() * sequence.valid[..., None]
        return x.sum(1) / sequence.valid.sum(1, keepdim=True) if pool == "mean" else (x, sequence.valid)

    @torch.no_grad()
    def predict(
        self, observations: Mapping[str, Observation], name: str, batch_size: int = 64, progress: str | None = None
    ) -> Posterior:
        """Predicts the distribution of a scalar modality from the others; its own values, if given, are not looked at.

        From no observations at all, `{}`, it predicts one distribution: what the model expects of any object.

        Arguments:
            observations: see `tokenize`.
            name: the modality wanted.
            batch_size: objects that go through the model at once; it does not change the result.
            progress: see `embed`.

        Raises:
            TypeError: for what `tokenize` refuses.
            ValueError: for an unknown modality, one that is not a single scalar, or nothing else to predict from.
        """
        self._check_mapping(observations)
        tokenizer = self._scalar(name)
        others = {key: value for key, value in observations.items() if key != name}
        batches = self._batches(others, batch_size, progress) if observations else self._nothing(1, batch_size)
        return tokenizer.posterior(torch.cat([self._probabilities(sequence, name) for sequence in batches]))

    @torch.no_grad()
    def predict_tokens(self, sequence: TokenSequence, name: str) -> Posterior:
        """Predicts the distribution of a scalar modality from token sequences without any of its own; see `predict`.

        Raises:
            ValueError: for an unknown modality, one that is not a single scalar, or a sequence that holds its tokens.
        """
        tokenizer = self._scalar(name)
        if (sequence.valid & (sequence.modality == self.vocabulary.index(name))).any():
            msg = f"predict_tokens: the sequence holds tokens of {name!r} itself, which would tell it: leave them out"
            raise ValueError(msg)
        return tokenizer.posterior(self._probabilities(sequence, name))

    def _probabilities(self, sequence: TokenSequence, name: str) -> Tensor:
        query = self._query(name, torch.zeros(len(sequence), 1, 2), torch.ones(len(sequence), 1, dtype=torch.bool))
        return self._ask(sequence, query, name)[:, 0].double().softmax(dim=-1)

    @torch.no_grad()
    def reconstruct(
        self,
        observations: Mapping[str, Observation],
        name: str,
        like: Observation | None = None,
        batch_size: int = 64,
    ) -> Observation:
        """Decodes the tokens of a modality on the grid of `like`.

        If `name` is among the observations its own tokens are decoded: what the tokenizer keeps of it. Otherwise the
        transformer predicts them, from `{}` too, in one pass: the most probable id for each token that `like` would
        have. Of `like` only the grid and what is measured (ivar > 0) is looked at, not the values.

        Raises:
            TypeError: if `like` is of another kind than `name`, or for what `tokenize` refuses.
            ValueError: if `name` is not observed and `like` is not given or has nothing measured, if `like` holds
                another number of objects, or for what `tokenize` refuses.
        """
        self._check_mapping(observations)
        _check_batch_size(batch_size)
        tokenizer = self.tokenizer(name)
        if like is not None:
            _check_like(like, tokenizer.observation, observations)
            like = like.to(self.device)
        if name in observations:
            own = self.encode_tokens({name: observations[name]})[name]
            return tokenizer.decode(own, like if like is not None else observations[name].to(self.device))
        if like is None:
            msg = f"reconstruct: {name!r} is not observed: give like=, an observation on the grid wanted"
            raise ValueError(msg)
        self._asked(name)
        place = self._place(name, like)
        sequences = self._batches(observations, batch_size) if observations else self._nothing(len(like), batch_size)
        ids, start = torch.zeros_like(place.ids), 0
        for sequence in sequences:
            rows = slice(start, start := start + len(sequence))
            logits = self._ask(sequence, self._query(name, place.position[rows], place.valid[rows]), name)
            possible = tokenizer.possible(place.position[rows])
            ids[rows] = (logits if possible is None else logits.masked_fill(~possible, -torch.inf)).argmax(dim=-1)
        return tokenizer.decode(Tokens(ids=ids, position=place.position, valid=place.valid), like)

    @torch.no_grad()
    def generate(
        self,
        observations: Mapping[str, Observation],
        name: str,
        like: Observation | None = None,
        *,
        members: int = 1,
        scheme: str = "roar",
        steps: int = 25,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        guidance: float = 1.0,
        generator: torch.Generator | None = None,
        batch_size: int = 64,
    ) -> list[Observation]:
        """Draws what a modality may look like, given the others; its own values, if given, are not looked at.

        Returns an ensemble: a list whose axis is the members, each an observation of all objects, so that
        `torch.stack([member.flux for member in ensemble])` has the shape `(E, B, ...)`.

        Arguments:
            observations: see `tokenize`; `{}` draws from what the model expects of any object.
            name: the modality wanted.
            like: the grid wanted, with the tokens that it would have; its values are not looked at. Scalars, and
                tokenizers with a grid of their own that can do without, need none.
            members: see `aion.generation.Generation` for this and what follows.
            scheme: `"roar"`, `"maskgit"` or `"one-pass"`.
            steps: most steps.
            temperature: 0 takes the most probable ids.
            top_k: draws from that many ids only.
            top_p: draws from ids that have together that probability only.
            guidance: how closely the observations are followed.
            generator: source of the draws.
            batch_size: draws, objects times members, that go through the model at once. With a generator on the CPU
                it does not change the result beyond rounding.

        Raises:
            TypeError: for what `reconstruct` refuses.
            ValueError: for what `reconstruct` refuses, or options out of range.
        """
        self._check_mapping(observations)
        tokenizer = self._asked(name)
        if like is not None:
            _check_like(like, tokenizer.observation, observations)
            like = like.to(self.device)
        _check_batch_size(batch_size)
        generation = Generation(members, scheme, steps, temperature, top_k, top_p, guidance)
        objects = max(batch_size // members, 1)
        if observations:
            others = {key: value for key, value in observations.items() if key != name}
            first = next(iter(others.values()), None)
            count = len(first) if isinstance(first, Observation) else 0  # of which tokenize says what is wrong
            sequences = self._batches(others, objects)
        else:
            count = 1 if like is None else len(like)
            sequences = self._nothing(count, objects)
        place = places(tokenizer, count) if like is None else self._place(name, like)
        query = self._query(name, place.position, place.valid)
        return generation.ensemble(self.transformer, tokenizer, sequences, query, like, generator)

    def _asked(self, name: str) -> Tokenizer:
        """Returns the tokenizer of a modality that the transformer can be asked for."""
        tokenizer = self.tokenizer(name)
        if name in self.transformer.input_only:
            msg = f"{name!r} can be given but not asked for: this checkpoint has no head for it"
            raise ValueError(msg)
        if name in self.transformer.lists:
            msg = f"{name!r} can be given but not asked for: how the model was trained to list it is not published"
            raise ValueError(msg)
        return tokenizer

    def _scalar(self, name: str) -> Tokenizer:
        """Returns the tokenizer of a single scalar that the transformer can be asked for."""
        tokenizer = self._asked(name)
        if not hasattr(tokenizer, "posterior") or tokenizer.components > 1:
            msg = f"predict: {name!r} is no scalar, or a vector of them; use reconstruct"
            raise ValueError(msg)
        return tokenizer

    def _check_mapping(self, observations: object) -> None:
        if not isinstance(observations, Mapping):
            read = [name for name in self.modalities if isinstance(observations, self.tokenizer(name).observation)]
            such = f", such as {{{read[0]!r}: ...}}" if read else ""
            given = type(observations).__name__
            msg = f"wanted a dict of name -> observation, given {given}: name the modality{such}"
            raise TypeError(msg)

    def _batches(
        self, observations: Mapping[str, Observation], batch_size: int, progress: str | None = None
    ) -> Iterator[TokenSequence]:
        _check_batch_size(batch_size)
        values = observations.values() if isinstance(observations, Mapping) else ()
        sizes = {len(o) for o in values} if all(isinstance(o, Observation) for o in values) else set()
        if len(sizes) != 1:  # let tokenize say what is wrong
            yield self.tokenize(observations)
            return
        starts = range(0, sizes.pop(), batch_size)
        if progress is not None:
            from tqdm.auto import tqdm  # which warns in a notebook without widgets

            starts = tqdm(starts, progress, disable=None)
        for start in starts:
            try:
                yield self.tokenize({k: o[start : start + batch_size] for k, o in observations.items()})
            except ValueError as error:
                if start == 0:
                    raise
                msg = f"in the batch that starts at object {start}: {error}"
                raise ValueError(msg) from error

    def _nothing(self, count: int, batch_size: int) -> Iterator[TokenSequence]:
        _check_batch_size(batch_size)
        for start in range(0, count, batch_size):
            yield nothing(min(batch_size, count - start), self.device)

    def _place(self, name: str, like: Observation) -> Tokens:
        """Returns the tokens that a modality would have on the grid of `like`; their ids mean nothing."""
        place = self._tokens(name, like, places=True)
        if not place.valid.any():
            msg = f"like= has nothing measured: set its ivar above 0 where {name!r} is wanted"
            raise ValueError(msg)
        return place

    def _query(self, name: str, position: Tensor, valid: Tensor) -> TokenSequence:
        modality = torch.full(valid.shape, self.vocabulary.index(name))
        ids = torch.full_like(modality, self.vocabulary.ranges[name][0])
        return TokenSequence(ids, modality, position.cpu(), valid.cpu()).to(self.device)

    def _ask(self, sequence: TokenSequence, query: TokenSequence, name: str) -> Tensor:
        hidden = self.transformer.decode(self.transformer.encode(sequence), sequence, query)
        return self.transformer.logits(hidden, name)[..., : codes(self.tokenizer(name))].float()


def _check_pool(pool: str) -> None:
    if pool not in {"mean", "none"}:
        msg = f"embed: pool must be 'mean' or 'none', given {pool!r}"
        raise ValueError(msg)


def _check_batch_size(batch_size: int) -> None:
    if not isinstance(batch_size, Integral) or batch_size < 1:
        msg = f"batch_size must be a whole number of at least 1, given {batch_size!r}"
        raise ValueError(msg)


def _check_like(like: object, kind: type[Observation], observations: Mapping[str, Observation]) -> None:
    if not isinstance(like, kind):
        msg = f"like= must be of the kind {kind.__name__}, given {type(like).__name__}"
        raise TypeError(msg)
    sizes = {len(o) for o in observations.values() if isinstance(o, Observation)}
    if sizes and sizes != {len(like)}:
        given = " and ".join(map(str, sorted(sizes)))
        msg = f"like= must hold as many objects as the observations, {given}, given {len(like)}"
        raise ValueError(msg)
