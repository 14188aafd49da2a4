"""English lines."""

from __future__ import annotations

TEXTS: dict[str, str] = {
    "outcome": "Outcome",
    "decisions": "Decisions",
    "open_questions": "Open questions",
    "actions": "Actions",
    "disagreements": "Disagreements",
    "title": "Summary of {room}",
    "coverage": "Covered: {covered} of {total} messages, {first} to {last} (UTC).",
    "coverage_more": "Covered: {covered} of more than {total} messages, {first} to {last} (UTC).",
    "coverage_none": "There is nothing in it: no message that you can see in what you asked for.",
    "left_out": "Messages of {people} people are left out: they opted out, or you ignore them.",
    "since_left": "Since you left off.",
    "since_day": "Where you left off is not known: the last 24 hours.",
    "by_engine": "Picked by the built-in engine: sentences as they were written.",
    "by_model": "Written by {model}; every line was checked against its sources.",
    "fell_back": "No model could be used ({reason}): picked by the built-in engine.",
    "reason_unavailable": "none answered",
    "reason_invalid": "the answer made no sense",
    "reason_budget": "the budget of {scope} for today is spent",
    "reason_no_local": "this room is kept to local models, and none is set up",
    "scope_person": "yours",
    "scope_room": "the room",
    "scope_server": "the server",
    "dropped": "{count} lines were dropped: their sources did not bear them out.",
    "nothing_found": "Nothing stands out in it.",
    "no_actions": "No actions were agreed on in it.",
    "no_decisions": "No decisions were made in it.",
    "no_answer": "The messages do not say.",
    "owner": "{owner}:",
    "working": "Reading…",
    "sent_directly": "I have sent it to you in our direct chat.",
    "why_title": "Line {number} rests on:",
    "why_nothing": "There is no answer of mine to explain here, or it has no line {number}.",
    "why_gone": "a message that is gone",
    "enabled": "I am on in this room. `!summary` says what you missed, `!help` the rest.",
    "disabled": "I am off in this room, and have forgotten what I knew of it.",
    "not_enabled": "I am off in this room. Somebody who may change its settings can say `!enable`.",
    "no_power": "That takes the power to change the settings of this room.",
    "encrypted": "This room is encrypted, and I cannot read it.",
    "enabled_encrypted": "I am on in this encrypted room, and read from now on what is sent to me with its key: nothing"
    " from before I joined. `!summary` says what you missed, `!help` the rest.",
    "unreadable": "{count} encrypted messages could not be read: I have no key for them.",
    "ask_encrypted": "This room is encrypted: I answer only what is asked encrypted, so that I know who asks.",
    "not_member": "You are not in that room, or I am not.",
    "which_room": "About which room? Name it: `!{verb} #room:server`.",
    "busy": "Too much is waiting already. Please try again a little later.",
    "busy_person": "You have {count} questions waiting already. Please wait for them.",
    "failed": "That did not work. It has been noted for the administrators; please try again later.",
    "timed_out": "That took too long, and I have stopped.",
    "welcome": "Hello! I say what you missed in a room. I am off here until somebody who may change the settings of"
    " this room says `!enable`.",
    "welcome_direct": "Hello! Invite me into a room, say `!enable` there, and ask me what you missed. `!help` says"
    " more.",
    "language_set": "I answer you in this language from now on.",
    "language_auto": "I guess your language from now on.",
    "opted_out": "Your words are kept out of every summary from now on, in every room. `!optin` takes that back.",
    "opted_in": "Your words may be summarised again.",
    "ignored": "{user} is left out of what I tell you.",
    "unignored": "{user} is no longer left out of what I tell you.",
    "role_list": "Roles here ({current} is in use):",
    "role_set": "The role here is {role}.",
    "role_unknown": "There is no such role. `!role list` shows them.",
    "local_on": "This room is kept to local models.",
    "local_off": "This room may use any model.",
    "digest_set": "You get a digest of this room {when}. The next comes at {next} (UTC).",
    "digest_here": "This room gets a digest {when}. The next comes at {next} (UTC).",
    "digest_every_day": "every day at {time} ({zone})",
    "digest_every_week": "every week at {time} ({zone})",
    "digest_off": "No more digests of this room for you.",
    "digest_none": "You have no digest of this room. `!digest daily 08:00 Europe/Berlin` orders one.",
    "digest_title": "Digest of {room}",
    "usage_title": "Used today: {tokens} tokens, {cost} {currency}, in {calls} calls; {cached} from the cache.",
    "usage_all": "All together today: {tokens} tokens, {cost} {currency}, in {calls} calls; {cached} from the cache.",
    "budget_line": "{scope}: {used} of {limit} tokens today",
    "budget_unlimited": "without a limit",
    "budget_set": "The budget is set.",
    "administrators_only": "That is for the administrators of this bot.",
    "transcribe_nothing": "Reply to a voice message with `!transcribe`.",
    "transcribe_off": "No provider that can transcribe is set up for this room.",
    "transcribe_failed": "The voice message could not be transcribed.",
    "transcript": "Transcript:",
    "catchup_title": "What matters in your rooms",
    "catchup_none": "None of your rooms has me enabled, or there is nothing new in them.",
    "catchup_room": "{room}: {count} new messages",
    "mistake_unknown_command": "I do not know that command. Did you mean `!{word}`? `!help` lists all.",
    "mistake_no_arguments": "`!{word}` takes no arguments.",
    "mistake_bad_range": "I do not understand “{word}”. Try `!summary 2h`, `today`, `200` or `2026-11-01..03`.",
    "mistake_about_what": "About what? Try `!summary about the release`.",
    "mistake_ask_what": "What do you want to know? Try `!ask when is the release?`",
    "mistake_bad_user": "That is no user. Try `@name:server`.",
    "mistake_bad_digest": "Try `!digest daily 08:00 Europe/Berlin`, `!digest weekly monday 08:00` or `!digest off`.",
    "mistake_bad_zone": "I know no time zone “{word}”. Try `Europe/Berlin` or `UTC`.",
    "mistake_bad_role": "Try `!role list` or `!role use assistant`.",
    "mistake_bad_language": "Try `!lang en`, `!lang zh` or `!lang auto`.",
    "mistake_bad_number": "Try `!why 2`: the number of a line of my answer.",
    "mistake_on_or_off": "Try `!{word} on` or `!{word} off`.",
    "mistake_bad_usage": "Try `!usage`, `!usage room` or, for administrators, `!usage all`.",
    "mistake_bad_budget": "Try `!budget`; administrators: `!budget person @name:server 100000`, `room`, or `server`.",
    "help": """I say what you missed, with links to what was said. I answer in a direct chat; with `here`, in the room.

`!summary` – what is new since you left off
`!summary 2h` · `today` · `200` · `2026-11-01..03` · `@user` · `thread` · `about TEXT` – a part of it
`!catchup` – all your rooms, what matters first
`!actions` · `!decisions` – only these
`!ask QUESTION` – answered from the history of the room
`!why 2` – what the second line of my answer rests on
`!digest daily 08:00 Europe/Berlin` · `!digest off` – regularly
`!transcribe` – in reply to a voice message
`!lang en` · `!role list` · `!role use NAME` – how I write
`!optout` · `!optin` – keeps your words out of everything
`!ignore @user:server` · `!unignore @user:server` – whom you do not want to hear of
`!usage` · `!budget` – what it costs
`!enable` · `!disable` · `!local on` – for those who may change the room's settings""",
}
