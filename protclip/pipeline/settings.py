"""The settings of a pipeline: one YAML file with a section for each stage, in the words of the stage's own command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from protclip import files
from protclip.config import PretrainConfig
from protclip.config_file import merged, pretrain_settings, read_yaml
from protclip.embeddings.settings import EmbedConfig
from protclip.errors import ConfigError
from protclip.evaluation.settings import EvaluateConfig
from protclip.fields import check_number, check_types, configured
from protclip.index.config import BuildConfig
from protclip.pipeline.records import BEST, FOLDERS, SERVE, STAGES
from protclip.protanno.curate import CurateConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True, kw_only=True, slots=True)
class SwapConfig:
    """The server that answers from the new index at the end, as ``protclip swap-index`` finds it."""

    name: str = "default"
    """Of the index that is replaced."""
    port: int | None = None
    """Of the server, where several run on this machine."""

    def __post_init__(self) -> None:
        check_types("serve.", self)
        check_number("serve.port", self.port, at_least=1, at_most=65_535)


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineConfig:
    """The stages of a pipeline; None for one that is left out."""

    folder: str
    """Path or URL; each stage has a folder in it."""
    curate: CurateConfig | None = None
    pretrain: PretrainConfig | None = None
    evaluate: EvaluateConfig | None = None
    embed: EmbedConfig | None = None
    questions: EmbedConfig | None = None
    """Texts, by which the index measures its recall and knows what random questions score."""
    index: BuildConfig | None = None
    serve: SwapConfig | None = None

    def stages(self) -> dict[str, DataclassInstance]:
        """The settings of the stages that there are, in order."""
        return {name: stage for name in STAGES if (stage := getattr(self, name)) is not None}

    def output(self, stage: str) -> str:
        """The folder of a stage."""
        return files.join(self.folder, FOLDERS[stage])


def load_pipeline(
    path: str, overrides: Sequence[str], find_config: Callable[[str], str], folder_of: Callable[[str], str]
) -> PipelineConfig:
    """Read the settings of a pipeline.

    Args:
        path: of the YAML file.
        overrides: such as ``pretrain.epochs=3``.
        find_config: name of a ready configuration of ``pretrain``, or a path → the path of its file.
        folder_of: the folder as it is written → what it means everywhere.

    Raises:
        ConfigError: naming the file, the section and the key, and what is allowed.
    """
    values = read_yaml(path, overrides)
    if unknown := [name for name in values if name not in ("folder", *STAGES)]:
        raise ConfigError(f"{path}: unknown section {unknown[0]!r:.80}; there are folder, {', '.join(STAGES)}.")
    folder = values.pop("folder", None)
    if not isinstance(folder, str) or not folder.strip():
        raise ConfigError(f"{path}: folder={folder!r} must be the path or URL of the pipeline's folder.")
    if not values:
        raise ConfigError(f"{path}: names no stage; there are {', '.join(STAGES)}.")
    if SERVE in values and "index" not in values:
        raise ConfigError(f"{path}: serve has nothing to serve; name the stage index too.")
    folder = folder_of(folder)
    stages: dict[str, Any] = {}
    for name in STAGES:
        if name in values:
            given = values[name] if values[name] is not None else {}
            if not isinstance(given, dict):
                raise ConfigError(f"{path}: {name}={given!r:.80} must be a mapping of settings; {{}} for none.")
            stages[name] = _stage(name, given, folder, set(values), f"{path}, {name}", find_config)
    config = PipelineConfig(folder=folder, **stages)
    for place, text in _texts(plain(config), ""):
        try:
            files.refuse_secrets(text)
        except ConfigError as error:
            raise ConfigError(f"{path}, {place}: {error}") from None
    return config


def plain(config: Any) -> Any:
    """Settings as JSON values, without those that have their defaults: a field that comes later changes nothing."""
    if is_dataclass(config):
        found = {}
        for field in fields(config):
            value = getattr(config, field.name)
            inner = plain(value)
            if is_dataclass(value):
                if inner:
                    found[field.name] = inner
            elif value != (field.default if field.default_factory is MISSING else field.default_factory()):
                found[field.name] = inner
        return found
    if isinstance(config, dict):
        return {name: plain(value) for name, value in config.items()}
    return [plain(value) for value in config] if isinstance(config, list | tuple) else config


def _stage(
    name: str,
    given: Mapping[str, Any],
    folder: str,
    stages: set[str],
    where: str,
    find_config: Callable[[str], str],
) -> Any:
    """The settings of a stage; what an earlier stage makes need not be said."""
    own = "run_dir" if name == "pretrain" else "output"
    for key in (own, "overwrite"):
        if key in given and name in FOLDERS:
            instead = "--overwrite of the command does it" if key == "overwrite" else f"it is {FOLDERS[name]} in folder"
            raise ConfigError(f"{where}: {key} is not set here, {instead}; remove it.")
    output = {own: files.join(folder, FOLDERS[name])} if name in FOLDERS else {}

    def made(stage: str, *below: str, several: bool = False) -> Any:
        path = files.join(folder, FOLDERS[stage], *below)
        return (path,) if several else path

    defaults: dict[str, Any] = {}
    if name in ("embed", "questions"):
        defaults |= {"inputs": made("curate", several=True)} if "curate" in stages else {}
        defaults |= {"checkpoint": made("pretrain", BEST)} if "pretrain" in stages else {}
        defaults |= {"content": "text"} if name == "questions" else {}
    if name == "evaluate":
        defaults |= {"pairs": made("curate")} if "curate" in stages else {}
        defaults |= {"checkpoints": made("pretrain", BEST, several=True)} if "pretrain" in stages else {}
    if name == "index":
        defaults |= {"embeddings": made("embed")} if "embed" in stages else {}
        defaults |= {"queries": made("questions", several=True)} if "questions" in stages else {}
    if name == "pretrain":
        defaults |= {"data": {"pairs": made("curate")}} if "curate" in stages else {}
        return _pretrain(given, output, defaults, where, find_config)
    values = {**defaults, **{key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}}
    try:
        return configured(CONFIGS[name], {**values, **output})
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _pretrain(
    given: Mapping[str, Any],
    output: Mapping[str, Any],
    defaults: Mapping[str, Any],
    where: str,
    find_config: Callable[[str], str],
) -> PretrainConfig:
    """Settings over those of the ready configuration, or file, that ``config`` names."""
    values = {key: value for key, value in given.items() if key != "config"}
    base: dict[str, Any] = {}
    if "config" in given:
        if not isinstance(given["config"], str):
            raise ConfigError(f"{where}: config={given['config']!r:.80} must be a YAML file or a ready configuration.")
        base = read_yaml(find_config(given["config"]))
    return pretrain_settings(merged(merged(merged(base, defaults), values), output), where)


def _texts(values: Any, place: str) -> list[tuple[str, str]]:
    """All texts within JSON values, with their places."""
    if isinstance(values, str):
        return [(place, values)]
    inner = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    return [found for key, value in inner for found in _texts(value, f"{place}.{key}".lstrip("."))]


CONFIGS: dict[str, type[Any]] = {
    "curate": CurateConfig,
    "evaluate": EvaluateConfig,
    "embed": EmbedConfig,
    "questions": EmbedConfig,
    "index": BuildConfig,
    "serve": SwapConfig,
}
"""Of the stages whose settings are flat, as the options of their commands."""
