"""The pages that links in mails lead to: confirming an address, ending notifications.

Opening one changes nothing, for programs that look through mails open it too; a button does.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from aiohttp import web

from homeserver.http.pages import html_page
from homeserver.http.request import Request, Result, Route
from homeserver.services.email.links import CONFIRM_PATH, UNSUBSCRIBE_PATH
from homeserver.services.email.validations import origin_of
from homeserver.services.errors import MatrixError, NotFound
from storage.threepids import ValidationRow

if TYPE_CHECKING:
    from homeserver.services.email_parts import EmailParts

FORM = '<form method="post"><button>Confirm</button></form>'
NOT_WHOLE = MatrixError(400, "M_UNKNOWN", "This link is not whole. Copy all of it from the mail.")
UNSUBSCRIBE_FORM = '<form method="post"><button>Get no such mails any more</button></form>'


def _email(request: Request) -> EmailParts:
    if request.server.email is None:
        raise NotFound("This server sends no e-mail")
    return request.server.email


async def confirm_page(request: Request) -> Result:
    """Asks whoever opened the link in a mail whether they want what it is for."""
    email = _email(request)
    request.server.rate_limits.check("login", f"email page {request.address}")
    try:
        row = await email.validations.find(request.query.get("sid", ""), request.query.get("token", ""))
    except MatrixError as error:
        return _failed(error)
    title, lead = await _question(email, row)
    return html_page(
        "email.html", {"title": title, "lead": lead}, markup={"next": FORM}, form_targets=_targets(email, row)
    )


async def confirm(request: Request) -> Result:
    """What the page above sends: the address is proved. Leads on to a client that the administrator has named."""
    email = _email(request)
    request.server.rate_limits.check("login", f"email page {request.address}")
    try:
        row = await email.validations.confirm(request.query.get("sid", ""), request.query.get("token", ""))
    except MatrixError as error:
        return _failed(error)
    if row.next_link is not None and email.validations.may_follow(row.next_link):
        return web.Response(status=303, headers={"Location": row.next_link, "Referrer-Policy": "no-referrer"})
    markup = ""
    if row.next_link is not None:  # somebody asked for it, who may be anybody: shown with where it leads
        link, host = html.escape(row.next_link), html.escape(urlsplit(row.next_link).netloc)
        markup = f'<p><a href="{link}" rel="noopener noreferrer">Go on to {host}</a></p>'
    lead = f"{row.address} is confirmed. Close this window, and go on in your client."
    return html_page("email.html", {"title": "Done", "lead": lead}, markup={"next": markup})


async def unsubscribe_page(request: Request) -> Result:
    """Asks whoever opened the link at the end of a notification whether they want no more of them."""
    email = _email(request)
    request.server.rate_limits.check("login", f"email page {request.address}")
    if _pusher_of_link(email, request) is None:
        return _failed(NOT_WHOLE)
    values = {"title": "No more mails?", "lead": "You will not get notifications from here at this address any more."}
    return html_page("email.html", values, markup={"next": UNSUBSCRIBE_FORM})


async def unsubscribe(request: Request) -> Result:
    """What the page above sends, and mail programs by themselves: the notifications end.

    https://www.rfc-editor.org/rfc/rfc8058
    """
    email = _email(request)
    request.server.rate_limits.check("login", f"email page {request.address}")
    pusher = _pusher_of_link(email, request)
    if pusher is None:
        return _failed(NOT_WHOLE)
    await email.notifications.unsubscribe(pusher)
    values = {"title": "Done", "lead": "You get no such mails any more. Your client can turn them on again."}
    return html_page("email.html", values, markup={"next": ""})


def _pusher_of_link(email: EmailParts, request: Request) -> int | None:
    """The pusher whose mails a link ends; None for a link that is none."""
    pusher = request.query.get("pusher", "")
    return int(pusher) if email.links.is_unsubscription(pusher, request.query.get("token", "")) else None


async def _question(email: EmailParts, row: ValidationRow) -> tuple[str, str]:
    ending = "If you did not ask for this, close this page: nothing will happen."
    if row.purpose == "password":
        user_id = await email.validations.user_of(row) or "your account"
        return (
            "Set a new password?",
            f"Somebody wants to set a new password for {user_id}. Confirm only if that is you. {ending}",
        )
    if row.purpose == "register":
        return "Confirm your address", f"Somebody is making an account with the address {row.address}. {ending}"
    return "Confirm your address", f"Somebody wants to add the address {row.address} to their account. {ending}"


def _targets(email: EmailParts, row: ValidationRow) -> tuple[str, ...]:
    """Where browsers may be led by the form, beside this server."""
    if row.next_link is None or not email.validations.may_follow(row.next_link):
        return ()
    origin = origin_of(row.next_link)
    return () if origin is None else (origin,)


def _failed(error: MatrixError) -> web.Response:
    values = {"title": "That did not work", "lead": error.message}
    return html_page("email.html", values, markup={"next": ""}, status=error.status)


ROUTES = [
    Route("GET", CONFIRM_PATH, "confirmPage", confirm_page, auth=False),
    Route("POST", CONFIRM_PATH, "confirm", confirm, auth=False),
    Route("GET", UNSUBSCRIBE_PATH, "unsubscribePage", unsubscribe_page, auth=False),
    Route("POST", UNSUBSCRIBE_PATH, "unsubscribe", unsubscribe, auth=False),
]
