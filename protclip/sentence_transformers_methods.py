"""The methods by which sentence-transformers' evaluators ask a model, so that they take a ``ProtCLIP``.

Shapes: n items, D width of the embedding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from protclip.embedder import Embedder, PassArguments
from protclip.errors import ConfigError, DataError
from protclip.inputs import Items, check_count, check_one_of, listed
from protclip.model.dual_encoder import scale

_ONLY: dict[str, Any] = {
    "prompt": None,
    "output_value": "sentence_embedding",
    "precision": "float32",
    "device": None,
    "pool": None,
    "chunk_size": None,
}
"""Further arguments of sentence-transformers' ``encode``, with the one value that means something here."""


@dataclass(slots=True)
class EvaluationRecord:
    """What evaluators found of a model, as they leave it in ``model_card_data``."""

    metrics: dict[str, float] = field(default_factory=dict)
    """Such as ``save_pretrained(path, metrics=…)`` takes."""

    def set_evaluation_metrics(self, evaluator: Any, metrics: dict[str, float], epoch: int = 0, step: int = 0) -> None:
        """Called by an evaluator at its end."""
        del evaluator, epoch, step
        self.metrics.update(metrics)


class SentenceTransformersMethods(Embedder):
    """``encode`` and ``similarity``, in sentence-transformers' form."""

    prompts: dict[str, str] = {"protein": "", "text": ""}  # noqa: RUF012  # read alone
    """The names that ``prompt_name`` takes; nothing is put before the input."""
    similarity_fn_name: Literal["cosine"] = "cosine"
    """What ``similarity`` orders by; evaluators name their metrics after it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_card_data = EvaluationRecord()

    def encode(
        self,
        inputs: Items,
        prompt_name: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        *,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        normalize_embeddings: bool = True,
        truncate_dim: int | None = None,
        **kwargs: Any,
    ) -> Any:
        """Embeddings of proteins or texts, as sentence-transformers' ``encode`` gives them: (n, D), of a str (D,).

        They are those of ``embed_proteins`` and ``embed_texts``.

        Args:
            inputs: one str, or several.
            prompt_name: "protein" or "text": what they are. It has to be said, since a word may be a sequence too.
            batch_size: passes hold as many tokens as this number of longest inputs, and ``tokens_per_batch`` at most;
                None leaves it to that. Embeddings do not depend on it.
            show_progress_bar: on standard error.
            convert_to_numpy: an array; False, and not ``convert_to_tensor`` either, gives a list of tensors.
            convert_to_tensor: a tensor on the model's device.
            normalize_embeddings: to unit length. It is what the model was trained for, and so the default, other than
                sentence-transformers'.
            truncate_dim: as ``dimensions`` of ``embed_proteins``.
            kwargs: sentence-transformers' other arguments are taken with their defaults.

        Raises:
            ConfigError: for another ``prompt_name``, or a value of an argument that is not allowed.
            DataError: as ``embed_proteins`` and ``embed_texts``.
        """
        check_one_of("prompt_name", prompt_name, tuple(self.prompts))
        check_count("batch_size", batch_size, unit="items")
        for name, value in kwargs.items():
            if name not in _ONLY:
                raise ConfigError(
                    f"encode has no argument {name!r}; of sentence-transformers' it has {', '.join(_ONLY)}."
                )
            check_one_of(name, value, (_ONLY[name],))
        longest = self.max_protein_tokens if prompt_name == "protein" else self.max_text_tokens
        embed = self.embed_proteins if prompt_name == "protein" else self.embed_texts
        vectors: Any = embed(
            inputs,
            normalize=normalize_embeddings,
            dimensions=truncate_dim,
            tokens_per_batch=None if batch_size is None else min(self.tokens_per_batch, batch_size * longest),
            show_progress=bool(show_progress_bar),
            convert_to="numpy" if convert_to_numpy and not convert_to_tensor else "torch",
        )
        return vectors if convert_to_numpy or convert_to_tensor or vectors.ndim == 1 else list(vectors)

    def encode_query(self, inputs: Items, prompt_name: str | None = None, **kwargs: Any) -> Any:
        """``encode``: queries may be of either side, so ``prompt_name`` has to be given."""
        return self.encode(inputs, prompt_name, **kwargs)

    def encode_document(self, inputs: Items, prompt_name: str | None = None, **kwargs: Any) -> Any:
        """``encode``: documents may be of either side, so ``prompt_name`` has to be given."""
        return self.encode(inputs, prompt_name, **kwargs)

    @property
    def scale(self) -> float:
        """exp(logit_scale), 100 at most: what cosines are multiplied by to be the logits of the contrast."""
        return float(scale(self.model.logit_scale.detach()).item())

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """exp(logit_scale) · embeddings1 · embeddings2ᵀ: the logits of the contrast, (n of the first, n of the second).

        For embeddings of unit length, as they are by default, these are cosines times one positive number: they order
        as cosines do, and so serve where sentence-transformers asks for a model's ``similarity``. They are no cosines
        themselves, and go up to exp(logit_scale), 100 at most; ``proteins @ texts.T`` has the cosines. The sides may be
        given in either order, or be the same one.

        Args:
            embeddings1: (n, D), or (D,), which counts as one; arrays, or tensors of one device.
            embeddings2: likewise.

        Returns:
            an array for arrays, a tensor where there is a tensor.
        """
        factor = self.scale
        if isinstance(embeddings1, Tensor) or isinstance(embeddings2, Tensor):
            one, two = (torch.as_tensor(side).reshape(-1, self.dimension) for side in (embeddings1, embeddings2))
            return factor * (one @ two.T)
        return factor * (np.atleast_2d(embeddings1) @ np.atleast_2d(embeddings2).T)

    def score(
        self,
        sequences: Items,
        texts: Items,
        *,
        tokens_per_batch: int | None = None,
        show_progress: bool = False,
    ) -> Any:
        """exp(logit_scale) · cosine of each pair, (n,) float32: sequence i with text i; of two str a float32.

        Raises:
            ConfigError: as ``embed_proteins``.
            DataError: for one str and one list, lists of different lengths, and as ``embed_proteins`` and
                ``embed_texts``.
        """
        (proteins, single), (given_texts, single_text) = listed(sequences, "sequence"), listed(texts, "text")
        if len(proteins) != len(given_texts) or single != single_text:
            raise DataError(
                f"{_told(proteins, single, 'sequence')} and {_told(given_texts, single_text, 'text')} make no pairs; "
                "give one of each as str, or lists of as many of each; or compare all with all by "
                "similarity(embed_proteins(…), embed_texts(…))."
            )
        settings: PassArguments = {"tokens_per_batch": tokens_per_batch, "show_progress": show_progress}
        cosines_N = (self.embed_proteins(proteins, **settings) * self.embed_texts(given_texts, **settings)).sum(1)
        scores: np.ndarray = np.float32(self.scale) * cosines_N
        return scores[0] if single else scores


def _told(items: list[str], single: bool, what: str) -> str:
    return f"a {what} as str" if single else f"{len(items)} {what}s"
