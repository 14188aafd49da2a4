-- Accounts whose users asked that what they wrote be erased: who joins a room after that position is shown it redacted.
-- The index is small and spares a look at every member of a room that is being loaded.
ALTER TABLE users ADD COLUMN erased_position bigint;
CREATE INDEX users_erased ON users (user_id) WHERE erased_position IS NOT NULL;

-- Whose interactive authentication it is: a page where a stage is completed sees nothing but the session.
ALTER TABLE uia_sessions ADD COLUMN user_id text;
