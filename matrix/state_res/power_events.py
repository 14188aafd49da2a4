"""Power events, which might remove someone's ability to do something in the room."""

from matrix.pdu import Pdu


def is_power_event(pdu: Pdu) -> bool:
    """Tell whether this is a power event, https://spec.matrix.org/v1.19/rooms/v2/#definitions."""
    # "A power event is a state event ..."
    if pdu.state_key is None:
        return False
    # "... with type m.room.power_levels or m.room.join_rules, ..."
    if pdu.type == "m.room.power_levels" or pdu.type == "m.room.join_rules":
        return True
    # "... or a state event with type m.room.member where the membership is leave or ban and the sender does not match
    # the state_key."
    return (
        pdu.type == "m.room.member"
        and pdu.content.get("membership") in ("leave", "ban")
        and pdu.sender != pdu.state_key
    )
