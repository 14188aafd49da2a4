"""What is generated from the schema: it loads, it is complete, and the manual in docs/ is up to date."""

import dataclasses
from pathlib import Path

import pytest

from config.document import generate_manual, generate_yaml
from config.load import load_config, parse_config
from config.options import environment_variables, is_group, options_of
from config.schema import Config
from config.sources import parse_yaml

MANUAL = Path(__file__).parents[2] / "docs" / "configuration.md"


def groups(group: type = Config) -> list[type]:
    found = [group]
    for option in options_of(group):
        inner = option.item_hint or option.hint
        if is_group(inner):
            found += groups(inner)
    return found


def test_the_generated_file_loads_to_the_defaults() -> None:
    assert parse_config(parse_yaml(generate_yaml(), "generated"), Path(), {}) == Config()


def test_the_generated_file_is_for_the_server_it_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "weft.yaml"
    file.write_text(generate_yaml("[2001:db8::1]:8448"))
    assert load_config(file, {}) == Config(server_name="[2001:db8::1]:8448", data_dir=tmp_path / "weft-data")


def test_the_generated_file_holds_every_option() -> None:
    def check_complete(raw: object, group: type) -> None:
        assert isinstance(raw, dict)
        assert list(raw) == [option.name for option in options_of(group)]
        for option in options_of(group):
            if is_group(option.hint):
                check_complete(raw[option.name], option.hint)

    check_complete(parse_yaml(generate_yaml(), "generated"), Config)


def test_the_manual_is_what_the_schema_says() -> None:
    assert MANUAL.read_text(encoding="utf-8") == generate_manual(), "run `python -m config.document`"


def test_the_manual_names_every_option() -> None:
    manual = generate_manual()
    for path in environment_variables():
        limit_of_kind = path.startswith("rate_limits.") and path.count(".") == 2
        assert f"`{path.rpartition('.')[0] if limit_of_kind else path}`" in manual


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.__name__)
def test_every_option_is_documented_in_a_line(group: type) -> None:
    for option in options_of(group):
        doc = option.info.doc or (option.hint.__doc__ if is_group(option.hint) else "")
        assert doc.endswith("."), option.name
        assert "|" not in doc, "it would break the manual's table"


@pytest.mark.parametrize("group", groups(), ids=lambda group: group.__name__)
def test_every_group_is_frozen_and_slotted(group: type) -> None:
    assert dataclasses.is_dataclass(group)
    assert group.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(group)
