"""In which numbers a model computes embeddings, so that they do not depend on what is computed beside them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

import torch

_ONE_AT_A_TIME = threading.Lock()
"""Held while a switch of torch's is set, which holds for the whole process."""


def has_fast_bfloat16() -> bool:
    """Whether this processor multiplies matrices faster in bfloat16 than in float32: avx512_bf16, AMX or Arm's bf16.

    ``ATEN_CPU_CAPABILITY=avx2`` makes it False, and torch computes as on a processor without.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if capability in ("SVE", "SVE256", "NEON"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    has_instructions = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return bool(capability == "AVX512" and has_instructions)


@contextlib.contextmanager
def inference(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Without gradients, matrix products and attention in this dtype; on CPUs alike in any batch, to about 1e-6.

    Where sums are rounded to bfloat16, another order of the summands of one of them moves an embedding by 1e-3. The
    instructions for it sum in one order, whatever the batch and the number of threads. oneDNN's substitute for them
    does not; torch's own kernels do, and are as fast.
    """
    kernels: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if _needs_switch(device, dtype):
        kernels = _without_onednn()
    with inference_in_thread(device, dtype), kernels:
        yield


def waits_for_nothing(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``inference`` waits neither for another device nor for another thread that computes."""
    return device.type == "cpu" and not _needs_switch(device, dtype)


def _needs_switch(device: torch.device, dtype: torch.dtype) -> bool:
    return dtype == torch.bfloat16 and device.type == "cpu" and not has_fast_bfloat16()


@contextlib.contextmanager
def inference_in_thread(device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """What of ``inference`` holds for one thread alone, and is to be set in each that helps the one within it."""
    is_bf16 = dtype == torch.bfloat16
    with torch.inference_mode(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=is_bf16):
        yield


@contextlib.contextmanager
def _without_onednn() -> Iterator[None]:
    with _ONE_AT_A_TIME:
        before = torch._C._get_mkldnn_enabled()
        torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(before)
