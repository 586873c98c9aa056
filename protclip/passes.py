"""Token ids through the network: batches within a token budget, sorted by length; answers in the order of the input.

Shapes: n items, S items of a batch, L tokens, H hidden width of an encoder, D width of the embedding, W windows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize as unit

from protclip.data.batching import Refuse, run_batches
from protclip.data.collate import Rows, pad
from protclip.data.tokenize import ProteinTokenizer
from protclip.data.windows import window_starts, window_weights
from protclip.dimensions import cut_to
from protclip.errors import ConfigError
from protclip.inputs import Layer, check_count, check_one_of
from protclip.model.dual_encoder import DualEncoder
from protclip.model.encoders import Kind
from protclip.model.inference import inference, inference_in_thread
from protclip.model.packed import pack_rows

Form = Literal["numpy", "torch"]
"""What embeddings come as."""

TOKENS_PER_BATCH = 4096
"""Of one forward pass on a CPU, where more gains nothing."""
GPU_TOKENS_PER_BATCH = 32_768
"""Of one forward pass on a GPU: 2 GB of activations at the width of ESM-2 650M."""
TOKENS_STEP, FEW_TOKENS = 64, 1024
"""Batches in bfloat16 on a CPU are filled up to a multiple of so many tokens, but for those of few: for each number of
them oneDNN compiles its matrix products anew, which took 4 % of the time at ESM-2 8M's shape, and keeps the code."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Passes:
    """How items go through a network; the names are those of the arguments of ``ProtCLIP.embed_proteins``."""

    network: DualEncoder
    device: torch.device
    dtype: torch.dtype
    tokens_per_batch: int | None = None
    show_progress: bool = False
    layer: Layer = "projection"
    normalize: bool | None = None
    dimensions: int | None = None
    convert_to: Form = "numpy"
    batches_at_once: int = 1
    """Each in a thread of its own; what comes out is the same."""

    def __post_init__(self) -> None:
        check_count("tokens_per_batch", self.tokens_per_batch, unit="tokens")
        check_one_of("show_progress", self.show_progress, (True, False))
        check_one_of("layer", self.layer, ("projection", "hidden"))
        check_one_of("normalize", self.normalize, (True, False, None))
        check_one_of("convert_to", self.convert_to, ("numpy", "torch"))
        check_count("dimensions", self.dimensions, unit="dimensions")
        if self.dimensions is not None and self.layer == "hidden":
            raise ConfigError(f"dimensions={self.dimensions}: is of embeddings; layer='hidden' gives none.")
        if self.dimensions is not None and self.dimensions > (most := self.network.architecture.projection_dim):
            raise ConfigError(f"dimensions={self.dimensions}: an embedding of this model has {most}; give no more.")

    @property
    def to_unit_length(self) -> bool:
        """Whether embeddings are brought to it: unless something else is asked for, those in the common space are."""
        return self.layer == "projection" if self.normalize is None else self.normalize

    def width(self, kind: Kind) -> int:
        """Of what comes out: D, or H at the hidden layer."""
        architecture = self.network.architecture
        if self.layer == "projection":
            return architecture.projection_dim
        return int((architecture.protein if kind == "protein" else architecture.text).hidden_size)

    def embeddings(self, kind: Kind, ids: Rows, refuse: Refuse | None = None) -> np.ndarray:
        """(n, D) or (n, H); NaN where an item was refused."""
        out_ND = np.full((len(ids), self.width(kind)), np.nan, dtype=np.float32)

        def compute(batch: np.ndarray) -> None:
            ids_T, packing = pack_rows(self._filled_up([ids[i] for i in batch]), self.device)
            if self.layer == "projection" and self.to_unit_length:
                out_SD = self.network.encode_packed(kind, ids_T, packing)
            else:
                out_SD = self.network.pool_packed(kind, ids_T, packing, self.layer)
                out_SD = unit(out_SD, dim=-1) if self.to_unit_length else out_SD
            out_ND[batch] = out_SD[: len(batch)].cpu().numpy()

        self._run(kind, ids, compute, refuse)
        return out_ND

    def window_means(
        self, tokenizer: ProteinTokenizer, residues: Sequence[str], refuse: Refuse | None = None
    ) -> np.ndarray:
        """``embeddings`` of proteins of any length: the means of those of their windows, each residue counted once."""
        size = tokenizer.max_tokens - 2
        starts = [window_starts(len(sequence), size) for sequence in residues]
        ids = [
            tokenizer.encode(sequence[start : start + size])
            for sequence, windows in zip(residues, starts, strict=True)
            for start in windows
        ]
        owner_W = np.repeat(np.arange(len(residues)), [len(windows) for windows in starts])
        refuse_window = refuse and (lambda window, why: refuse(int(owner_W[window]), why))
        vectors_WD = self.embeddings("protein", ids, refuse_window)
        out_ND = np.empty((len(residues), self.width("protein")), dtype=np.float32)
        row = 0
        for i, (sequence, windows) in enumerate(zip(residues, starts, strict=True)):
            part_WD = vectors_WD[row : row + len(windows)]
            row += len(windows)
            if len(windows) == 1:
                out_ND[i] = part_WD[0]  # the very bits of the other policies
            else:
                mean_D = window_weights(windows, size, len(sequence)) @ part_WD
                out_ND[i] = mean_D / np.linalg.norm(mean_D) if self.to_unit_length else mean_D
        return out_ND

    def with_residues(self, ids: Rows, refuse: Refuse | None = None) -> tuple[np.ndarray, list[np.ndarray]]:
        """Embeddings (n, D) in the common space, and the residues of each protein at the layer; not of unit length."""
        out_ND = np.full((len(ids), self.network.architecture.projection_dim), np.nan, dtype=np.float32)
        residues = [np.empty((0, self.width("protein")), dtype=np.float32)] * len(ids)

        def compute(batch: np.ndarray) -> None:
            packed = pack_rows(self._filled_up([ids[i] for i in batch]), self.device)
            protein_SD, token_TD = (part.cpu() for part in self.network.encode_packed_residues(*packed, self.layer))
            out_ND[batch] = protein_SD[: len(batch)].numpy()
            lengths = [len(ids[i]) for i in batch]
            for i, token_LD in zip(batch, torch.split(token_TD[: sum(lengths)], lengths), strict=True):
                residues[i] = token_LD[1:-1].numpy().copy()  # between <cls> and <eos>

        self._run("protein", ids, compute, refuse)
        return out_ND, residues

    def properties(self, ids: Rows) -> np.ndarray:
        """PDA's queries, (n, D)."""
        out_ND = np.empty((len(ids), self.network.architecture.projection_dim), dtype=np.float32)

        def compute(batch: np.ndarray) -> None:
            ids_BL, mask_BL = pad([ids[i] for i in batch], self.network.architecture.text.pad_token_id)
            encoded_BD = self.network.encode_properties(ids_BL.to(self.device), mask_BL.to(self.device))
            out_ND[batch] = encoded_BD.cpu().numpy()

        self._run("text", ids, compute, None)
        return out_ND

    def answer(self, values_ND: np.ndarray, single: bool) -> np.ndarray | Tensor:
        """What a caller gets: (n, D), or (D,) of the single item, as an array or as a tensor on the device.

        D is ``dimensions``, where that is given.
        """
        values_ND = cut_to(values_ND, self.dimensions, to_unit_length=self.to_unit_length)
        return self._converted(values_ND[0] if single else values_ND)

    def answers(self, values: Sequence[np.ndarray], single: bool) -> Any:
        """The same where each item has an array of its own: their list, or that of the single item."""
        return self._converted(values[0]) if single else [self._converted(one) for one in values]

    def _converted(self, values: np.ndarray) -> np.ndarray | Tensor:
        return values if self.convert_to == "numpy" else torch.from_numpy(values).to(self.device)

    def _filled_up(self, rows: list[Any]) -> list[Any]:
        """The rows of a batch, and behind them beginnings of its longest, which are no items, for ``TOKENS_STEP``."""
        num_tokens = sum(map(len, rows))
        if self.device.type != "cpu" or self.dtype != torch.bfloat16 or num_tokens < FEW_TOKENS:
            return rows
        longest, missing, more = max(rows, key=len), -num_tokens % TOKENS_STEP, []
        while missing:
            more.append(longest[:missing])
            missing -= len(more[-1])
        return [*rows, *more]

    def _run(self, kind: Kind, ids: Rows, compute: Callable[[np.ndarray], None], refuse: Refuse | None) -> None:
        budget, lengths = self.tokens_per_batch or default_tokens_per_batch(self.device), [len(row) for row in ids]
        run = map if self.batches_at_once == 1 else self._at_once
        with inference(self.device, self.dtype):
            if not self.show_progress:
                run_batches(lengths, budget, compute, refuse=refuse, run=run)
                return
            from tqdm import tqdm

            with tqdm(total=len(ids), desc=f"{kind}s") as bar:

                def compute_and_tell(batch: np.ndarray) -> None:
                    compute(batch)
                    bar.update(len(batch))

                run_batches(lengths, budget, compute_and_tell, refuse=refuse, run=run)

    def _at_once(self, compute: Callable[[np.ndarray], None], batches: Iterator[np.ndarray]) -> Iterator[None]:
        def compute_here(batch: np.ndarray) -> None:
            with inference_in_thread(self.device, self.dtype):
                compute(batch)

        # What torch keeps of the number for each thread may be the machine's.
        threads = torch.get_num_threads()
        with ThreadPoolExecutor(self.batches_at_once, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
            yield from pool.map(compute_here, batches)


def default_tokens_per_batch(device: torch.device) -> int:
    """Tokens of one forward pass where the caller does not say."""
    return TOKENS_PER_BATCH if device.type == "cpu" else GPU_TOKENS_PER_BATCH


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device by its name; None is the CPU.

    Raises:
        ConfigError: for one that torch does not know, or this machine does not have.
    """
    chosen = "cpu" if device is None else device
    try:
        found = torch.device(chosen)
        torch.empty(0, device=found).cpu()  # the meta device has no numbers to give back
    except (RuntimeError, AssertionError, TypeError) as error:  # torch without CUDA asserts
        has = ["'cpu'", *(f"'cuda:{i}'" for i in range(torch.cuda.device_count()))]
        has += ["'mps'"] if torch.backends.mps.is_available() else []
        why = str(error).partition("\n")[0]
        raise ConfigError(f"device={device!r}: allowed here are {', '.join(has)} ({why}).") from error
    return found
