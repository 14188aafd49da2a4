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

-- A fold is kept as a chunk is, and names the chunks and folds that it was made from: it goes when one of them goes,
-- by whatever statement. (No foreign key on `part`: its cascade would take the rows away before the trigger sees them.)
CREATE TABLE fold_parts (
    fold bytea NOT NULL REFERENCES chunks ON DELETE CASCADE,
    part bytea NOT NULL,
    PRIMARY KEY (part, fold)
);
CREATE INDEX fold_parts_by_fold ON fold_parts (fold);

CREATE FUNCTION drop_folds() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM chunks WHERE hash IN (SELECT fold FROM fold_parts WHERE part = OLD.hash);
    RETURN NULL;
END
$$;
CREATE TRIGGER folds_go_with_their_parts AFTER DELETE ON chunks FOR EACH ROW EXECUTE FUNCTION drop_folds();
