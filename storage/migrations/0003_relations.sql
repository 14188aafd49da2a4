-- Events that relate to others are found by their parent, and events by their time.

-- The sender's clock at the event, out of its JSON: it orders edits, and finds the event of a moment.
ALTER TABLE events ADD COLUMN origin_server_ts bigint;

-- One row per event that relates to another with a rel_type; gone once that event is redacted.
CREATE TABLE relations (
    position        bigint PRIMARY KEY,         -- of the event that relates: the child
    room            integer NOT NULL,
    parent          text NOT NULL,              -- the parent's event ID
    rel_type        text NOT NULL,
    type            text NOT NULL,              -- the child's
    sender          text NOT NULL               -- the child's
);

-- JSON escapes NUL, which text cannot hold: it is read as another character here, where it does not matter.
CREATE FUNCTION pg_temp.readable(event bytea) RETURNS jsonb LANGUAGE sql IMMUTABLE AS
    $$ SELECT replace(convert_from(event, 'UTF8'), '\u0000', '\ufffd')::jsonb $$;

UPDATE events SET origin_server_ts = (pg_temp.readable(json) ->> 'origin_server_ts')::bigint;
ALTER TABLE events ALTER COLUMN origin_server_ts SET NOT NULL;
CREATE INDEX events_time ON events (room, origin_server_ts) WHERE kind = 0;

INSERT INTO relations (position, room, parent, rel_type, type, sender)
SELECT position, room, relates_to ->> 'event_id', relates_to ->> 'rel_type', type, sender
FROM (
    SELECT position, room, type, sender, content, content -> 'm.relates_to' AS relates_to, is_state
    FROM (
        SELECT position, room, type, sender, readable -> 'content' AS content, readable ? 'state_key' AS is_state
        FROM (SELECT *, pg_temp.readable(json) AS readable FROM events WHERE redacted_by IS NULL AND kind = 0) events
    ) contents
    WHERE jsonb_typeof(content -> 'm.relates_to') = 'object'
) children
WHERE jsonb_typeof(relates_to -> 'event_id') = 'string' AND jsonb_typeof(relates_to -> 'rel_type') = 'string'
    AND relates_to ->> 'event_id' LIKE '$%' AND octet_length(relates_to ->> 'event_id') <= 255
    AND octet_length(relates_to ->> 'rel_type') BETWEEN 1 AND 255
    AND (relates_to ->> 'rel_type' <> 'm.annotation' OR jsonb_typeof(relates_to -> 'key') = 'string')
    AND (relates_to ->> 'rel_type' <> 'm.replace'
        OR NOT is_state AND (type = 'm.room.encrypted' OR jsonb_typeof(content -> 'm.new_content') = 'object'));

DROP FUNCTION pg_temp.readable(bytea);

CREATE INDEX relations_parent ON relations (room, parent, position);
CREATE INDEX relations_threads ON relations (room, position) WHERE rel_type = 'm.thread';
