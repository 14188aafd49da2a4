"""The one reader of the configuration file and of the environment."""

import os
from collections.abc import Mapping
from pathlib import Path

from config.convert import convert
from config.errors import ConfigError
from config.options import ENVIRONMENT_PREFIX, environment_variables
from config.schema import Config
from config.sources import read_yaml

__all__ = ["ConfigError", "load_config", "parse_config", "unknown_variables"]


def load_config(path: Path | None, env: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a YAML file, overridden by the environment; without a file, the defaults so overridden.

    Relative paths, the data directory's too, start at the file's directory, or at the working directory without one.
    Raises `ConfigError` with everything that is wrong at once.
    """
    if path is None:
        return parse_config({}, Path(), env)
    return parse_config(read_yaml(path), path.parent, env)


def parse_config(raw: object, base_dir: Path, env: Mapping[str, str] = os.environ) -> Config:
    """The configuration in a document that is already parsed: a mapping, or None for an empty one.

    Every scalar option outside of lists is overridden by the variable `WEFT_` and its path, in capitals and with
    underscores for dots: `database.url` by `WEFT_DATABASE_URL`. An empty variable sets an option to null that may be
    null. Raises `ConfigError` with everything that is wrong at once; secrets are never part of what it says.
    """
    return convert(raw, base_dir, env)


def unknown_variables(env: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Variables that begin as the server's own do and are none: worth a warning, for they may be misspelt.

    They are no errors, because others set such names too: a Kubernetes service called `weft` brings `WEFT_PORT`.
    """
    known = set(environment_variables().values())
    return tuple(sorted(name for name in env if name.startswith(ENVIRONMENT_PREFIX) and name not in known))
