"""https://spec.matrix.org/v1.19/rooms/#feature-matrix and the pages of the versions."""

from collections.abc import Callable

import pytest

from matrix.room_versions import DEFAULT_ROOM_VERSION, ROOM_VERSIONS, EventIdFormat, RoomVersion, StateResolution


def test_all_versions_of_the_specification_are_there() -> None:
    assert list(ROOM_VERSIONS) == [str(number) for number in range(1, 13)]
    assert all(version.identifier == identifier for identifier, version in ROOM_VERSIONS.items())
    assert DEFAULT_ROOM_VERSION.identifier == "12"


@pytest.mark.parametrize(
    ("has_feature", "numbers"),
    [
        (lambda version: version.event_references_have_hashes, range(1, 3)),
        (lambda version: version.authorise_redactions, range(1, 3)),
        (lambda version: version.event_id_format is EventIdFormat.OPAQUE, range(1, 3)),
        (lambda version: version.event_id_format is EventIdFormat.HASH, range(3, 4)),
        (lambda version: version.event_id_format is EventIdFormat.URL_SAFE_HASH, range(4, 13)),
        (lambda version: version.state_resolution is StateResolution.V1, range(1, 2)),
        (lambda version: version.state_resolution is StateResolution.V2, range(2, 12)),
        (lambda version: version.state_resolution is StateResolution.V2_1, range(12, 13)),
        (lambda version: version.enforce_key_validity, range(5, 13)),
        (lambda version: version.special_case_aliases, range(1, 6)),
        (lambda version: version.float_power_levels, range(1, 6)),
        (lambda version: version.strict_canonical_json, range(6, 13)),
        (lambda version: version.limit_notifications_power_levels, range(6, 13)),
        (lambda version: version.max_depth == 2**53 - 1, range(6, 13)),
        (lambda version: version.knock_allowed, range(7, 13)),
        (lambda version: version.restricted_allowed, range(8, 13)),
        (lambda version: version.knock_restricted_allowed, range(10, 13)),
        (lambda version: version.integer_power_levels, range(10, 13)),
        (lambda version: version.create_has_creator, range(1, 11)),
        (lambda version: version.redacts_in_content, range(11, 13)),
        (lambda version: version.creators_have_infinite_power, range(12, 13)),
        (lambda version: version.room_id_is_create_event_hash, range(12, 13)),
    ],
)
def test_features_belong_to_the_versions_that_the_specification_says(
    has_feature: Callable[[RoomVersion], bool], numbers: range
) -> None:
    assert [int(version.identifier) for version in ROOM_VERSIONS.values() if has_feature(version)] == list(numbers)
