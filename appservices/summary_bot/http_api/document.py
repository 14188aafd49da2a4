"""The OpenAPI description of the bot's HTTP API, and a page that shows it."""

from __future__ import annotations

from html import escape
from typing import Any

import msgspec

BASE = "/_weft/summary/v1"

_STRING = {"type": "string"}
_NUMBER = {"type": "integer"}

_SECTION = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "enum": ["outcome", "decisions", "open_questions", "actions", "disagreements"]},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "text": _STRING,
                    "owner": {"type": ["string", "null"], "description": "User ID of whom an action falls to."},
                    "speaker": {"type": ["string", "null"], "description": "User ID, where `text` is a quotation."},
                    "citations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"event_id": _STRING, "quote": _STRING, "permalink": _STRING},
                        },
                    },
                },
            },
        },
    },
}

_REQUEST = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "purpose": {"type": "string", "enum": ["summary", "actions", "decisions", "ask"], "default": "summary"},
        "range": {
            "type": "string",
            "default": "unread",
            "description": "`unread` (since the asker's read marker), `2h`, `today`, `200`, `2026-11-01..03`.",
        },
        "sender": {"type": "string", "description": "Only what this user wrote."},
        "thread": {"type": "string", "description": "Only the thread with this root event."},
        "about": {"type": "string", "maxLength": 500},
        "question": {"type": "string", "maxLength": 500, "description": "For the purpose `ask`."},
        "language": {"type": "string", "description": "Such as `en`; by default the asker's."},
    },
}

_ANSWER = {
    "type": "object",
    "properties": {
        "sections": {"type": "array", "items": _SECTION},
        "coverage": {
            "type": "object",
            "properties": {
                "covered": _NUMBER,
                "total": _NUMBER,
                "first_ts": _NUMBER,
                "last_ts": _NUMBER,
                "complete": {"type": "boolean"},
                "people_left_out": _NUMBER,
                "unreadable": _NUMBER,
            },
        },
        "engine": {"type": "string", "enum": ["built-in", "model"]},
        "model": _STRING,
        "fell_back": {"type": ["string", "null"], "description": "Why no model was used, where one was to be."},
        "tokens": {
            "type": "object",
            "properties": {"input": _NUMBER, "output": _NUMBER, "cached": _NUMBER},
        },
        "dropped": {"type": "integer", "description": "Lines whose sources did not bear them out."},
        "duration_ms": _NUMBER,
    },
}

_ERRORS = {
    "400": "M_BAD_JSON or M_INVALID_PARAM: the body is not as described.",
    "401": "M_MISSING_TOKEN or M_UNKNOWN_TOKEN.",
    "403": "M_FORBIDDEN: not in the room, it is encrypted, or the bot is off in it.",
    "429": "M_LIMIT_EXCEEDED: too much waits already.",
    "502": "M_UNKNOWN: the homeserver does not answer.",
}


def openapi() -> dict[str, Any]:
    """The description: https://spec.openapis.org/oas/v3.1.0"""
    responses: dict[str, Any] = {
        "200": {"description": "The answer.", "content": {"application/json": {"schema": _ANSWER}}}
    }
    responses |= {status: {"description": text} for status, text in _ERRORS.items()}
    operation = {
        "operationId": "summarise",
        "summary": "Says what somebody missed in a room.",
        "description": "Takes in only what the owner of the access token may see.",
        "security": [{"accessToken": []}],
        "parameters": [{"name": "roomId", "in": "path", "required": True, "schema": _STRING}],
        "requestBody": {"content": {"application/json": {"schema": _REQUEST}}},
        "responses": responses,
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Summary bot", "version": "1"},
        "paths": {f"{BASE}/rooms/{{roomId}}": {"post": operation}},
        "components": {
            "securitySchemes": {
                "accessToken": {"type": "http", "scheme": "bearer", "description": "A Matrix access token."}
            }
        },
    }


def page() -> str:
    """The description for people: no script, nothing from elsewhere."""
    document = escape(msgspec.json.format(msgspec.json.encode(openapi()), indent=2).decode(), quote=False)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Summary bot: HTTP API</title>'
        f"<h1>Summary bot: HTTP API</h1><p><code>POST {BASE}/rooms/{{roomId}}</code> with a Matrix access token. As a"
        f' file: <a href="{BASE}/openapi.json">openapi.json</a></p><pre>{document}</pre></html>'
    )
