"""The ready configs describe models that can be built, at the sizes that their names and comments promise."""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import torch

from protclip.config import PretrainConfig
from protclip.config_file import load_config
from protclip.data.tokenize import TextTokenizer
from protclip.model import build
from protclip.model.dual_encoder import DualEncoder
from protclip.model.encoders import encoder_config
from ray_jobs.pretrain.run import find_config

pytestmark = pytest.mark.unit

CONFIGS = sorted(entry.name for entry in (resources.files("ray_jobs.pretrain") / "configs").iterdir())
# The shapes of the published models, so that no network is needed.
PUBLISHED: dict[str, dict[str, Any]] = {
    "facebook/esm2_t6_8M_UR50D": {
        "hidden_size": 320,
        "num_hidden_layers": 6,
        "num_attention_heads": 20,
        "intermediate_size": 1280,
    },
    "facebook/esm2_t33_650M_UR50D": {
        "hidden_size": 1280,
        "num_hidden_layers": 33,
        "num_attention_heads": 20,
        "intermediate_size": 5120,
    },
    "microsoft/BiomedNLP-PubMedBERT-base-uncased-abstract": {"vocab_size": 30522},
}


def published_config(side: str, name: str) -> Any:
    return encoder_config(
        side, {**(build.ESM2_FIELDS if side == "protein" else {"pad_token_id": 0}), **PUBLISHED[name]}
    )


def load(name: str) -> PretrainConfig:
    return load_config(find_config(name))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_ready_config_makes_a_model_that_can_be_built(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "pretrained_config", published_config)
    config = load(name)
    tokenizer = TextTokenizer.train(["kinase binds ATP"], vocabulary_size=100, max_tokens=config.model.text.max_tokens)
    monkeypatch.setattr(build, "check_pretrained", lambda *_: None)
    build.check_architecture(config.model, build.build_architecture(config.model, tokenizer, config.objectives))


@pytest.mark.parametrize(("name", "num_parameters"), [("esm2_8m_1gpu", 8e6), ("protclip_650m_64gpu", 650e6)])
def test_the_encoder_is_of_the_size_in_the_name(
    name: str, num_parameters: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "pretrained_config", published_config)
    config = load(name)
    tokenizer = TextTokenizer.train(["kinase"], vocabulary_size=100, max_tokens=config.model.text.max_tokens)
    with torch.device("meta"):
        model = DualEncoder(build.build_architecture(config.model, tokenizer, config.objectives))
    num = sum(parameter.numel() for parameter in model.protein_encoder.parameters())
    assert num == pytest.approx(num_parameters, rel=0.1)


@pytest.mark.parametrize(("name", "num_gpus"), [("protclip_650m_8gpu", 8), ("protclip_650m_64gpu", 64)])
def test_the_papers_recipe_is_the_papers(name: str, num_gpus: int) -> None:
    config = load(name)
    assert (config.workers.num, config.worker_batch_size, config.workers.use_gpu) == (num_gpus, 64, True)
    assert (config.model.protein.max_tokens, config.model.text.max_tokens) == (1024, 512)
    assert (config.objectives.mlm, config.objectives.bsr, config.objectives.pda) == (0.3, 0.7, 1.0)
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.warmup_fraction, optimizer.weight_decay) == (1e-5, 0.03, 0.0)
    assert config.epochs == 35
