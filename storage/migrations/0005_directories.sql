-- What directories and previews tell of rooms and users, and what users say about themselves in their presence.

-- What a room is like now, for lists of rooms: written along with the events that change it.
CREATE TABLE room_summaries (
    room            integer PRIMARY KEY,
    joined_members  integer NOT NULL,
    name            text,
    topic           text,
    canonical_alias text,
    avatar_url      text,
    room_type       text,
    join_rule       text NOT NULL,
    world_readable  boolean NOT NULL,
    guest_can_join  boolean NOT NULL,
    search_text     text NOT NULL               -- name, topic and alias, in the form in which they are searched
);
CREATE INDEX rooms_public ON rooms (room) WHERE is_public;

-- A user's ID and display name, in the form in which they are searched.
ALTER TABLE users ADD COLUMN directory_text text NOT NULL DEFAULT '';

CREATE TABLE presence (
    user_id         text PRIMARY KEY REFERENCES users,
    status_msg      bytea,
    position        bigint NOT NULL
);

-- What was there before: the newest of each kind of state event, but those with NUL characters, which no text can hold.
WITH texts AS (
    SELECT room, type, position, convert_from(json, 'UTF8') AS json FROM events
    WHERE kind = 0 AND type IN ('m.room.create', 'm.room.name', 'm.room.topic', 'm.room.canonical_alias',
        'm.room.avatar', 'm.room.join_rules', 'm.room.history_visibility', 'm.room.guest_access')
), state AS (
    SELECT DISTINCT ON (room, type) room, type, json::json -> 'content' AS content FROM texts
    WHERE strpos(json, '\u0000') = 0 AND json::json ->> 'state_key' = ''
    ORDER BY room, type, position DESC
), summaries AS (
    SELECT r.room,
        (SELECT count(*) FROM memberships m WHERE m.room = r.room AND m.membership = 'join') AS joined_members,
        (SELECT content ->> 'name' FROM state s WHERE s.room = r.room AND type = 'm.room.name') AS name,
        (SELECT content ->> 'topic' FROM state s WHERE s.room = r.room AND type = 'm.room.topic') AS topic,
        (SELECT content ->> 'alias' FROM state s WHERE s.room = r.room AND type = 'm.room.canonical_alias') AS alias,
        (SELECT content ->> 'url' FROM state s WHERE s.room = r.room AND type = 'm.room.avatar') AS avatar_url,
        (SELECT content ->> 'type' FROM state s WHERE s.room = r.room AND type = 'm.room.create') AS room_type,
        (SELECT content ->> 'join_rule' FROM state s WHERE s.room = r.room AND type = 'm.room.join_rules') AS join_rule,
        (SELECT content ->> 'history_visibility' FROM state s
            WHERE s.room = r.room AND type = 'm.room.history_visibility') AS visibility,
        (SELECT content ->> 'guest_access' FROM state s
            WHERE s.room = r.room AND type = 'm.room.guest_access') AS guest_access
    FROM rooms r
)
INSERT INTO room_summaries
SELECT room, joined_members, name, topic, alias, avatar_url, room_type, coalesce(join_rule, 'invite'),
    coalesce(visibility = 'world_readable', false), coalesce(guest_access = 'can_join', false),
    lower(concat_ws(E'\n', name, topic, alias))
FROM summaries;

UPDATE users SET directory_text = lower(concat_ws(E'\n', user_id,
    CASE WHEN strpos(convert_from(profile, 'UTF8'), '\u0000') = 0
        THEN convert_from(profile, 'UTF8')::json ->> 'displayname' END));
