-- Tokens that expire and are refreshed, tokens for other purposes, locked and suspended users, reports.

ALTER TABLE users
    ADD COLUMN locked boolean NOT NULL DEFAULT false,
    ADD COLUMN suspended boolean NOT NULL DEFAULT false,
    ADD COLUMN accepted_policies text[] NOT NULL DEFAULT '{}';

-- A refresh token goes with one access token, and takes the place of the one that it was got for when either is used.
CREATE TABLE refresh_tokens (
    token_hash      bytea PRIMARY KEY,
    device          integer NOT NULL REFERENCES devices ON DELETE CASCADE,
    replaces        bytea REFERENCES refresh_tokens ON DELETE SET NULL,
    created_ts      bigint NOT NULL,
    expires_ts      bigint
);
CREATE INDEX refresh_tokens_device ON refresh_tokens (device);
CREATE INDEX refresh_tokens_replaces ON refresh_tokens (replaces) WHERE replaces IS NOT NULL;

ALTER TABLE access_tokens
    ADD COLUMN expires_ts bigint,
    ADD COLUMN refresh_token bytea REFERENCES refresh_tokens ON DELETE CASCADE;
CREATE INDEX access_tokens_refresh_token ON access_tokens (refresh_token) WHERE refresh_token IS NOT NULL;

CREATE TABLE login_tokens (
    token_hash      bytea PRIMARY KEY,
    user_id         text NOT NULL REFERENCES users,
    expires_ts      bigint NOT NULL
);

CREATE TABLE openid_tokens (
    token_hash      bytea PRIMARY KEY,
    user_id         text NOT NULL REFERENCES users,
    expires_ts      bigint NOT NULL
);

-- Registrations that are under way with a token are counted from uia_sessions.
CREATE TABLE registration_tokens (
    token           text PRIMARY KEY,
    uses_allowed    integer,
    completed       integer NOT NULL DEFAULT 0,
    created_ts      bigint NOT NULL,
    expires_ts      bigint
);
ALTER TABLE uia_sessions ADD COLUMN registration_token text;

CREATE TABLE reports (
    report          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ts     bigint NOT NULL,
    reporter        text NOT NULL,
    room_id         text,
    event_id        text,
    user_id         text,
    reason          text NOT NULL
);
