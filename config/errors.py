"""What the loader raises."""

from collections.abc import Iterable


class ConfigError(ValueError):
    """The configuration cannot be used. `problems` holds every complaint, each beginning with where it is."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))
