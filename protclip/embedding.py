"""``ProtCLIP``: a trained model that turns sequences and texts into embeddings.

Three stages, used by the Python API, batch jobs, serving and training's evaluation alike: *prepare* (check and
tokenise), *forward* (batches within a token budget, sorted by length), *finish* (input order, float32 numpy).

Shapes: n items, B items of a batch, L tokens, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from protclip.data.batching import Refuse, run_batches
from protclip.data.collate import Rows, pad
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.data.windows import window_starts, window_weights
from protclip.errors import ConfigError, DataError
from protclip.explanation import WINDOW, has_prototypes, occlusion, segments
from protclip.index.embeddings import DTYPES, Dtype
from protclip.model.checkpoint import (
    Checkpoint,
    architecture_fields,
    load_checkpoint,
    save_checkpoint,
)
from protclip.model.dual_encoder import DualEncoder, scale
from protclip.model.encoders import Kind
from protclip.model.inference import inference
from protclip.model.packed import pack_rows
from protclip.model.tensors import MAX_SHARD_BYTES
from protclip.model.weights import model_fingerprint

LongPolicy = Literal["truncate", "error", "window-mean"]
"""What becomes of a protein that is longer than the model sees."""

TOKENS_PER_BATCH = 4096
"""Of one forward pass on a CPU, where more gains nothing."""
GPU_TOKENS_PER_BATCH = 32_768
"""Of one forward pass on a GPU: 2 GB of activations at the width of ESM-2 650M."""


class ProtCLIP:
    """A dual encoder with its tokenizers. It is for inference; training works on ``DualEncoder``."""

    def __init__(
        self,
        model: DualEncoder,
        protein_tokenizer: ProteinTokenizer,
        text_tokenizer: TextTokenizer,
        *,
        fingerprint: str | None = None,
        device: str | torch.device = "cpu",
        dtype: Dtype | torch.dtype = "float32",
    ) -> None:
        if str(dtype).removeprefix("torch.") not in DTYPES:
            raise ConfigError(f"dtype={dtype}: allowed are {', '.join(DTYPES)}.")
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        self.dtype: torch.dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
        self.protein_tokenizer = protein_tokenizer
        self.text_tokenizer = text_tokenizer
        self._fingerprint = fingerprint

    @classmethod
    def from_pretrained(
        cls, path: str, *, device: str | torch.device = "cpu", dtype: Dtype | torch.dtype = "float32"
    ) -> ProtCLIP:
        """Load a checkpoint folder.

        Args:
            path: local path or fsspec URL, such as ``runs/tiny/best``.
            device: where it computes.
            dtype: of its matrix products and attention: for queries that of the index (``IndexManifest.dtype``) or
                of the embeddings (``Embeddings.dtype``). "bfloat16" is faster on GPUs, and on processors with
                avx512_bf16 or AMX, and slow on others; embeddings stay fp32 and turn by a cosine of 0.9999 or more.
                The weights, and so the fingerprint, stay as they are.

        Raises:
            CheckpointError: if the folder is unfinished or damaged.
            ConfigError: for another dtype.
        """
        checkpoint: Checkpoint = load_checkpoint(path)
        return cls(
            checkpoint.model,
            checkpoint.protein_tokenizer,
            checkpoint.text_tokenizer,
            fingerprint=checkpoint.fingerprint,
            device=device,
            dtype=dtype,
        )

    def save_pretrained(self, path: str, *, max_shard_bytes: int = MAX_SHARD_BYTES, **record: Any) -> None:
        """Write a checkpoint folder that ``from_pretrained`` reads, with a model card.

        Args:
            path: local path or fsspec URL.
            max_shard_bytes: weights beyond it are written as several files.
            record: JSON values to keep in the manifest; ``metrics`` and ``run`` (the settings) are told in the card.
        """
        save_checkpoint(
            path,
            self.model,
            self.protein_tokenizer,
            self.text_tokenizer,
            max_shard_bytes=max_shard_bytes,
            **record,
        )

    @property
    def fingerprint(self) -> str:
        """SHA-256 hex of all that makes embeddings but the dtype: where both are equal, the embeddings are."""
        if self._fingerprint is None:
            config = architecture_fields(self.model.architecture)
            state = {name: tensor.cpu() for name, tensor in self.model.state_dict().items()}
            self._fingerprint = model_fingerprint(config, self.protein_tokenizer, self.text_tokenizer, state)
        return self._fingerprint

    @property
    def dimension(self) -> int:
        """Width D of an embedding."""
        return self.model.architecture.projection_dim

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
        """Tokens of one forward pass."""
        return TOKENS_PER_BATCH if self.device.type == "cpu" else GPU_TOKENS_PER_BATCH

    def embed_proteins(
        self, sequences: Sequence[str], *, long: LongPolicy = "truncate", refuse: Refuse | None = None
    ) -> np.ndarray:
        """Embeddings of amino-acid sequences, (n, D) float32 of unit length.

        A sequence has the same embedding alone and in any company, to about 1e-6; on GPUs in float32 alone.
        ``protclip.uniprot.residues`` says which letters are taken, and how.

        Args:
            sequences: in one-letter code.
            long: what becomes of a protein beyond ``max_protein_tokens``. "truncate": it is cut at the C-terminus.
                "error": it is refused. "window-mean": windows of the longest input, evenly spaced, each overlapping
                the next by half or more, are embedded; the mean of their unit-length embeddings, in which every residue
                counts once however many windows cover it, is brought to unit length. The model was not trained for
                such means; what spans more than a window it never sees at once.
            refuse: called with the number, from 0, of a sequence that does not fit into memory even alone, and what
                was said of it; its row is NaN.

        Raises:
            DataError: for an empty sequence, a letter that is no residue, one too long where that is an error, or one
                that does not fit into memory where ``refuse`` is not given.
        """
        if long == "window-mean":
            return self._window_means(self.protein_tokenizer.residues_checked(sequences), refuse)
        return self._forward(self.prepare_proteins(sequences, long=long), "protein", refuse)

    def embed_residues(
        self, sequences: Sequence[str], *, long: Literal["truncate", "error"] = "truncate"
    ) -> list[np.ndarray]:
        """Projected residues of each sequence, (residues, D) float32, special tokens left out, not normalised.

        Row i is residue i of the sequence without white space. They are the z_j of the paper's segment alignment: a
        protein's embedding is not their mean, since it is pooled before the projection.

        Args:
            sequences: in one-letter code.
            long: as in ``embed_proteins``; a truncated protein has ``max_protein_tokens`` - 2 rows.

        Raises:
            DataError: as ``embed_proteins``.
        """
        return self.embed_with_residues(sequences, long=long)[1]

    def embed_with_residues(
        self,
        sequences: Sequence[str],
        *,
        long: Literal["truncate", "error"] = "truncate",
        refuse: Refuse | None = None,
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """What ``embed_proteins`` and ``embed_residues`` give, in one pass; see there.

        Raises:
            DataError: as ``embed_proteins``.
        """
        ids = self.prepare_proteins(sequences, long=long)
        out_ND = np.full((len(ids), self.dimension), np.nan, dtype=np.float32)
        residues = [np.empty((0, self.dimension), dtype=np.float32)] * len(ids)

        def compute(batch: np.ndarray) -> None:
            packed = pack_rows([ids[i] for i in batch], self.device)
            protein_SD, token_TD = (part.cpu() for part in self.model.encode_packed_residues(*packed))
            out_ND[batch] = protein_SD.numpy()
            for i, token_LD in zip(batch, torch.split(token_TD, [len(ids[i]) for i in batch]), strict=True):
                residues[i] = token_LD[1:-1].numpy().copy()  # between <cls> and <eos>

        with inference(self.device, self.dtype):
            run_batches([len(row) for row in ids], self.tokens_per_batch, compute, refuse=refuse)
        return out_ND, residues

    def embed_texts(self, texts: Sequence[str], *, refuse: Refuse | None = None) -> np.ndarray:
        """Embeddings of biotexts, (n, D) float32 of unit length.

        What is longer than ``max_text_tokens`` is cut at the end.

        Args:
            texts: such as ``FUNCTION: Hydrolyses ATP.``
            refuse: as for ``embed_proteins``.

        Raises:
            DataError: for an empty text.
        """
        return self._forward(self.text_tokenizer.encode_checked(texts), "text", refuse)

    def embed_properties(self, texts: Sequence[str]) -> np.ndarray:
        """Each text as one property of PDA, (n, D) float32: the paper's q_k without noise, not of unit length.

        They are compared with the rows of ``embed_residues``. A model trained without PDA has no prototypes: its
        projected texts are given as they are.

        Raises:
            DataError: for an empty text.
        """
        ids = self.text_tokenizer.encode_checked(texts)
        out_ND = np.empty((len(ids), self.dimension), dtype=np.float32)

        def compute(batch: np.ndarray) -> None:
            ids_BL, mask_BL = pad([ids[i] for i in batch], self.model.architecture.text.pad_token_id)
            encoded_BD = self.model.encode_properties(ids_BL.to(self.device), mask_BL.to(self.device))
            out_ND[batch] = encoded_BD.cpu().numpy()

        with inference(self.device, self.dtype):
            run_batches([len(row) for row in ids], self.tokens_per_batch, compute)
        return out_ND

    def explain(
        self,
        sequence: str,
        text: str,
        *,
        method: Literal["occlusion", "segments"] = "occlusion",
        window: int = WINDOW,
        stride: int = 1,
        long: Literal["truncate", "error"] = "truncate",
    ) -> np.ndarray:
        """How much each residue has to do with the match of a protein and a text, (residues,) float32.

        Number i belongs to residue i of the sequence without white space. ``protclip.explanation`` takes many texts of
        one protein for the same passes of the protein encoder.

        Args:
            sequence: in one-letter code.
            text: such as ``FUNCTION: Hydrolyses ATP.``
            method: "occlusion", for every model: the drop of the cosine when a window of residues is masked.
                "segments", for models trained with PDA: the weights, of sum 1, of the text's dynamic segment.
            window: residues that are masked together, an odd number; for occlusion alone.
            stride: residues from one window to the next; for occlusion alone. The passes become fewer by this factor.
            long: as in ``embed_proteins``; a truncated protein has ``max_protein_tokens`` - 2 numbers.

        Raises:
            ConfigError: for an unknown method, a window or stride that cannot be, or "segments" of a model without PDA.
            DataError: as ``embed_proteins`` and ``embed_texts``.
        """
        if method == "occlusion":
            scores_TR = occlusion(self, sequence, [text], window=window, stride=stride, long=long)
        elif method == "segments":
            if not has_prototypes(self):
                raise ConfigError(
                    "method='segments': this checkpoint was trained without PDA (objectives.pda=0), so nothing in it "
                    "learned which residues a text speaks of; method='occlusion' works for every model."
                )
            scores_TR = segments(self, sequence, [text], long=long)
        else:
            raise ConfigError(f"method={method!r}: allowed are 'occlusion', 'segments'.")
        scores_R: np.ndarray = scores_TR[0]
        return scores_R

    def prepare_proteins(self, sequences: Sequence[str], *, long: str = "truncate") -> list[np.ndarray]:
        """Token ids of sequences that a user gave, for ``forward_proteins``.

        Raises:
            ConfigError: if ``long`` is neither "truncate" nor "error".
            DataError: as ``embed_proteins``.
        """
        residues = self.protein_tokenizer.residues_checked(sequences)
        self._check_long(residues, long)
        return [self.protein_tokenizer.encode(sequence) for sequence in residues]

    def forward_proteins(self, ids: Rows) -> np.ndarray:
        """Embeddings (n, D) of tokenised proteins."""
        return self._forward(ids, "protein")

    def forward_texts(self, ids: Rows) -> np.ndarray:
        """Embeddings (n, D) of tokenised texts."""
        return self._forward(ids, "text")

    def similarity(self, proteins: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """exp(logit_scale) · proteins · textsᵀ: the logits of the contrast, (number of proteins, number of texts)."""
        scores: np.ndarray = scale(self.model.logit_scale.detach()).item() * (proteins @ texts.T)
        return scores

    def score(self, sequences: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        """exp(logit_scale) · cosine of each pair, (n,) float32: sequence i with text i.

        Raises:
            DataError: for lists of different lengths, and as ``embed_proteins`` and ``embed_texts``.
        """
        if len(sequences) != len(texts):
            raise DataError(
                f"{len(sequences)} sequences and {len(texts)} texts make no pairs; give as many of each, or compare "
                "all with all by similarity(embed_proteins(…), embed_texts(…))."
            )
        cosines_N = (self.embed_proteins(sequences) * self.embed_texts(texts)).sum(1)
        scores: np.ndarray = np.float32(scale(self.model.logit_scale.detach()).item()) * cosines_N
        return scores

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

    def _window_means(self, residues: Sequence[str], refuse: Refuse | None) -> np.ndarray:
        size = self.max_protein_tokens - 2
        starts = [window_starts(len(sequence), size) for sequence in residues]
        ids = [
            self.protein_tokenizer.encode(sequence[start : start + size])
            for sequence, windows in zip(residues, starts, strict=True)
            for start in windows
        ]
        owner_W = np.repeat(np.arange(len(residues)), [len(windows) for windows in starts])
        refuse_window = refuse and (lambda window, why: refuse(int(owner_W[window]), why))
        vectors_WD = self._forward(ids, "protein", refuse_window)
        out_ND = np.empty((len(residues), self.dimension), dtype=np.float32)
        row = 0
        for i, (sequence, windows) in enumerate(zip(residues, starts, strict=True)):
            part_WD = vectors_WD[row : row + len(windows)]
            row += len(windows)
            if len(windows) == 1:
                out_ND[i] = part_WD[0]  # the very bits of the other policies
            else:
                mean_D = window_weights(windows, size, len(sequence)) @ part_WD
                out_ND[i] = mean_D / np.linalg.norm(mean_D)
        return out_ND

    def _forward(self, ids: Rows, kind: Kind, refuse: Refuse | None = None) -> np.ndarray:
        out_ND = np.full((len(ids), self.dimension), np.nan, dtype=np.float32)

        def compute(batch: np.ndarray) -> None:
            packed = pack_rows([ids[i] for i in batch], self.device)
            out_ND[batch] = self.model.encode_packed(kind, *packed).cpu().numpy()

        with inference(self.device, self.dtype):
            run_batches([len(row) for row in ids], self.tokens_per_batch, compute, refuse=refuse)
        return out_ND
