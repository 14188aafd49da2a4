"""A value that must not be printed."""

import hmac


class Secret:
    """A secret string. `str()`, `repr()` and `format()` never show it; only `reveal()` does."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself: call it where the secret is used, and nowhere earlier."""
        return self._value

    def matches(self, candidate: str) -> bool:
        """Whether `candidate` is the secret, in a time that does not tell how much of it was right."""
        return hmac.compare_digest(self._value.encode(), candidate.encode("utf-8", "surrogatepass"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._value)

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "Secret(***)"

    def __str__(self) -> str:
        return "***"

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("a Secret is not to be pickled")
