"""The whole protein encoder tuned for a task, with a head of two layers on the mean of its last hidden states.

Shapes: S proteins of a batch, B = S / K rows of it, K proteins of a row, H hidden width of the encoder, C outputs.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from protclip import layout
from protclip.evaluation.features import of_rows, required_splits
from protclip.evaluation.task import Benchmark, Outcome, Task
from protclip.evaluation.training import TuneConfig, Workplace
from protclip.evaluation.two_layers import train_head, two_layers
from protclip.model.packed import Packing, esm_hidden, pack_rows
from protclip.model.pooling import mean_pool
from protclip.trained_model import ProtCLIP


class PackedProteins(NamedTuple):
    """The tokens of S proteins, the K of each row one after the other."""

    ids_T: Tensor
    packing: Packing


class TunedEncoder(nn.Module):
    """Proteins in, outputs (B, C) of their rows out."""

    def __init__(self, protein_encoder: nn.Module, head: nn.Module, proteins_per_row: int) -> None:
        super().__init__()
        self.protein_encoder, self.head = protein_encoder, head
        self._proteins_per_row = proteins_per_row

    def forward(self, proteins: PackedProteins) -> Tensor:
        """The head of the encoder's means; in fp32 whatever the autocast, so that few rows tie."""
        hidden_TH = esm_hidden(self.protein_encoder, proteins.ids_T, proteins.packing)
        mean_SH = mean_pool(hidden_TH, proteins.packing.length_S)
        mean_BKH = mean_SH.view(-1, self._proteins_per_row, mean_SH.shape[-1])
        with torch.autocast(mean_SH.device.type, enabled=False):
            outputs_BC: Tensor = self.head(of_rows(mean_BKH))
        return outputs_BC


def fine_tune(
    task: Task, benchmark: Benchmark, model: ProtCLIP, *, config: TuneConfig, seed: int, place: Workplace
) -> Outcome:
    """Tune a copy of the model's protein encoder; the epoch that is best on the validation split predicts.

    All workers call it together. The steps are those of one worker, whatever their number; the same folder goes on
    from its last checkpoint, with the same bits.

    Args:
        task: of kind regression, classes or labels.
        benchmark: its rows.
        model: stays as it is.
        config: of the training; its batch divides by the workers and their micro-batches, or is made smaller.
        seed: of the head's weights and of the order of rows.
        place: where it runs.

    Raises:
        DataError: if the benchmark lacks a split, has a sequence that is none, or the training has to end.
        ConfigError: if the packed forward does not know the encoder.
    """
    required_splits(benchmark, "train", "valid")
    tokens = model.protein_tokenizer.encode_checked(benchmark.sequences)
    device = torch.device(place.device)
    per_row = benchmark.splits["train"].proteins_NK.shape[1]
    width = int(model.model.architecture.protein.hidden_size)
    head = two_layers(width * per_row, config, max(1, len(benchmark.classes)), seed=seed)
    tuned = TunedEncoder(copy.deepcopy(model.model.protein_encoder), head, per_row).to(device)
    length_P = np.array([len(ids) for ids in tokens])

    def inputs(split: str, chosen: NDArray[np.int64]) -> PackedProteins:
        proteins_S = benchmark.splits[split].proteins_NK[chosen].ravel()
        return PackedProteins(*pack_rows([tokens[protein] for protein in proteins_S], device))

    return train_head(
        task,
        benchmark,
        layout.replicate(tuned, place.group),
        tuned,
        inputs=inputs,
        num_tokens_N=length_P[benchmark.splits["train"].proteins_NK].sum(1),
        config=config,
        seed=seed,
        place=place,
    )
