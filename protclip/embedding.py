"""``ProtCLIP``: a trained model that turns sequences and texts into embeddings.

Three stages, used by the Python API, batch jobs, serving and training's evaluation alike: *prepare* (check and
tokenise), *forward* (padded batches within a token budget, sorted by length), *finish* (input order, float32 numpy).

Shapes: n items, B items of a batch, L tokens, D width of the embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from protclip.data.batching import token_budget_batches
from protclip.data.collate import Rows, pad
from protclip.data.tokenize import ProteinTokenizer, TextTokenizer
from protclip.model.checkpoint import (
    Checkpoint,
    architecture_fields,
    load_checkpoint,
    model_fingerprint,
    save_checkpoint,
)
from protclip.model.dual_encoder import DualEncoder, scale

TOKENS_PER_BATCH = 4096
"""Padded tokens of one forward pass; more gains nothing on a CPU."""


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
    ) -> None:
        self.model = model.to(device).eval()
        self.device = torch.device(device)
        self.protein_tokenizer = protein_tokenizer
        self.text_tokenizer = text_tokenizer
        self._fingerprint = fingerprint

    @classmethod
    def from_pretrained(cls, path: str, *, device: str | torch.device = "cpu") -> ProtCLIP:
        """Load a checkpoint folder.

        Args:
            path: local path or fsspec URL, such as ``runs/tiny/best``.
            device: where it computes.

        Raises:
            CheckpointError: if the folder is unfinished or damaged.
        """
        checkpoint: Checkpoint = load_checkpoint(path)
        return cls(
            checkpoint.model,
            checkpoint.protein_tokenizer,
            checkpoint.text_tokenizer,
            fingerprint=checkpoint.fingerprint,
            device=device,
        )

    def save_pretrained(self, path: str) -> None:
        """Write a checkpoint folder that ``from_pretrained`` reads."""
        save_checkpoint(path, self.model, self.protein_tokenizer, self.text_tokenizer)

    @property
    def fingerprint(self) -> str:
        """SHA-256 hex of all that makes embeddings: equal fingerprints, equal embeddings."""
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

    def embed_proteins(self, sequences: Sequence[str]) -> np.ndarray:
        """Embeddings of amino-acid sequences, (n, D) float32 of unit length.

        A sequence has the same embedding alone and in any company, to about 1e-6. What is longer than
        ``max_protein_tokens`` is cut at the C-terminus.

        Raises:
            DataError: for an empty sequence or a letter that is no residue.
        """
        return self.forward_proteins(self.protein_tokenizer.encode_checked(sequences))

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings of biotexts, (n, D) float32 of unit length.

        What is longer than ``max_text_tokens`` is cut at the end.

        Raises:
            DataError: for an empty text.
        """
        return self.forward_texts(self.text_tokenizer.encode_checked(texts))

    def forward_proteins(self, ids: Rows) -> np.ndarray:
        """Embeddings (n, D) of tokenised proteins."""
        return self._forward(ids, self.model.encode_proteins, self.protein_tokenizer.pad_id)

    def forward_texts(self, ids: Rows) -> np.ndarray:
        """Embeddings (n, D) of tokenised texts."""
        return self._forward(ids, self.model.encode_texts, self.model.architecture.text.pad_token_id)

    def similarity(self, proteins: np.ndarray, texts: np.ndarray) -> np.ndarray:
        """exp(logit_scale) · proteins · textsᵀ: the logits of the contrast, (number of proteins, number of texts)."""
        scores: np.ndarray = scale(self.model.logit_scale.detach()).item() * (proteins @ texts.T)
        return scores

    def _forward(self, ids: Rows, encode: Callable[[Tensor, Tensor], Tensor], pad_id: int) -> np.ndarray:
        out_ND = np.empty((len(ids), self.dimension), dtype=np.float32)
        with torch.inference_mode():
            for batch in token_budget_batches([len(row) for row in ids], TOKENS_PER_BATCH):
                ids_BL, mask_BL = pad([ids[i] for i in batch], pad_id)
                out_ND[batch] = encode(ids_BL.to(self.device), mask_BL.to(self.device)).cpu().numpy()
        return out_ND
