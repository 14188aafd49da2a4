"""Telling the administrators: https://spec.matrix.org/v1.19/client-server-api/#reporting-content"""

from __future__ import annotations

import msgspec

from homeserver.http.request import Request, Result, Route


class ReportBody(msgspec.Struct):
    """Why it is reported; it may be blank."""

    reason: str


class EventReportBody(msgspec.Struct):
    """The same, for events: it may also be left out."""

    reason: str = ""


async def report_room(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreport"""
    reason, reporter = await _report(request)
    await request.server.reports.report_room(reporter, request.params["roomId"], reason)
    return {}


async def report_event(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreporteventid"""
    reason, reporter = await _report(request, EventReportBody)
    params = request.params
    await request.server.reports.report_event(reporter, params["roomId"], params["eventId"], reason)
    return {}


async def report_user(request: Request) -> Result:
    """https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3usersuseridreport"""
    reason, reporter = await _report(request)
    await request.server.reports.report_user(reporter, request.params["userId"], reason)
    return {}


async def _report(request: Request, form: type[ReportBody] | type[EventReportBody] = ReportBody) -> tuple[str, str]:
    """The reason, and who reports."""
    body = await request.body(form)
    request.server.rate_limits.check("report", request.requester.user_id)
    return body.reason, request.requester.user_id


ROUTES = [
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/report", "reportRoom", report_room),
    Route("POST", "/_matrix/client/v3/rooms/{roomId}/report/{eventId}", "reportEvent", report_event),
    Route("POST", "/_matrix/client/v3/users/{userId}/report", "reportUser", report_user),
]
