"""Pages for clients that do not know how to log in, or how to go through a stage of interactive authentication.

https://spec.matrix.org/v1.19/client-server-api/#fallback
https://spec.matrix.org/v1.19/client-server-api/#login-fallback
"""

from __future__ import annotations

import html
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from aiohttp import web

from homeserver.http.pages import html_page
from homeserver.http.request import Request, Result, Route
from homeserver.services.accounts.interactive_auth import EMAIL_STAGE
from homeserver.services.errors import MatrixError, MissingParam, NotFound

MAX_SESSION_CHARS = 255


class Stage(NamedTuple):
    """What the page of a stage says and asks for, the fields as HTML."""

    title: str
    lead: str
    button: str
    fields: str = ""


STAGES = {
    "m.login.password": Stage(
        "Confirm that it is you",
        "Your client wants to do something for which you have to give your password again.",
        "Confirm",
        '<label>User name <input name="user" autocomplete="username" autocapitalize="none" required></label>'
        '<label>Password <input name="password" type="password" autocomplete="current-password" required></label>',
    ),
    "m.login.registration_token": Stage(
        "Registration token",
        "An account on this server takes a token. You get one from whoever runs it.",
        "Continue",
        '<label>Token <input name="token" autocomplete="off" autocapitalize="none" required></label>',
    ),
    "m.login.terms": Stage("Terms", "To make an account, read and accept these:", "Accept"),
    "m.login.dummy": Stage("Registration", "Nothing more is needed to make an account.", "Continue"),
    EMAIL_STAGE: Stage(
        "Your e-mail address",
        "You will get a mail with a link in it.",
        "Send the mail",
        '<label>E-mail address <input name="email" type="email" autocomplete="email" required></label>',
    ),
}
MAIL_SENT = Stage(
    "Look at your mail",
    "A mail is on its way to you. Open the link in it, confirm there, and then come back here.",
    "I have confirmed",
)


async def login_fallback_page(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#login-fallback"""
    return html_page("login.html", {"server_name": request.server.config.server_name}, script="login.js")


async def auth_fallback_page(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#fallback"""
    session = request.query.get("session")
    if not session:
        raise MissingParam("Missing session")
    return _stage_page(request, session)


async def auth_fallback(request: Request) -> Result:
    """What the page above sends: an attempt at the stage."""
    form = await request.form()
    stage, session = _stage_name(request), form.get("session", "")
    request.server.rate_limits.check("login", f"fallback {request.address}")
    sent: Mapping[str, str] | None = None
    try:
        if stage != EMAIL_STAGE:
            await request.server.interactive_auth.attempt(session, stage, form)
        elif "sid" not in form:
            sent = await _send_mail(request, session, form.get("email", ""))
            return _mail_page(session, sent)
        else:
            sent = {name: form.get(name, "") for name in ("sid", "client_secret")}
            await request.server.interactive_auth.attempt(session, stage, {"threepid_creds": sent})
    except MatrixError as error:
        return _stage_page(request, session, error) if sent is None else _mail_page(session, sent, error)
    return html_page("auth_done.html", {}, script="auth_done.js")


async def _send_mail(request: Request, session: str, address: str) -> dict[str, str]:
    """Has a mail sent that proves an address; what names the attempt. Raises MatrixError."""
    email = request.server.email
    if email is None:
        raise NotFound("This server sends no e-mail")
    purpose = await request.server.interactive_auth.email_purpose(session)
    secret = secrets.token_urlsafe(18)
    sid = await email.validations.request(
        purpose, address, secret, send_attempt=1, next_link=None, network_address=request.address
    )
    email.validation_mails.wake()
    return {"sid": sid, "client_secret": secret}


def _stage_name(request: Request) -> str:
    name = request.params["authType"]
    if name not in STAGES:
        raise NotFound("This server has no such stage of authentication")
    return name


def _stage_page(request: Request, session: str, error: MatrixError | None = None) -> web.Response:
    name = _stage_name(request)
    fields = STAGES[name].fields if name != "m.login.terms" else _policies(request)
    return _form_page(STAGES[name], session, fields, error)


def _mail_page(session: str, sent: Mapping[str, str], error: MatrixError | None = None) -> web.Response:
    """What is shown while a mail is on its way."""
    fields = "".join(f'<input type="hidden" name="{name}" value="{html.escape(sent[name])}">' for name in sent)
    return _form_page(MAIL_SENT, session, fields, error)


def _form_page(stage: Stage, session: str, fields: str, error: MatrixError | None) -> web.Response:
    values = {
        "title": stage.title,
        "lead": stage.lead,
        "button": stage.button,
        "failure": error.message if error is not None else "",
        "session": session[:MAX_SESSION_CHARS],
    }
    return html_page("auth.html", values, markup={"fields": fields}, status=error.status if error is not None else 200)


def _policies(request: Request) -> str:
    """Links to what is to be accepted."""
    links = (
        f'<li><a href="{html.escape(policy.url)}" target="_blank" rel="noopener">{html.escape(policy.name)}</a></li>'
        for policy in request.server.config.registration.policies
    )
    return f"<ul>{''.join(links)}</ul>"


FALLBACK = "/_matrix/client/v3/auth/{authType}/fallback/web"

ROUTES = [
    Route("GET", FALLBACK, "authFallbackPage", auth_fallback_page, auth=False),
    Route("POST", FALLBACK, "authFallback", auth_fallback, auth=False),
    Route("GET", "/_matrix/static/client/login/", "loginFallbackPage", login_fallback_page, auth=False),
]
