"""pushrules.yaml"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from homeserver.http.request import Request, Result, Route
from homeserver.services.errors import InvalidParam, MatrixError, MissingParam, NotFound
from matrix.identifiers import is_room_id, is_user_id
from matrix.push_rules import KINDS
from matrix.push_rules.editing import (
    NoSuchNeighbour,
    NoSuchRule,
    Ruleset,
    change_rule,
    delete_rule,
    find_rule,
    put_rule,
)

MAX_RULE_ID_CHARS = 255
MAX_ACTIONS = 100
MAX_CONDITIONS = 100
ABOLISHED_ACTIONS = ("dont_notify", "coalesce")


class RuleBody(msgspec.Struct):
    """The body of setPushRule."""

    actions: list[str | dict[str, Any]]
    conditions: list[dict[str, Any]] = []
    pattern: str | None = None


class EnabledBody(msgspec.Struct):
    """The body of setPushRuleEnabled."""

    enabled: bool


class ActionsBody(msgspec.Struct):
    """The body of setPushRuleActions."""

    actions: list[str | dict[str, Any]]


def _kind(request: Request) -> str:
    kind = request.params["kind"]
    if kind not in KINDS:
        raise InvalidParam("Not a kind of push rule")
    return kind


async def _rule(request: Request) -> dict[str, Any]:
    ruleset = await request.server.push_rules.ruleset(request.requester.user_id)
    try:
        return find_rule(ruleset, _kind(request), request.params["ruleId"])
    except NoSuchRule:
        raise NotFound("The push rule was not found") from None


async def _change(request: Request, edit: Callable[[Ruleset], Ruleset]) -> Result:
    try:
        await request.server.push_rules.change(request.requester.user_id, edit)
    except NoSuchRule:
        raise NotFound("The push rule was not found") from None
    except NoSuchNeighbour as error:
        raise MatrixError(400, "M_UNKNOWN", f"before/after rule not found: {error}") from None
    return {}


def _actions(actions: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
    """Actions as they are kept: without those that have been abolished. Raises InvalidParam for unknown ones."""
    if len(actions) > MAX_ACTIONS:
        raise InvalidParam("Too many actions")
    for action in actions:
        if isinstance(action, str):
            if action != "notify" and action not in ABOLISHED_ACTIONS:
                raise InvalidParam("Not an action")
        elif not isinstance(action.get("set_tweak"), str):
            raise InvalidParam("An action that is an object must have set_tweak")
    return [action for action in actions if action not in ABOLISHED_ACTIONS]


def _new_rule(kind: str, rule_id: str, body: RuleBody) -> dict[str, Any]:
    """A user-defined rule, whose ID has no dot at its beginning. Raises InvalidParam, MissingParam."""
    if not rule_id or "/" in rule_id or "\\" in rule_id or "\0" in rule_id or len(rule_id) > MAX_RULE_ID_CHARS:
        raise InvalidParam("Not a rule ID")
    if (kind == "room" and not is_room_id(rule_id)) or (kind == "sender" and not is_user_id(rule_id)):
        raise InvalidParam("The ID of a rule about a room or sender is the ID of that")
    rule: dict[str, Any] = {"rule_id": rule_id, "default": False, "enabled": True, "actions": _actions(body.actions)}
    if kind == "content":
        if body.pattern is None:
            raise MissingParam("A content rule needs a pattern")
        rule["pattern"] = body.pattern
    elif kind in ("override", "underride"):
        if len(body.conditions) > MAX_CONDITIONS:
            raise InvalidParam("Too many conditions")
        if not all(isinstance(condition.get("kind"), str) for condition in body.conditions):
            raise InvalidParam("A condition must have a kind")
        rule["conditions"] = body.conditions
    return rule


async def get_push_rules(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrules"""
    return {"global": await request.server.push_rules.ruleset(request.requester.user_id)}


async def get_push_rules_global(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobal"""
    return {**await request.server.push_rules.ruleset(request.requester.user_id)}


async def get_push_rule(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleid"""
    return await _rule(request)


async def set_push_rule(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleid"""
    kind, rule_id = _kind(request), request.params["ruleId"]
    body = await request.body(RuleBody)
    if rule_id.startswith("."):
        await _rule(request)  # one that is not there cannot be updated, and not be made either
        raise InvalidParam("Of a predefined rule, only the actions can be changed, and whether it is enabled")
    rule = _new_rule(kind, rule_id, body)
    before, after = request.query.get("before"), request.query.get("after")
    return await _change(request, lambda ruleset: put_rule(ruleset, kind, rule, before=before, after=after))


async def delete_push_rule(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3pushrulesglobalkindruleid"""
    if (await _rule(request))["default"]:
        raise InvalidParam("A predefined rule cannot be deleted, but disabled")
    kind, rule_id = _kind(request), request.params["ruleId"]
    return await _change(request, lambda ruleset: delete_rule(ruleset, kind, rule_id))


async def is_push_rule_enabled(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidenabled"""
    return {"enabled": (await _rule(request))["enabled"]}


async def set_push_rule_enabled(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidenabled"""
    kind, rule_id = _kind(request), request.params["ruleId"]
    enabled = (await request.body(EnabledBody)).enabled
    return await _change(request, lambda ruleset: change_rule(ruleset, kind, rule_id, "enabled", enabled))


async def get_push_rule_actions(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3pushrulesglobalkindruleidactions"""
    return {"actions": (await _rule(request))["actions"]}


async def set_push_rule_actions(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3pushrulesglobalkindruleidactions"""
    kind, rule_id = _kind(request), request.params["ruleId"]
    actions = _actions((await request.body(ActionsBody)).actions)
    return await _change(request, lambda ruleset: change_rule(ruleset, kind, rule_id, "actions", actions))


RULES = "/_matrix/client/v3/pushrules"
RULE = f"{RULES}/global/{{kind}}/{{ruleId}}"

ROUTES = [
    Route("GET", f"{RULES}/", "getPushRules", get_push_rules),
    Route("GET", f"{RULES}/global/", "getPushRulesGlobal", get_push_rules_global),
    Route("GET", RULE, "getPushRule", get_push_rule),
    Route("PUT", RULE, "setPushRule", set_push_rule, limited=True),
    Route("DELETE", RULE, "deletePushRule", delete_push_rule),
    Route("GET", f"{RULE}/enabled", "isPushRuleEnabled", is_push_rule_enabled),
    Route("PUT", f"{RULE}/enabled", "setPushRuleEnabled", set_push_rule_enabled),
    Route("GET", f"{RULE}/actions", "getPushRuleActions", get_push_rule_actions),
    Route("PUT", f"{RULE}/actions", "setPushRuleActions", set_push_rule_actions),
]
