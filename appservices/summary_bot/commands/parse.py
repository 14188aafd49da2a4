"""Reads commands. Pure: text in, a Command, a Mistake or None (it was not meant for the bot) out."""

from __future__ import annotations

import difflib
import re
import zoneinfo
from collections.abc import Sequence

from appservices.summary_bot.commands.model import VERBS, Command, Mistake, Schedule, Scope, Verb
from appservices.summary_bot.events import matrix_id
from appservices.summary_bot.languages import LANGUAGE_CODES
from appservices.summary_bot.ranges import RangeError, parse_range

MAX_COMMAND_CHARACTERS = 4000
MAX_TOPIC_CHARACTERS = 500

PREFIXES = ("!", "！")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ALIASES: dict[str, Verb] = {"summarize": "summary", "summarise": "summary", "language": "lang", "catch-up": "catchup"}

_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)")
_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,31}")


def parse_message(body: str, *, names: Sequence[str], is_direct: bool, max_messages: int) -> Command | Mistake | None:
    """What a message wants of the bot.

    Meant for the bot is what begins with `!` and a command, or with one of the bot's names (a mention), and all that
    is written in a direct chat with it. In rooms other bots have commands with `!` too: an unknown one is a mistake
    only where it looks like one of ours misspelt.
    """
    text = body.strip()[:MAX_COMMAND_CHARACTERS]
    after_name = _after_name(text, names)
    addressed = is_direct or after_name is not None
    text = text if after_name is None else after_name
    prefixed = text.startswith(PREFIXES)
    if not (addressed or prefixed):
        return None
    word, _, rest = (text[1:] if prefixed else text).partition(" ")
    word, _, line = word.partition("\n")
    rest = f"{line} {rest}".strip() if line else rest.strip()
    word = word.lower()
    verb = ALIASES.get(word) or next((known for known in VERBS if known == word), None)
    if verb is not None:
        return parse_arguments(verb, rest, max_messages=max_messages)
    if not prefixed:
        return Command("ask", text=text[:MAX_TOPIC_CHARACTERS]) if text else Command("help")
    near = difflib.get_close_matches(word, VERBS, n=1, cutoff=0.75)
    if near or addressed:
        return Mistake("unknown_command", near[0] if near else word[:32])
    return None


def address(text: str, names: Sequence[str]) -> str | None:
    """A message that mentions the bot, as if it began with that; None if none of the bot's names is in it.

    A reply mentions whom it replies to without naming them: that alone asks nothing.
    https://spec.matrix.org/v1.19/client-server-api/#user-and-room-mentions
    """
    for name in sorted(names, key=len, reverse=True):
        own = re.escape(name)
        pattern = rf"{own}(?!:\w)" if name.startswith("@") else rf"(?<!@){own}|@{own}(?!:\w)"
        pattern = rf"(?<![A-Za-z0-9_])(?:{pattern})(?![A-Za-z0-9_])"
        match = re.search(pattern, text, re.IGNORECASE) if name else None
        if match is not None:
            before, after = text[: match.start()].rstrip(" \t,，"), text[match.end() :].lstrip(" \t,，:：")
            rest = f"{before} {after}" if before and after[:1].isascii() and after[:1].isalnum() else f"{before}{after}"
            return f"{names[0]}: {rest.strip()}"
    return None


def _after_name(text: str, names: Sequence[str]) -> str | None:
    """What follows the bot's name, if the text begins with it. A name that is a command too, as `summary` may be, is
    the name only before a colon or another command."""
    for name in sorted(names, key=len, reverse=True):
        if not name or not text.casefold().startswith(name.casefold()):
            continue
        rest = text[len(name) :]
        if rest and (rest[0].isalnum() or rest[0] in "_-.="):
            continue
        following = rest.lstrip(" \t:,，：")
        is_called = rest.lstrip()[:1] in (":", ",", "，", "：")
        first = following.lstrip("!！").partition(" ")[0].lower()
        if name.casefold() in VERBS and not is_called and first not in VERBS:
            continue
        return following
    return None


def parse_arguments(verb: Verb, rest: str, *, max_messages: int) -> Command | Mistake:
    """A command whose name is known."""
    if verb in ("summary", "actions", "decisions"):
        scope = parse_scope(rest.split(), max_messages=max_messages)
        return scope if isinstance(scope, Mistake) else Command(verb, scope)
    if verb == "ask":
        return _ask(rest, max_messages=max_messages)
    if verb == "digest":
        return _digest(rest.split())
    small = {
        "role": _role, "lang": _language, "why": _number, "ignore": _user, "unignore": _user, "local": _switch,
        "budget": _budget, "usage": _usage,
    }.get(verb)  # fmt: skip
    if small is not None:
        return small(verb, rest.split())
    if rest and verb not in ("help", "transcribe", "catchup"):
        return Mistake("no_arguments", verb)
    return Command(verb)


def parse_scope(words: Sequence[str], *, max_messages: int) -> Scope | Mistake:
    """The arguments of `!summary` in any order; `about` takes all that follows it."""
    found: dict[str, object] = {}
    for position, word in enumerate(words):
        low = word.lower()
        if low == "about":
            topic = " ".join(words[position + 1 :])[:MAX_TOPIC_CHARACTERS]
            if not topic:
                return Mistake("about_what")
            found["about"] = topic
            break
        if low in ("thread", "here"):
            found[low] = True
        elif word.startswith("@"):
            if len(word) < 2:
                return Mistake("bad_user", word)
            found["sender"] = word[:255]
        elif word.startswith(("#", "!")) and matrix_id(word, word[0]) is not None:
            found["room"] = word
        else:
            try:
                asked = parse_range(word, max_messages=max_messages)
            except RangeError:
                return Mistake("bad_range", word[:32])
            if asked is None or "range" in found:
                return Mistake("bad_range", word[:32])
            found["range"] = asked
    return Scope(**found)  # type: ignore[arg-type]


def _ask(rest: str, *, max_messages: int) -> Command | Mistake:
    """`!ask [here] [range] QUESTION`: a range, `here` and a room may stand before the question."""
    words = rest.split()
    leading = 0
    while leading < min(len(words), 3):
        word = words[leading]
        if word.lower() == "here" or matrix_id(word, "#") or (":" in word and matrix_id(word, "!")):
            leading += 1
            continue
        try:
            if word.isdigit() or parse_range(word, max_messages=max_messages) is None:
                break
        except RangeError:
            break
        leading += 1
    question = " ".join(words[leading:])[:MAX_TOPIC_CHARACTERS]
    if not question:
        return Mistake("ask_what")
    scope = parse_scope(words[:leading], max_messages=max_messages)
    return scope if isinstance(scope, Mistake) else Command("ask", scope, text=question)


def _digest(words: Sequence[str]) -> Command | Mistake:
    """`!digest daily 08:00 Europe/Berlin`, `!digest weekly monday 08:00 Asia/Shanghai`, `!digest off`, `!digest`."""
    low = [word.lower() for word in words]
    if not words or low == ["off"]:
        return Command("digest", words=tuple(low))
    here = low[-1] == "here"
    parts = list(words[:-1] if here else words)
    weekday = None
    if low[0] == "weekly" and len(parts) > 1 and low[1] in WEEKDAYS:
        weekday = WEEKDAYS.index(low[1])
        del parts[1]
    elif low[0] != "daily":
        return Mistake("bad_digest")
    if len(parts) not in (2, 3) or not (match := _TIME.fullmatch(parts[1])):
        return Mistake("bad_digest")
    zone = parts[2] if len(parts) == 3 else "UTC"
    if not is_time_zone(zone):
        return Mistake("bad_zone", zone[:64])
    schedule = Schedule(int(match[1]) * 60 + int(match[2]), zone, weekday)
    return Command("digest", Scope(here=here), schedule=schedule)


def is_time_zone(name: str) -> bool:
    """Whether the IANA database knows a time zone of this name."""
    return re.fullmatch(r"[A-Za-z0-9_+\-/]{1,64}", name) is not None and name in zoneinfo.available_timezones()


def _role(verb: Verb, words: Sequence[str]) -> Command | Mistake:
    if not words or list(words) == ["list"]:
        return Command(verb, words=("list",))
    if len(words) == 2 and words[0] == "use" and _ROLE.fullmatch(words[1].lower()):
        return Command(verb, words=("use", words[1].lower()))
    return Mistake("bad_role")


def _language(verb: Verb, words: Sequence[str]) -> Command | Mistake:
    if len(words) == 1:
        language = words[0].lower().replace("_", "-").partition("-")[0]  # `pt-BR` is `pt`
        if language == "auto" or language in LANGUAGE_CODES:
            return Command(verb, words=(language,))
    return Mistake("bad_language")


def _number(verb: Verb, words: Sequence[str]) -> Command | Mistake:
    if not words:
        return Command(verb)
    if len(words) == 1 and re.fullmatch(r"[1-9]\d{0,3}", words[0]):
        return Command(verb, words=(words[0],))
    return Mistake("bad_number")


def _user(verb: Verb, words: Sequence[str]) -> Command | Mistake:
    if len(words) == 1 and matrix_id(words[0], "@") and ":" in words[0]:
        return Command(verb, words=(words[0],))
    return Mistake("bad_user", words[0][:64] if words else "")


def _switch(verb: Verb, words: Sequence[str]) -> Command | Mistake:
    if len(words) == 1 and words[0].lower() in ("on", "off"):
        return Command(verb, words=(words[0].lower(),))
    return Mistake("on_or_off", verb)


def _usage(verb: Verb, words: Sequence[str]) -> Command | Mistake:
    if not words or list(words) in (["all"], ["room"]):
        return Command(verb, words=tuple(words))
    return Mistake("bad_usage")


def _budget(verb: Verb, words: Sequence[str]) -> Command | Mistake:
    """`!budget`; for administrators `!budget person @user:server 100000`, `!budget room !id N`, `!budget server N`."""
    if not words:
        return Command(verb)
    count = words[-1]
    if not re.fullmatch(r"\d{1,15}|default", count):
        return Mistake("bad_budget")
    if len(words) == 2 and words[0] == "server":
        return Command(verb, words=("server", "", count))
    sigil = {"person": "@", "room": "!"}.get(words[0])
    if len(words) == 3 and sigil is not None and matrix_id(words[1], sigil):
        return Command(verb, words=(words[0], words[1], count))
    return Mistake("bad_budget")
