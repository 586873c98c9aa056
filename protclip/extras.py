"""Packages that not everybody needs: the extras of pyproject.toml."""

from __future__ import annotations

from importlib.util import find_spec

from protclip.errors import ConfigError


def require(package: str, *, extra: str, what: str) -> None:
    """Refuse to go on without a package.

    Args:
        package: as it is imported.
        extra: what brings it.
        what: needs it, for the message.

    Raises:
        ConfigError: if it is not installed.
    """
    if find_spec(package) is None:
        raise ConfigError(f"{what} needs the package {package}, which is not installed; {how_to_install(extra)}.")


def how_to_install(extra: str) -> str:
    """What brings an extra to this installation, for messages."""
    return f"in the checkout of protclip: pip install -e '.[{extra}]'"
