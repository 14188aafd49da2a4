"""Every error that the specification names for a served operation is one that some test gets from the server.

tests/data/errors.tsv has what its OpenAPI files name: an operation, a status, a code (or none, where they name none),
and for what can never happen here the reason. The test runs last, and only where all tests of the API run
(tests/conftest.py): what it looks at is what they were answered.
"""

from __future__ import annotations

import csv

from tests.answers import seen
from tests.tidy.operations import TOLD_APART_BY_BODY, served
from tests.tidy.sources import ROOT

ERRORS = ROOT / "tests" / "data" / "errors.tsv"


def named() -> list[dict[str, str]]:
    with ERRORS.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_the_table_of_errors_is_about_operations_that_are_served() -> None:
    of_clients = {operation.operation_id for operation in served() if operation.api == "client-server"}
    assert {row["operationId"] for row in named()} <= of_clients
    keys = [(row["operationId"], row["status"], row["errcode"]) for row in named()]
    assert len(keys) == len(set(keys))


def test_every_error_that_the_specification_names_is_produced() -> None:
    statuses = {(name, status) for name, status, _ in seen}
    missing = []
    for row in named():
        name = TOLD_APART_BY_BODY.get(row["operationId"], row["operationId"])
        status, errcode = int(row["status"]), row["errcode"]
        is_seen = (name, status, errcode) in seen if errcode else (name, status) in statuses
        if not is_seen and not row["never"]:
            missing.append(f"{row['operationId']}: {status} {errcode}")
    assert missing == []
