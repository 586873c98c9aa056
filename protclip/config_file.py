"""The settings of a pretraining from YAML and dotted overrides, and back; unknown keys are errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, get_args, get_type_hints

import yaml

from protclip import files
from protclip.config import PretrainConfig, config_dict
from protclip.errors import ConfigError
from protclip.manifest import differences

MAY_DIFFER = (
    "run_dir",
    "data.pairs",
    "model.activation_checkpointing",
    "batch.micro_batches",
    "workers",
    "precision",
    "checkpoint_every_s",
    "keep_checkpoints",
    "max_failures",
    "max_skipped_steps",
    "log_every_s",
    "trackers",
    "log_rows",
)
"""Settings that a run may go on with others of: they change no row of any batch."""


class _Loader(yaml.SafeLoader):
    """Refuses a key that comes twice: the later one would silently count alone."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"the key {key.value} comes twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


def forbidden_changes(before: PretrainConfig, after: PretrainConfig) -> list[str]:
    """What a run that was begun with other settings cannot go on with, as ``seed: 0 there, 1 here``."""
    return [
        difference
        for difference in differences(config_dict(before), config_dict(after))
        if not any(f"{difference.partition(':')[0]}.".startswith(f"{name}.") for name in MAY_DIFFER)
    ]


def load_config(path: str, overrides: Sequence[str] = ()) -> PretrainConfig:
    """Read a YAML file and apply overrides such as ``workers.num=8``.

    Raises:
        ConfigError: naming the file or override, the key and what is allowed.
    """
    return pretrain_settings(read_yaml(path, overrides), path)


def read_yaml(path: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The values of a YAML file with overrides applied.

    Raises:
        ConfigError: if it is not YAML, holds no mapping, or an override is none.
    """
    with files.open_read(path) as stream:
        try:
            values = yaml.load(stream.read(), _Loader)
        except (yaml.YAMLError, ValueError) as error:  # of a day or number that there is not
            raise ConfigError(f"{path}: is not YAML ({error}).") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no settings; a mapping of keys is needed.")
    for override in overrides:
        _apply(values, override)
    return values


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested values with others laid over them; a mapping is merged key by key, all else is replaced."""
    result = dict(values)
    for name, value in over.items():
        below = result.get(name)
        result[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def config_yaml(config: PretrainConfig) -> str:
    """Settings as YAML, every default written out."""
    return yaml.safe_dump(config_dict(config), sort_keys=False)


def _apply(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"override {override!r} is not of the form a.b=value.")
    *parents, last = key.split(".")
    place = values
    for parent in parents:
        inner = place.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"override {override!r}: {parent} is a single value and has no {last}.")
        place = inner
    try:
        place[last] = yaml.load(text, _Loader)
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"override {override!r}: the value is not YAML ({error}).") from error


def pretrain_settings(values: Mapping[str, Any], source: str) -> PretrainConfig:
    """The settings that nested values say.

    Args:
        values: as YAML has them.
        source: where they stand, for the message.

    Raises:
        ConfigError: naming the source, the key and what is allowed.
    """
    from pydantic import TypeAdapter, ValidationError

    adapter = TypeAdapter(PretrainConfig)
    try:
        settings = adapter.validate_python(values)
    except ValidationError as error:
        problems = "; ".join(_problem(detail) for detail in error.errors())
        raise ConfigError(f"{source}: {problems}") from error
    for name, value in _mistaken_for_numbers(values, settings):
        allowed = "a number is needed" if isinstance(value, bool) else "true and false are allowed"
        raise ConfigError(f"{source}: {name}={value!r}: {allowed}.")
    return settings


def _problem(detail: Mapping[str, Any]) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "unexpected_keyword_argument":
        return f"unknown key {place}; there are {', '.join(_keys_beside(detail['loc']))}"
    if detail["type"] == "missing":
        return f"{place} is missing"
    if detail["type"] == "tuple_type":
        return f"{place}={detail['input']!r} must be a list, such as [{detail['input']}]"
    return f"{place}={detail['input']!r}: {detail['msg']}"


def _keys_beside(place: Sequence[str | int]) -> list[str]:
    """The keys that there are where this one is not."""
    section: Any = PretrainConfig
    for name in place[:-1]:
        hint = get_type_hints(section)[str(name)]
        section = next(kind for kind in (hint, *get_args(hint)) if is_dataclass(kind))
    return [field.name for field in fields(section)]


def _mistaken_for_numbers(values: Mapping[str, Any], settings: Any, section: str = "") -> Iterator[tuple[str, Any]]:
    """Where pydantic took true for 1, or a number for true."""
    for name, value in values.items():
        found = getattr(settings, name)
        if isinstance(value, Mapping) and is_dataclass(found):
            yield from _mistaken_for_numbers(value, found, f"{section}{name}.")
        elif isinstance(value, bool) != isinstance(found, bool):
            yield f"{section}{name}", value
