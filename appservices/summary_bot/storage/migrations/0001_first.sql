-- Everything the bot keeps. No message's text is in here, except in cached facts, which go with their sources.

CREATE TABLE transactions (
    transaction_id text PRIMARY KEY,
    received_ts bigint NOT NULL
);
CREATE INDEX transactions_by_time ON transactions (received_ts);

CREATE TABLE rooms (
    room_id text PRIMARY KEY,
    enabled boolean NOT NULL DEFAULT false,
    enabled_by text,
    local_models_only boolean NOT NULL DEFAULT false,
    role text NOT NULL DEFAULT 'assistant'
);

CREATE TABLE people (
    user_id text PRIMARY KEY,
    language text,
    direct_room text,
    opted_out boolean NOT NULL DEFAULT false,
    ignored text[] NOT NULL DEFAULT '{}'
);
CREATE INDEX people_by_direct_room ON people (direct_room) WHERE direct_room IS NOT NULL;
CREATE INDEX people_opted_out ON people (user_id) WHERE opted_out;

CREATE TABLE reading (
    room_id text NOT NULL,
    user_id text NOT NULL,
    event_id text NOT NULL,
    ts bigint NOT NULL,
    left_off_event_id text,
    left_off_ts bigint,
    PRIMARY KEY (room_id, user_id)
);

CREATE TABLE jobs (
    job bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind text NOT NULL,
    room_id text NOT NULL,
    asker text NOT NULL,
    event_id text NOT NULL,
    payload bytea NOT NULL,
    created_ts bigint NOT NULL,
    run_at bigint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    running boolean NOT NULL DEFAULT false,
    UNIQUE (event_id, kind)
);
CREATE INDEX jobs_waiting ON jobs (run_at, job) WHERE NOT running;
CREATE INDEX jobs_by_asker ON jobs (asker);

CREATE TABLE answers (
    answer bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_id text NOT NULL,
    asker text NOT NULL,
    target_room text NOT NULL,
    key text NOT NULL,
    sent_event_ids text[] NOT NULL DEFAULT '{}',
    bullets bytea NOT NULL,
    created_ts bigint NOT NULL
);
CREATE INDEX answers_by_target ON answers (target_room, answer);
CREATE INDEX answers_by_room ON answers (room_id, asker);
CREATE INDEX answers_by_key ON answers (key);
CREATE INDEX answers_by_time ON answers (created_ts);

CREATE TABLE answer_sources (
    event_id text NOT NULL,
    answer bigint NOT NULL REFERENCES answers ON DELETE CASCADE,
    PRIMARY KEY (event_id, answer)
);
CREATE INDEX answer_sources_by_answer ON answer_sources (answer);

CREATE TABLE chunks (
    hash bytea PRIMARY KEY,
    room_id text NOT NULL,
    facts bytea NOT NULL,
    tokens integer NOT NULL,
    oldest_ts bigint NOT NULL,
    created_ts bigint NOT NULL
);
CREATE INDEX chunks_by_room ON chunks (room_id);
CREATE INDEX chunks_by_time ON chunks (created_ts);

CREATE TABLE chunk_sources (
    event_id text NOT NULL,
    hash bytea NOT NULL REFERENCES chunks ON DELETE CASCADE,
    sender text NOT NULL,
    PRIMARY KEY (event_id, hash)
);
CREATE INDEX chunk_sources_by_hash ON chunk_sources (hash);
CREATE INDEX chunk_sources_by_sender ON chunk_sources (sender);

CREATE TABLE redactions (
    event_id text PRIMARY KEY,
    ts bigint NOT NULL
);
CREATE INDEX redactions_by_time ON redactions (ts);

CREATE TABLE schedules (
    schedule bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    room_id text NOT NULL,
    user_id text NOT NULL,
    target_room text,
    every text NOT NULL,
    minute_of_day integer NOT NULL,
    zone text NOT NULL,
    next_ts bigint NOT NULL,
    UNIQUE (room_id, user_id)
);
CREATE INDEX schedules_due ON schedules (next_ts);

CREATE TABLE ledgers (
    scope text NOT NULL,
    key text NOT NULL,
    day date NOT NULL,
    tokens bigint NOT NULL DEFAULT 0,
    cost_micro bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (scope, key, day)
);

CREATE TABLE reservations (
    reservation bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    day date NOT NULL,
    user_id text NOT NULL,
    room_id text NOT NULL,
    tokens bigint NOT NULL,
    cost_micro bigint NOT NULL,
    created_ts bigint NOT NULL
);

CREATE TABLE budgets (
    scope text NOT NULL,
    key text NOT NULL,
    tokens bigint NOT NULL,
    PRIMARY KEY (scope, key)
);

CREATE TABLE usage (
    call bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ts bigint NOT NULL,
    user_id text NOT NULL,
    room_id text NOT NULL,
    provider text NOT NULL,
    model text NOT NULL,
    purpose text NOT NULL,
    input_tokens integer NOT NULL,
    output_tokens integer NOT NULL,
    cached boolean NOT NULL,
    cost_micro bigint NOT NULL,
    latency_ms integer NOT NULL,
    outcome text NOT NULL
);
CREATE INDEX usage_by_time ON usage (ts);
CREATE INDEX usage_by_user ON usage (user_id, ts);

CREATE TABLE audit (
    entry bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    ts bigint NOT NULL,
    actor text NOT NULL,
    action text NOT NULL,
    room_id text NOT NULL,
    detail text NOT NULL
);
CREATE INDEX audit_by_time ON audit (ts);
