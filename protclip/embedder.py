"""The methods of a ``ProtCLIP`` that turn sequences and texts into embeddings.

They have three stages: *prepare* (check and tokenise), *forward* (protclip.passes), *finish* (what was asked for, in
the order of the input). The Python API, batch jobs, serving and training's evaluation all call them here.

Shapes: n items, L tokens, H hidden width of an encoder, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Self, TypedDict, Unpack, overload

import numpy as np
import torch
from torch import Tensor

from protclip.data.batching import Refuse
from protclip.data.collate import Rows
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.errors import ConfigError, DataError
from protclip.inputs import DTYPES, Dtype, Items, Layer, LongPolicy, listed
from protclip.model.dual_encoder import DualEncoder
from protclip.model.encoders import Kind
from protclip.passes import Form, Passes, default_tokens_per_batch, usable_device


class PassArguments(TypedDict, total=False):
    """Of every embedding method, for type checkers; ``Embedder`` explains them."""

    tokens_per_batch: int | None
    show_progress: bool


class TextArguments(PassArguments, total=False):
    """Of ``embed_texts``."""

    layer: Layer
    normalize: bool | None
    dimensions: int | None
    refuse: Refuse | None


class ProteinArguments(TextArguments, total=False):
    """Of ``embed_proteins``."""

    long: LongPolicy


class Embedder:
    """The embedding methods of ``ProtCLIP``.

    Methods that take several items take a single str as one item, and give what belongs to that one. They share these
    keyword arguments:

        tokens_per_batch   tokens of one forward pass; None: 4,096 on a CPU, 32,768 on a GPU. Embeddings do not depend
                           on it, but to about 1e-6 (on GPUs in float32 alone).
        show_progress      a bar on standard error.
        convert_to         "numpy", or "torch" for tensors on the model's device; float32 both.
    """

    def __init__(
        self,
        model: DualEncoder,
        protein_tokenizer: ProteinTokenizer,
        text_tokenizer: TextTokenizer,
        *,
        device: str | torch.device | None = None,
        dtype: Dtype | torch.dtype = "float32",
    ) -> None:
        if str(dtype).removeprefix("torch.") not in DTYPES:
            raise ConfigError(f"dtype={dtype}: allowed are {', '.join(DTYPES)}.")
        self.model = model.eval()
        self.to(device)
        self.dtype: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.protein_tokenizer = protein_tokenizer
        self.text_tokenizer = text_tokenizer
        self.batches_at_once = 1
        """Batches of a call that are computed side by side, each by as many threads as torch is set to."""

    def to(self, device: str | torch.device | None) -> Self:
        """Move it to a device, and return it.

        Raises:
            ConfigError: for a device that is not there, naming those that are.
        """
        self.device = usable_device(device)
        self.model.to(self.device)
        return self

    @property
    def dimension(self) -> int:
        """Width D of an embedding."""
        return self.model.architecture.projection_dim

    @property
    def trained_dimensions(self) -> tuple[int, ...]:
        """Widths that embeddings were trained at (``objectives.gc_prefixes``), D the last of them."""
        return self.model.architecture.objectives.gc_prefixes or (self.dimension,)

    def hidden_size(self, kind: Kind) -> int:
        """Width H of an encoder's hidden states, "protein" or "text"; what ``layer="hidden"`` gives."""
        return int((self.model.architecture.protein if kind == "protein" else self.model.architecture.text).hidden_size)

    @property
    def max_protein_tokens(self) -> int:
        """Tokens of a protein that the model sees, ``<cls>`` and ``<eos>`` included."""
        return self.protein_tokenizer.max_tokens

    @property
    def max_text_tokens(self) -> int:
        """Tokens of a text that the model sees, special ones included."""
        return self.text_tokenizer.max_tokens

    @property
    def tokens_per_batch(self) -> int:
        """Tokens of one forward pass where a call does not say."""
        return default_tokens_per_batch(self.device)

    @overload
    def embed_proteins(
        self, sequences: Items, *, convert_to: Literal["torch"], **rest: Unpack[ProteinArguments]
    ) -> Tensor: ...
    @overload
    def embed_proteins(
        self, sequences: Items, *, convert_to: Literal["numpy"] = ..., **rest: Unpack[ProteinArguments]
    ) -> np.ndarray: ...
    def embed_proteins(
        self,
        sequences: Items,
        *,
        long: LongPolicy = "truncate",
        layer: Layer = "projection",
        normalize: bool | None = None,
        dimensions: int | None = None,
        tokens_per_batch: int | None = None,
        show_progress: bool = False,
        convert_to: Form = "numpy",
        refuse: Refuse | None = None,
    ) -> np.ndarray | Tensor:
        """Embeddings of amino-acid sequences, (n, D) float32 of unit length; of a single str (D,).

        A sequence has the same embedding alone and in any company, to about 1e-6; on GPUs in float32 alone.
        ``protclip.uniprot.residues`` says which letters are taken, and how.

        Args:
            sequences: in one-letter code; one, or several.
            long: what becomes of a protein beyond ``max_protein_tokens``. "truncate": it is cut at the C-terminus.
                "error": it is refused. "window-mean": windows of the longest input, evenly spaced, each overlapping
                the next by half or more, are embedded; the mean of their embeddings (of unit length where
                ``normalize``), in which every residue counts once however many windows cover it, is brought to unit
                length. The model was not trained for such means; what spans more than a window it never sees at once.
            layer: "projection": the common space. "hidden": the mean of the encoder's last hidden states over all
                tokens, before the projection, (n, ``hidden_size("protein")``).
            normalize: whether to bring them to unit length. None: those of the projection, as they are compared, and
                not those of the hidden layer.
            dimensions: the first so many numbers of each embedding, of unit length anew unless ``normalize`` is False;
                None for all. A model that was trained for it (``trained_dimensions``) loses little by it, others more.
            tokens_per_batch: see the class; likewise ``show_progress`` and ``convert_to``.
            refuse: called with the number, from 0, of a sequence that does not fit into memory even alone, and what
                was said of it; its row is NaN.

        Raises:
            ConfigError: for a value of an argument that is not allowed.
            DataError: for what is no str, an empty sequence, a letter that is no residue, one too long where that is an
                error, or one that does not fit into memory where ``refuse`` is not given.
        """
        passes = self._passes(
            tokens_per_batch, show_progress, convert_to, layer=layer, normalize=normalize, dimensions=dimensions
        )
        given, single = listed(sequences, "sequence")
        if long == "window-mean":
            residues = self.protein_tokenizer.residues_checked(given)
            return passes.answer(passes.window_means(self.protein_tokenizer, residues, refuse), single)
        return passes.answer(passes.embeddings("protein", self.prepare_proteins(given, long=long), refuse), single)

    def embed_residues(
        self,
        sequences: Items,
        *,
        long: Literal["truncate", "error"] = "truncate",
        layer: Layer = "projection",
        tokens_per_batch: int | None = None,
        show_progress: bool = False,
        convert_to: Form = "numpy",
    ) -> Any:
        """Projected residues of each sequence, a list of (residues, D) float32; of a single str its array.

        Row i is residue i of the sequence without white space; special tokens are left out, and nothing is normalised.
        They are the z_j of the paper's segment alignment: a protein's embedding is not their mean, since it is pooled
        before the projection.

        Args:
            sequences: in one-letter code; one, or several.
            long: as in ``embed_proteins``; a truncated protein has ``max_protein_tokens`` - 2 rows.
            layer: "hidden" gives the encoder's last hidden states, (residues, ``hidden_size("protein")``).
            tokens_per_batch: see the class; likewise ``show_progress`` and ``convert_to``.

        Raises:
            ConfigError: as ``embed_proteins``.
            DataError: as ``embed_proteins``.
        """
        passes = self._passes(tokens_per_batch, show_progress, convert_to, layer=layer)
        given, single = listed(sequences, "sequence")
        return passes.answers(passes.with_residues(self.prepare_proteins(given, long=long))[1], single)

    def embed_with_residues(
        self,
        sequences: Items,
        *,
        long: Literal["truncate", "error"] = "truncate",
        tokens_per_batch: int | None = None,
        show_progress: bool = False,
        convert_to: Form = "numpy",
        refuse: Refuse | None = None,
    ) -> tuple[Any, Any]:
        """What ``embed_proteins`` and ``embed_residues`` give, in one pass; see there.

        Raises:
            ConfigError: as ``embed_proteins``.
            DataError: as ``embed_proteins``.
        """
        passes = self._passes(tokens_per_batch, show_progress, convert_to)
        given, single = listed(sequences, "sequence")
        vectors_ND, residues = passes.with_residues(self.prepare_proteins(given, long=long), refuse)
        return passes.answer(vectors_ND, single), passes.answers(residues, single)

    @overload
    def embed_texts(self, texts: Items, *, convert_to: Literal["torch"], **rest: Unpack[TextArguments]) -> Tensor: ...
    @overload
    def embed_texts(
        self, texts: Items, *, convert_to: Literal["numpy"] = ..., **rest: Unpack[TextArguments]
    ) -> np.ndarray: ...
    def embed_texts(
        self,
        texts: Items,
        *,
        layer: Layer = "projection",
        normalize: bool | None = None,
        dimensions: int | None = None,
        tokens_per_batch: int | None = None,
        show_progress: bool = False,
        convert_to: Form = "numpy",
        refuse: Refuse | None = None,
    ) -> np.ndarray | Tensor:
        """Embeddings of biotexts, (n, D) float32 of unit length; of a single str (D,).

        What is longer than ``max_text_tokens`` is cut at the end.

        Args:
            texts: such as ``FUNCTION: Hydrolyses ATP.``; one, or several.
            layer: as for ``embed_proteins``, with ``hidden_size("text")``; likewise ``normalize``, ``dimensions`` and
                ``refuse``.
            tokens_per_batch: see the class; likewise ``show_progress`` and ``convert_to``.

        Raises:
            ConfigError: for a value of an argument that is not allowed.
            DataError: for what is no str, or an empty text.
        """
        passes = self._passes(
            tokens_per_batch, show_progress, convert_to, layer=layer, normalize=normalize, dimensions=dimensions
        )
        given, single = listed(texts, "text")
        return passes.answer(passes.embeddings("text", self.text_tokenizer.encode_checked(given), refuse), single)

    @overload
    def embed_properties(
        self, texts: Items, *, convert_to: Literal["torch"], **rest: Unpack[PassArguments]
    ) -> Tensor: ...
    @overload
    def embed_properties(
        self, texts: Items, *, convert_to: Literal["numpy"] = ..., **rest: Unpack[PassArguments]
    ) -> np.ndarray: ...
    def embed_properties(
        self,
        texts: Items,
        *,
        tokens_per_batch: int | None = None,
        show_progress: bool = False,
        convert_to: Form = "numpy",
    ) -> np.ndarray | Tensor:
        """Each text as one property of PDA, (n, D) float32: the paper's q_k without noise, not of unit length.

        They are compared with the rows of ``embed_residues``. A model trained without PDA has no prototypes: its
        projected texts are given as they are. A single str gives (D,).

        Raises:
            ConfigError: as ``embed_texts``.
            DataError: as ``embed_texts``.
        """
        passes = self._passes(tokens_per_batch, show_progress, convert_to)
        given, single = listed(texts, "text")
        return passes.answer(passes.properties(self.text_tokenizer.encode_checked(given)), single)

    def prepare_proteins(self, sequences: Sequence[str], *, long: str = "truncate") -> list[np.ndarray]:
        """Token ids of sequences that a user gave, for ``forward_proteins``.

        Raises:
            ConfigError: if ``long`` is neither "truncate" nor "error".
            DataError: as ``embed_proteins``.
        """
        residues = self.protein_tokenizer.residues_checked(listed(sequences, "sequence")[0])
        self._check_long(residues, long)
        return [self.protein_tokenizer.encode(sequence) for sequence in residues]

    def forward_proteins(self, ids: Rows) -> np.ndarray:
        """Embeddings (n, D) of tokenised proteins."""
        return self._passes().embeddings("protein", ids)

    def forward_texts(self, ids: Rows) -> np.ndarray:
        """Embeddings (n, D) of tokenised texts."""
        return self._passes().embeddings("text", ids)

    def _passes(
        self,
        tokens_per_batch: int | None = None,
        show_progress: bool = False,
        convert_to: Form = "numpy",
        *,
        layer: Layer = "projection",
        normalize: bool | None = None,
        dimensions: int | None = None,
    ) -> Passes:
        return Passes(
            network=self.model,
            device=self.device,
            dtype=self.dtype,
            tokens_per_batch=tokens_per_batch,
            show_progress=show_progress,
            convert_to=convert_to,
            layer=layer,
            normalize=normalize,
            dimensions=dimensions,
            batches_at_once=self.batches_at_once,
        )

    def _check_long(self, residues: Sequence[str], long: str) -> None:
        if long not in ("truncate", "error"):
            raise ConfigError(f"long={long!r}: allowed are 'truncate', 'error', and for embed_proteins 'window-mean'.")
        longest = self.max_protein_tokens - 2
        for number, sequence in enumerate(residues, start=1):
            if long == "error" and len(sequence) > longest:
                raise DataError(
                    f"sequence {number} of {len(residues)} has {len(sequence)} residues, the model sees {longest}; cut "
                    "it, or choose long='truncate'."
                )
