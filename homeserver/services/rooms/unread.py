"""One member's unread counts, as a difference of the room's running counts (docs/adr/0004)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class UnreadCounts:
    """What has to be known of a member to tell their counts, from the room's running counts alone.

    `read_up_to` is the position of the event they have read, or of their join; the bases are the room's running
    counts there. `own` and `redacted` notifying events since then count for nobody or no longer; mentions and the
    like are added by `personal_notify` and `personal_highlight`.
    """

    read_up_to: int
    notify_base: int
    highlight_base: int
    own: int = 0
    redacted: int = 0
    redacted_highlights: int = 0
    personal_notify: int = 0
    personal_highlight: int = 0

    def notifications(self, running: int) -> int:
        """The `notification_count`, where the room's running count is `running`."""
        return max(0, running - self.notify_base - self.own - self.redacted + self.personal_notify)

    def highlights(self, running: int) -> int:
        """The `highlight_count`, likewise."""
        return max(0, running - self.highlight_base - self.redacted_highlights + self.personal_highlight)
