"""From the plain values of a YAML document and of the environment to a `Config`, keeping account of every problem."""

import difflib
import ipaddress
import os
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from config.declare import MAX_INTEGER, REQUIRED, OptionInfo
from config.errors import ConfigError
from config.options import Option, environment_variables, is_group, options_of
from config.schema import Config, IpNetwork
from config.secret import Secret
from config.sources import read_text

_SHOWN_CHARACTERS = 60


class _Unusable(Exception):
    """Why a value cannot be used, worded to follow the option's name."""


def convert(raw: object, base_dir: Path, env: Mapping[str, str]) -> Config:
    """The configuration that a document and the environment make. Relative paths start at `base_dir`.

    Raises `ConfigError` with everything that is wrong.
    """
    converter = _Converter(base_dir, env)
    config = converter.convert_group(Config, raw, "", None)
    if converter.problems:
        raise ConfigError(converter.problems)
    assert isinstance(config, Config)
    return config


class _Converter:
    """Walks the schema. What it returns is of use only as long as `problems` is empty."""

    def __init__(self, base_dir: Path, env: Mapping[str, str]) -> None:
        self.problems: list[str] = []
        self._base_dir = base_dir
        self._env = env

    def convert_group(self, group: type, raw: object, path: str, default: object | None) -> Any:
        """One dataclass of the schema; what `raw` leaves out comes from `default`, or from the options' own."""
        problems_before = len(self.problems)
        if raw is None:
            raw = {}  # a heading with nothing under it
        if not isinstance(raw, Mapping):
            self._complain(path, f"must be a mapping, got {_show(raw)}")
            raw = {}
        options = options_of(group)
        self._check_keys(raw, [option.name for option in options], path)
        values = {option.name: self._convert_option(option, raw, path, default) for option in options}
        if len(self.problems) > problems_before:
            return default
        result = group(**values)
        if hasattr(result, "problems"):
            for key, complaint in result.problems():
                self._complain(_join(path, key), complaint)
        return result

    def _convert_option(self, option: Option, raw: Mapping[Any, object], parent: str, group_default: Any) -> Any:
        path = _join(parent, option.name)
        default = option.default if group_default is None else getattr(group_default, option.name)
        if is_group(option.hint):
            given = raw.get(option.name, {})
            if given is None and option.optional and not self._overridden_below(path):
                return None
            return self.convert_group(option.hint, given, path, default)
        variable = environment_variables().get(path)
        if variable is not None and variable in self._env:
            return self._convert_scalar(option, _Text(self._env[variable]), f"{path} ({variable})")
        if option.name not in raw:
            if default is REQUIRED:
                self._complain(path, "must be given")
            return self._base_dir / default if isinstance(default, Path) else default
        given = raw[option.name]
        if option.item_hint is not None:
            return self._convert_list(option, option.item_hint, given, path)
        return self._convert_scalar(option, given, path)

    def _convert_scalar(self, option: Option, given: object, path: str) -> Any:
        if option.optional and (given is None or (isinstance(given, _Text) and not given)):
            return None
        try:
            return self._scalar(option.hint, given, option.info)
        except _Unusable as problem:
            self._complain(path, str(problem))
            return None

    def _convert_list(self, option: Option, item_hint: Any, given: object, path: str) -> Any:
        if not isinstance(given, list | tuple):
            self._complain(path, "must be a list" if option.info.secret else f"must be a list, got {_show(given)}")
            return None
        problems_before = len(self.problems)
        items: list[Any] = []
        for index, item in enumerate(given):
            item_path = f"{path}[{index}]"
            if is_group(item_hint):
                items.append(self.convert_group(item_hint, item, item_path, None))
                continue
            try:
                items.append(self._scalar(item_hint, item, option.info))
            except _Unusable as problem:
                self._complain(item_path, str(problem))
        if len(self.problems) > problems_before:
            return None
        result = tuple(items) if typing.get_origin(option.hint) is tuple else frozenset(items)
        complaint = option.info.check_all(result) if option.info.check_all else None
        if complaint:
            self._complain(path, complaint)
        return result

    def _scalar(self, hint: Any, given: object, info: OptionInfo) -> Any:
        if info.secret and isinstance(given, Mapping):
            given = self._read_secret(given)
        if typing.get_origin(hint) is typing.Literal:
            return _convert_choice(given, typing.get_args(hint))
        if hint == IpNetwork:
            value: Any = _convert_network(given)
        else:
            value = _SCALAR_CONVERTERS[hint](given, info)
        if isinstance(value, Path):
            value = self._base_dir / value
            if info.must_exist and not os.path.isfile(value):
                raise _Unusable(f"there is no file {value}")
        complaint = info.check(value) if info.check else None
        if complaint:
            raise _Unusable(complaint if info.secret else f"{complaint}, got {_show(given)}")
        return value

    def _read_secret(self, given: Mapping[Any, object]) -> str:
        """The text that `{file: path}` or `{env: NAME}` stands for."""
        if len(given) != 1 or not given.keys() <= {"file", "env"}:
            raise _Unusable("must be a string, {file: path} or {env: NAME}")
        ((source, name),) = given.items()
        if not isinstance(name, str) or not name.isprintable() or not name:
            raise _Unusable(f"{source} must be a string, got {_show(name)}")
        if source == "env":
            if name not in self._env:
                raise _Unusable(f"the environment variable {name} is not set")
            return self._env[name]
        try:
            return read_text(self._base_dir / name).rstrip("\r\n")
        except ConfigError as error:
            raise _Unusable(str(error)) from error

    def _check_keys(self, raw: Mapping[Any, object], known: list[str], path: str) -> None:
        for key in raw:
            if key in known:
                continue
            shown = key if isinstance(key, str) and key.isprintable() and len(key) <= _SHOWN_CHARACTERS else _show(key)
            near = difflib.get_close_matches(shown, known, n=1)
            self._complain(_join(path, shown), "unknown option" + (f"; did you mean {near[0]}?" if near else ""))

    def _overridden_below(self, path: str) -> bool:
        return any(
            name in self._env for option, name in environment_variables().items() if option.startswith(f"{path}.")
        )

    def _complain(self, path: str, complaint: str) -> None:
        self.problems.append(f"{path}: {complaint}" if path else complaint)


class _Text(str):
    """Text from the environment, where every type is written as text."""

    __slots__ = ()


def _join(parent: str, key: str) -> str:
    return f"{parent}.{key}" if parent else key


def _show(value: object) -> str:
    """A value for a complaint: short, on one line."""
    if isinstance(value, str):
        text = value[: _SHOWN_CHARACTERS + 1]
        return repr(text if len(value) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…")
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 128 else "a huge number"
    if isinstance(value, float):
        return str(value)
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return f"a {type(value).__name__}"


def _convert_str(given: object, info: OptionInfo) -> str:
    if not isinstance(given, str):
        wanted = (
            "must be a string" if given is None or isinstance(given, list | Mapping) else "must be a string, in quotes"
        )
        raise _Unusable(wanted if info.secret else f"{wanted}, got {_show(given)}")
    if not given:
        raise _Unusable("must not be empty")
    if not given.isprintable():
        raise _Unusable("must be printable text on one line")
    return str(given)


def _convert_secret(given: object, info: OptionInfo) -> Secret:
    return Secret(_convert_str(given, info))


def _convert_path(given: object, info: OptionInfo) -> Path:
    return Path(_convert_str(given, info))


def _convert_bool(given: object, info: OptionInfo) -> bool:
    if isinstance(given, _Text) and given.lower() in ("true", "false"):
        return given.lower() == "true"
    if not isinstance(given, bool):
        raise _Unusable(f"must be true or false, got {_show(given)}")
    return given


def _convert_int(given: object, info: OptionInfo) -> int:
    if isinstance(given, _Text) and re.fullmatch(r"[-+]?[0-9]{1,20}", given):
        given = int(given)
    if not isinstance(given, int) or isinstance(given, bool):
        raise _Unusable(f"must be a whole number, got {_show(given)}")
    _check_range(given, info)
    return given


def _convert_float(given: object, info: OptionInfo) -> float:
    if isinstance(given, _Text) and re.fullmatch(r"[-+]?[0-9]{1,20}(\.[0-9]{1,20})?", given):
        given = float(given)
    if not isinstance(given, int | float) or isinstance(given, bool):
        raise _Unusable(f"must be a number, got {_show(given)}")
    _check_range(given, info)
    return float(given)


def _check_range(value: float, info: OptionInfo) -> None:
    minimum = 0 if info.minimum is None else info.minimum
    maximum = MAX_INTEGER if info.maximum is None else info.maximum
    if minimum <= value <= maximum:  # not so for NaN
        return
    allowed = f"{minimum}..{maximum}"
    if info.maximum is None:
        allowed = f"at most {maximum}" if value > maximum else f"at least {minimum}"
    raise _Unusable(f"must be {allowed}, got {_show(value)}")


def _convert_choice(given: object, choices: tuple[str, ...]) -> str:
    """One of a few words; upper and lower case are the same."""
    for choice in choices:
        if isinstance(given, str) and given.casefold() == choice.casefold():
            return choice
    raise _Unusable(f"must be one of {', '.join(choices)}, got {_show(given)}")


def _convert_network(given: object) -> IpNetwork:
    if not isinstance(given, str):
        raise _Unusable(f"must be a string, got {_show(given)}")
    try:
        return ipaddress.ip_network(given)
    except ValueError as error:
        raise _Unusable(f"must be an IP network such as 10.0.0.0/8, got {_show(given)}") from error


_SCALAR_CONVERTERS: dict[Any, Callable[[object, OptionInfo], Any]] = {
    str: _convert_str,
    Secret: _convert_secret,
    Path: _convert_path,
    bool: _convert_bool,
    int: _convert_int,
    float: _convert_float,
}
