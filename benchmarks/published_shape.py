"""What the authors' checkpoint costs on this machine: to import, to load, to embed with, and until a search answers.

    python benchmarks/published_shape.py            ESM-2 650M and PubMedBERT; some 10 GB of disk and 8 GB of memory
    python benchmarks/published_shape.py --quick    shapes of ESM-2 8M and a small BERT; within a minute

Random weights in the published format and shape, in fp16. Each step is a process of its own, on all cores:

    import    ``protclip import-official``, which ``fetch-model published`` does after the download
    embed     ``ProtCLIP.from_pretrained``, then proteins with lengths as UniProt's are, in float32
    search    ``protclip search`` with a text in an index of 10,000 vectors, from its start to its end

Wall time, and the most memory that the process had.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from embed import uniprot_like
from report import Claim, write_results
from safetensors.torch import save_file
from serve_inputs import TEXT, index_of
from torch import Tensor

from protclip.config import EncoderConfig, ModelConfig
from protclip.model.build import build_text_tokenizer
from protclip.model.official import read_official_architecture
from protclip.model.official_names import LOCAL_SCALE, OFFICIAL_TO_OURS, ROTARY
from protclip.model.record import read_checkpoint_fingerprint
from protclip.model.weights import empty_model
from protclip.trained_model import ProtCLIP

ESM2 = {
    "model_type": "esm",
    "vocab_size": 33,
    "mask_token_id": 32,
    "pad_token_id": 1,
    "max_position_embeddings": 1026,
    "position_embedding_type": "rotary",
    "token_dropout": True,
    "emb_layer_norm_before": False,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
    "layer_norm_eps": 1e-5,
}
BERT = {"model_type": "bert", "vocab_size": 30522, "max_position_embeddings": 512}
SHAPES: dict[str, tuple[dict[str, int], dict[str, int]]] = {
    "650m": (
        {"hidden_size": 1280, "num_hidden_layers": 33, "num_attention_heads": 20, "intermediate_size": 5120},
        {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    ),
    "8m": (
        {"hidden_size": 320, "num_hidden_layers": 6, "num_attention_heads": 20, "intermediate_size": 1280},
        {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512},
    ),
}
DIM = 512
NUM_VECTORS = 10_000


def main() -> None:
    """Make the checkpoint, measure each step, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the small shapes")
    parser.add_argument("--embed", nargs=2, metavar=("CHECKPOINT", "COUNT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.embed:
        print(json.dumps(embed(arguments.embed[0], int(arguments.embed[1]))))
        return
    shape = "8m" if arguments.quick else "650m"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file_bytes = write_published(folder / "published", shape)
        protclip = [sys.executable, "-m", "protclip"]
        checkpoint = str(folder / "checkpoint")
        command = ["import-official", str(folder / "published"), "--output", checkpoint, "--text-tokenizer"]
        steps = {"import": run([*protclip, *command, str(folder / "published")])}
        count = 256 if arguments.quick else 32
        steps["embed"] = run([sys.executable, __file__, "--embed", checkpoint, str(count)])
        embedded = json.loads(steps["embed"].pop("stdout"))
        index = index_of(folder, NUM_VECTORS, read_checkpoint_fingerprint(checkpoint))
        search = [*protclip, "search", index, "--checkpoint", checkpoint, "--text", TEXT]
        # The first one reads the weights from the disk, if they are no longer in memory; the second never does.
        steps["search"], steps["search again"] = run(search), run(search)
        checkpoint_bytes = sum(path.stat().st_size for path in Path(checkpoint).rglob("*") if path.is_file())
    for step in steps.values():
        step.pop("stdout", None)
    claims = [
        Claim(claim=f"published_{shape}_import", value=steps["import"]["wall_s"], unit="s"),
        Claim(claim=f"published_{shape}_import_memory", value=steps["import"]["memory_mb"], unit="MB"),
        Claim(claim=f"published_{shape}_embed", value=embedded["residues_per_s"], unit="residues/s on all cores"),
        Claim(claim=f"published_{shape}_embed_memory", value=steps["embed"]["memory_mb"], unit="MB"),
        Claim(claim=f"published_{shape}_search", value=steps["search again"]["wall_s"], unit="s"),
        Claim(claim=f"published_{shape}_search_memory", value=steps["search again"]["memory_mb"], unit="MB"),
    ]
    lines = [
        f"{shape}: model.safetensors {file_bytes / 1e9:.2f} GB in fp16, checkpoint {checkpoint_bytes / 1e9:.2f} GB. "
        f"Loaded in {embedded['load_s']:.1f} s; {count} proteins of {embedded['residues']:,} residues in "
        f"{embedded['embed_s']:.1f} s on {embedded['threads']} threads.",
        "",
        "| step | wall, s | most memory, MB |",
        "|---|---|---|",
        *(f"| {name} | {step['wall_s']:.1f} | {step['memory_mb']:,.0f} |" for name, step in steps.items()),
    ]
    figures = {"steps": steps, "embed": embedded, "file_bytes": file_bytes, "checkpoint_bytes": checkpoint_bytes}
    write_results("published_shape", claims, figures, "\n".join(lines), quick=arguments.quick)


def run(command: list[str]) -> dict[str, Any]:
    """Wall time, most memory and output of a process."""
    started = time.monotonic()
    with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        stdout = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)}: failed; nothing was measured.")
    return {"wall_s": time.monotonic() - started, "memory_mb": usage.ru_maxrss * 1024 / 1e6, "stdout": stdout}


def embed(checkpoint: str, count: int) -> dict[str, Any]:
    """Load the model, and embed proteins on all cores."""
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    started = time.monotonic()
    model = ProtCLIP.from_pretrained(checkpoint)
    loaded = time.monotonic()
    sequences = uniprot_like(count)
    model.embed_proteins(sequences[:2])
    begun = time.monotonic()
    model.embed_proteins(sequences)
    seconds, residues = time.monotonic() - begun, sum(map(len, sequences))
    return {
        "load_s": loaded - started,
        "embed_s": seconds,
        "residues": residues,
        "residues_per_s": residues / seconds,
        "threads": torch.get_num_threads(),
    }


def write_published(folder: Path, shape: str) -> int:
    """A folder in the published format, with a text tokenizer; returns the size of its weights in bytes."""
    protein, text = SHAPES[shape]
    config = {
        "model_type": "FST",
        "projection_dim": DIM,
        "proto_num": DIM,
        "protein_model_config": {**ESM2, **protein},
        "text_model_config": {**BERT, **text},
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    our_config = ModelConfig(
        projection_dim=DIM,
        protein=EncoderConfig(max_tokens=1024, config=protein),
        text=EncoderConfig(max_tokens=512, config={**text, "vocab_size": 500}),
    )
    build_text_tokenizer(our_config, [TEXT]).save(str(folder))
    tensors = random_tensors(config, str(folder))
    path = folder / "model.safetensors"
    save_file(tensors, path)
    return path.stat().st_size


def random_tensors(config: dict[str, Any], folder: str) -> dict[str, Tensor]:
    """All tensors that the published format needs, by its names."""
    state = empty_model(read_official_architecture(config, folder), most_layers=1000, path=folder).state_dict()
    rotary = state.pop(ROTARY)
    shapes = {official_name(ours): tuple(tensor.shape) for ours, tensor in state.items()}
    shapes[LOCAL_SCALE] = (2,)
    shapes |= {"predictor.0.weight": (DIM // 2, DIM), "predictor.0.bias": (DIM // 2,)}
    shapes |= {"predictor.2.weight": (DIM, DIM // 2), "predictor.2.bias": (DIM,)}
    shapes["local_cross_attention.query1.weight"] = (DIM, DIM)
    generator = torch.Generator().manual_seed(0)
    tensors = {
        # Norms of one, as in a trained model; else the signal would vanish.
        name: torch.ones(size, dtype=torch.float16)
        if name.endswith("weight") and len(size) == 1
        else (0.02 * torch.randn(size, generator=generator)).half()
        for name, size in shapes.items()
    }
    frequencies = 1 / 10_000 ** (torch.arange(rotary.numel()) / rotary.numel())
    for layer in range(config["protein_model_config"]["num_hidden_layers"]):
        name = f"protein_model.encoder.layer.{layer}.attention.self.rotary_embeddings.inv_freq"
        tensors[name] = frequencies.half().clone()
    return tensors


def official_name(ours: str) -> str:
    """The published name of one of our tensors."""
    for theirs, prefix in OFFICIAL_TO_OURS.items():
        if ours == prefix or (prefix.endswith(".") and ours.startswith(prefix)):
            return theirs + ours[len(prefix) :]
    raise AssertionError(ours)


if __name__ == "__main__":
    main()
