-- The depth of the join by which this server came into a room of others, the last time: what is less deep is history,
-- which is fetched when somebody reads it, and is not asked for as something that was missed.
ALTER TABLE rooms ADD COLUMN entered_depth bigint NOT NULL DEFAULT 0;
