-- A person's own manner of being written to, files that were uploaded once, and the age of what an answer rests on.

ALTER TABLE people ADD COLUMN role text;

CREATE TABLE uploads (
    digest bytea PRIMARY KEY,
    url text NOT NULL
);

-- Null for answers from before: these are dropped with their age alone.
ALTER TABLE answers ADD COLUMN oldest_ts bigint;
CREATE INDEX answers_by_oldest ON answers (room_id, oldest_ts) WHERE oldest_ts IS NOT NULL;

CREATE INDEX ledgers_by_day ON ledgers (day);
