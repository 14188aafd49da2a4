"""Which application services there are, and what is theirs.

https://spec.matrix.org/v1.19/application-service-api/#registration
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from config.appservices import Namespace, Registration
from config.secret import Secret

MAX_REMEMBERED_USERS = 100_000
"""For how many user IDs it is remembered whose namespaces they are in."""


class Service:
    """An application service as it is registered. Two registrations are two services, also under one ID."""

    __slots__ = ("_domain", "id", "registration", "sender")

    def __init__(self, registration: Registration, server_name: str) -> None:
        self.registration = registration
        self.id = registration.id
        self.sender = f"@{registration.sender_localpart}:{server_name}"
        self._domain = ":" + server_name

    def __repr__(self) -> str:
        return f"<Service {self.id}>"

    def covers_user(self, user_id: str) -> bool:
        """Whether a user of this server is in its namespaces, or is the user that it acts as by itself."""
        return user_id == self.sender or (
            user_id.endswith(self._domain) and _matches(self.registration.users, user_id, exclusive=False)
        )

    def reserves_user(self, user_id: str) -> bool:
        """Whether nobody else may register this user ID."""
        return user_id == self.sender or _matches(self.registration.users, user_id, exclusive=True)

    def covers_alias(self, alias: str) -> bool:
        """Whether a room alias is in its namespaces."""
        return _matches(self.registration.aliases, alias, exclusive=False)

    def reserves_alias(self, alias: str) -> bool:
        """Whether nobody else may make or remove this alias."""
        return _matches(self.registration.aliases, alias, exclusive=True)

    def covers_room(self, room_id: str) -> bool:
        """Whether a room is in its namespaces by its ID."""
        return _matches(self.registration.rooms, room_id, exclusive=False)


def _matches(namespaces: Iterable[Namespace], value: str, *, exclusive: bool) -> bool:
    """Whether a value begins as one of the namespaces has it: registrations leave out what may follow."""
    return any(
        namespace.regex.match(value) is not None for namespace in namespaces if namespace.exclusive or not exclusive
    )


class Services:
    """The services of this moment. They are replaced as a whole when registrations change (`replace`).

    `on_changed` is called then, with the services that are there now.
    """

    def __init__(self, server_name: str) -> None:
        self._server_name = server_name
        self._by_id: dict[str, Service] = {}
        self._by_token: dict[Secret, Service] = {}
        self._of_user: dict[str, tuple[Service, ...]] = {}
        self.on_changed: list[Callable[[Sequence[Service]], None]] = []

    def __bool__(self) -> bool:
        return bool(self._by_id)

    def replace(self, registrations: Iterable[Registration]) -> None:
        """Takes registrations in place of those before. A service whose registration is the same stays the same."""
        known = {service.registration: service for service in self._by_id.values()}
        services = [known.get(entry) or Service(entry, self._server_name) for entry in registrations]
        self._by_id = {service.id: service for service in services}
        self._by_token = {service.registration.as_token: service for service in services}
        self._of_user = {}
        for observer in self.on_changed:
            observer(services)

    def all(self) -> Sequence[Service]:
        """Every service."""
        return tuple(self._by_id.values())

    def get(self, service_id: str) -> Service | None:
        """The service of this ID."""
        return self._by_id.get(service_id)

    def by_token(self, token: str) -> Service | None:
        """The service that has this as its `as_token`."""
        return self._by_token.get(Secret(token)) if self._by_token else None

    def of_user(self, user_id: str) -> tuple[Service, ...]:
        """The services in whose namespaces a user is. Worked out once for each user."""
        found = self._of_user.get(user_id)
        if found is None:
            if len(self._of_user) >= MAX_REMEMBERED_USERS:
                self._of_user.clear()
            found = tuple(service for service in self._by_id.values() if service.covers_user(user_id))
            self._of_user[user_id] = found
        return found

    def is_reserved_user(self, user_id: str) -> bool:
        """Whether a service claims a user ID for itself alone."""
        return any(service.reserves_user(user_id) for service in self._by_id.values())

    def may_have_alias(self, service_id: str | None, user_id: str, alias: str) -> bool:
        """Whether a user, or the service that acts as the user, may make and remove an alias.

        A service keeps to its own namespaces; a user keeps out of those that services have for themselves alone,
        but for that of the service that the user belongs to.
        https://spec.matrix.org/v1.19/application-service-api/#server-admin-style-permissions
        """
        if service_id is not None:
            service = self._by_id.get(service_id)
            return service is not None and service.covers_alias(alias)
        owners = [service for service in self._by_id.values() if service.reserves_alias(alias)]
        return not owners or any(service.covers_user(user_id) for service in owners)
