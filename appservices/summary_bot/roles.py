"""Manners of speaking that are always there. Administrators add their own in the configuration."""

from __future__ import annotations

from collections.abc import Iterable

from appservices.summary_bot.config import Role

BUILT_IN = (
    Role(name="assistant", description="Neutral and brief.", prompt="Write neutrally and briefly."),
    Role(
        name="writer",
        description="In whole, well-made sentences.",
        prompt="Write in whole, well-made sentences that read pleasantly, without adding anything.",
    ),
    Role(
        name="expert",
        description="Technical, for those who know the subject.",
        prompt="Write for technical experts: keep exact terms, versions, names and figures; explain nothing basic.",
    ),
    Role(name="casual", description="Relaxed, as among friends.", prompt="Write in a relaxed and friendly manner."),
)


def all_roles(own: Iterable[Role]) -> dict[str, Role]:
    """Roles by name; the administrators' own replace those that are always there."""
    return {role.name: role for role in (*BUILT_IN, *own)}
