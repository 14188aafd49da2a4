"""User-interactive authentication: proving again who one is, in stages, before something sensitive happens.

https://spec.matrix.org/v1.19/client-server-api/#user-interactive-authentication-api
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from homeserver.clock import Clock
from homeserver.services.accounts.login import Login, text_of
from homeserver.services.accounts.registration import PENDING_MS, Registration
from homeserver.services.email.validations import Purpose, Validations
from homeserver.services.errors import BadJson, Forbidden, MatrixError, MissingParam
from storage.accounts import AccountRepository, InteractiveSessionRow

SESSION_LIFETIME_MS: Final = PENDING_MS
PASSWORD_FLOWS: Final[Sequence[Sequence[str]]] = [["m.login.password"]]
"""For what a logged-in user does with the account."""
EMAIL_STAGE: Final = "m.login.email.identity"
RESET_FLOWS: Final[Sequence[Sequence[str]]] = [[EMAIL_STAGE]]
"""For somebody who has forgotten the password."""
RESET_OPERATION: Final = "changePassword"


class Completed(NamedTuple):
    """What a flow was completed with that is to be used up: a registration token, an attempt to prove an address."""

    registration_token: str | None = None
    email_sid: str | None = None

    def __or__(self, other: Completed) -> Completed:
        """Both together."""
        return Completed(other.registration_token or self.registration_token, other.email_sid or self.email_sid)


class InteractiveAuthRequired(MatrixError):
    """401: further stages are needed, or the last attempt at one has failed. The body has its own form."""

    def __init__(
        self,
        session: str,
        flows: Sequence[Sequence[str]],
        completed: Sequence[str],
        failure: MatrixError | None = None,
        params: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(401, failure.errcode if failure else "M_UNAUTHORIZED", str(failure or "Authentication needed"))
        self._content = {
            "session": session,
            "flows": [{"stages": list(stages)} for stages in flows],
            "params": dict(params or {}),
            **({"completed": list(completed)} if completed else {}),
            **(failure.body() if failure else {}),
        }

    def body(self) -> dict[str, Any]:
        """As https://spec.matrix.org/v1.19/client-server-api/#user-interactive-api-in-the-rest-api has it."""
        return self._content


class InteractiveAuth:
    """Keeps sessions, each tied to one operation of one user, in the database, and runs the stages of their flows."""

    def __init__(
        self,
        accounts: AccountRepository,
        login: Login,
        registration: Registration,
        clock: Clock,
        validations: Validations | None = None,
    ) -> None:
        self._accounts = accounts
        self._login = login
        self._registration = registration
        self._clock = clock
        self._validations = validations

    async def check(
        self,
        operation: str,
        auth: Mapping[str, object] | None,
        flows: Sequence[Sequence[str]],
        *,
        user_id: str | None = None,
        params: Mapping[str, Any] | None = None,
        email_for: Purpose = "register",
    ) -> Completed:
        """Returns once `auth`, the request's own, completes one of the flows; the session ends with that.

        `operation` names what is to happen, as method and path do; `user_id` is who asks, where that is known;
        `params` is what clients are told for the stages; `email_for` is what an address has to be proved for, where
        that is a stage. A client may attempt the first stage without a session.

        Raises InteractiveAuthRequired until a flow is complete, LimitExceeded for too many failures, BadJson or
        MissingParam for an `auth` that makes no sense.
        """
        request_hash = _request_hash(operation, user_id)
        session, completed, used = await self._load(auth, request_hash)
        if auth is None:
            session = await self._new_session(request_hash, user_id)
            raise InteractiveAuthRequired(session, flows, completed, params=params)
        stage = auth.get("type")
        failure: MatrixError | None = None
        if session is None and auth.get("session") is not None:  # not even a stage that would do lets it in
            failure = Forbidden("Unknown or expired session")
        elif stage is not None and stage not in completed:
            try:
                used |= await self._attempt(stage, auth, flows, completed, user_id, session, email_for)
                completed = [*completed, str(stage)]
            except MatrixError as error:
                if error.status != 403 and error.errcode != "M_UNRECOGNIZED":
                    raise
                failure = error
        if completed in [list(stages) for stages in flows]:
            if session is not None:
                await self._accounts.delete_session(session)
            return used
        session = session or await self._new_session(request_hash, user_id)
        if stage in completed:
            await self._accounts.complete_stage(session, str(stage), *used)
        raise InteractiveAuthRequired(session, flows, completed, failure, params)

    async def _load(
        self, auth: Mapping[str, object] | None, request_hash: bytes
    ) -> tuple[str | None, list[str], Completed]:
        """The session that a client names, if it is good for this request, the stages completed in it, and what they
        were completed with."""
        session = None if auth is None else auth.get("session")
        if session is None:
            return None, [], Completed()
        if not isinstance(session, str):
            raise BadJson("auth.session must be a string")
        found = await self._find(session)
        if found is None or not secrets.compare_digest(found.request_hash, request_hash):
            return None, [], Completed()
        return session, found.completed, Completed(found.registration_token, found.email_sid)

    async def attempt(self, session: str, stage: str, auth: Mapping[str, object]) -> None:
        """Completes a stage by itself, for a client that does not know how to; nothing happens if it is completed.

        Raises Forbidden for a session that is not there or a stage that fails, MatrixError (401 M_UNRECOGNIZED) for a
        stage that does not come next, or as the stage does.
        https://spec.matrix.org/v1.19/client-server-api/#fallback
        """
        found = await self._find(session)
        if found is None:
            raise Forbidden("Unknown or expired session")
        if stage in found.completed:
            return
        purpose = _purpose_of(found)
        if found.user_id is not None:
            flows = PASSWORD_FLOWS
        else:
            flows = RESET_FLOWS if purpose == "password" else self._registration.flows
        used = await self._attempt(stage, auth, flows, found.completed, found.user_id, session, purpose)
        await self._accounts.complete_stage(session, stage, *used)

    async def email_purpose(self, session: str) -> Purpose:
        """What an address has to be proved for in a session. Raises Forbidden for one that is not there."""
        found = await self._find(session)
        if found is None:
            raise Forbidden("Unknown or expired session")
        return _purpose_of(found)

    async def _find(self, session: str) -> InteractiveSessionRow | None:
        if "\0" in session:
            return None
        return await self._accounts.load_session(session, since_ts=self._clock() - SESSION_LIFETIME_MS)

    async def _new_session(self, request_hash: bytes, user_id: str | None) -> str:
        session = secrets.token_urlsafe(18)
        await self._accounts.insert_session(
            session, request_hash, user_id, now_ms=self._clock(), keep_ms=SESSION_LIFETIME_MS
        )
        return session

    async def _attempt(
        self,
        stage: object,
        auth: Mapping[str, object],
        flows: Sequence[Sequence[str]],
        completed: list[str],
        user_id: str | None,
        session: str | None,
        email_for: Purpose = "register",
    ) -> Completed:
        """Runs a stage; returns what it takes that is to be used up. Raises MatrixError."""
        if not isinstance(stage, str):
            raise BadJson("auth.type must be a string")
        if not any(list(stages[: len(completed) + 1]) == [*completed, stage] for stages in flows):
            raise MatrixError(401, "M_UNRECOGNIZED", "No flow has this stage next")
        if stage == "m.login.password":
            await self._check_password(auth, user_id)
        elif stage == "m.login.registration_token":
            # https://spec.matrix.org/v1.19/client-server-api/#token-authenticated-registration
            return Completed(registration_token=await self._registration.check_token(text_of(auth, "token"), session))
        elif stage == EMAIL_STAGE:
            return Completed(email_sid=await self._check_email(auth, email_for))
        else:  # accepting the policies is saying so
            assert stage in ("m.login.dummy", "m.login.terms"), stage
        return Completed()

    async def _check_email(self, auth: Mapping[str, object], purpose: Purpose) -> str:
        """https://spec.matrix.org/v1.19/client-server-api/#email-based-identity--homeserver"""
        assert self._validations is not None, "no flow has this stage without e-mail"
        credentials = auth.get("threepid_creds")
        if credentials is None:
            raise MissingParam("Missing threepid_creds")
        if not isinstance(credentials, dict):
            raise BadJson("threepid_creds must be an object")
        return (await self._validations.proved(credentials, purpose)).sid

    async def _check_password(self, auth: Mapping[str, object], user_id: str | None) -> None:
        """https://spec.matrix.org/v1.19/client-server-api/#password-based"""
        user = await self._login.authenticate(auth)
        if user_id is not None and user.user_id != user_id:
            raise Forbidden("This is not your own account")


def _request_hash(operation: str, user_id: str | None) -> bytes:
    """What a session is tied to."""
    return hashlib.sha256(f"{operation}\0{user_id or ''}".encode()).digest()


def _purpose_of(found: InteractiveSessionRow) -> Purpose:
    return "password" if found.request_hash == _request_hash(RESET_OPERATION, None) else "register"
