-- Jobs and what belongs to them. Times are milliseconds since the epoch. Which states may follow each is in
-- foreman/jobs/job.py; the trigger below enforces it for every writer. Files made before the first release allow a state
-- 'blocked', too, which was never used.

CREATE TABLE meta (
  key   TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE jobs (
  id              TEXT    NOT NULL PRIMARY KEY CHECK (length(id) = 26),
  state           TEXT    NOT NULL CHECK (state IN ('scheduled', 'queued', 'running',
                                                    'succeeded', 'failed', 'cancelled', 'discarded')),
  endpoint        TEXT    NOT NULL,
  lane            TEXT    NOT NULL CHECK (lane IN ('gate', 'embedding')),
  family          TEXT    NOT NULL,
  model           TEXT    NOT NULL CHECK (length(model) BETWEEN 1 AND 700),
  owner           TEXT    NOT NULL,
  priority        INTEGER NOT NULL CHECK (priority BETWEEN 0 AND 9),
  sort_key        INTEGER NOT NULL,
  run_at          INTEGER NOT NULL,
  deadline        INTEGER,
  attempt         INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
  max_attempts    INTEGER NOT NULL CHECK (max_attempts >= 1),
  outages         INTEGER NOT NULL DEFAULT 0, -- Job.uncounted_tries
  rescues         INTEGER NOT NULL DEFAULT 0,
  fence           INTEGER NOT NULL DEFAULT 0,
  boot            TEXT, -- Job.instance
  cancel_asked_at INTEGER,
  idempotency_key TEXT,
  fingerprint     TEXT    NOT NULL,
  error_class     TEXT,
  error_message   TEXT,
  error_attempt   INTEGER,
  usage           TEXT,
  created_at      INTEGER NOT NULL,
  started_at      INTEGER,
  finished_at     INTEGER,
  CHECK ((state = 'running') = (boot IS NOT NULL)),
  CHECK ((state IN ('succeeded', 'failed', 'cancelled', 'discarded')) = (finished_at IS NOT NULL)),
  CHECK ((error_class IS NULL) = (error_message IS NULL))
) STRICT, WITHOUT ROWID;

-- The next job of each model, and the models of the jobs that are queued.
CREATE INDEX jobs_ready ON jobs (lane, model, sort_key, id) WHERE state = 'queued';
CREATE INDEX jobs_due ON jobs (run_at, id) WHERE state = 'scheduled';
CREATE INDEX jobs_expiring ON jobs (deadline, id) WHERE deadline IS NOT NULL AND finished_at IS NULL;
CREATE INDEX jobs_running ON jobs (id) WHERE state = 'running';
-- Lists, newest first, and the jobs that are old enough to be deleted.
CREATE INDEX jobs_state ON jobs (state, id);
CREATE INDEX jobs_owner ON jobs (owner, id);
CREATE INDEX jobs_model ON jobs (model, id);
CREATE UNIQUE INDEX jobs_key ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL;

CREATE TRIGGER jobs_follow BEFORE UPDATE OF state ON jobs
WHEN NEW.state IS NOT OLD.state AND NOT (
     (OLD.state = 'scheduled' AND NEW.state IN ('queued', 'cancelled', 'discarded'))
  OR (OLD.state = 'queued'    AND NEW.state IN ('running', 'cancelled', 'discarded'))
  OR (OLD.state = 'running'   AND NEW.state IN ('queued', 'scheduled', 'succeeded', 'failed', 'cancelled', 'discarded'))
  OR (OLD.state IN ('failed', 'cancelled', 'discarded') AND NEW.state = 'queued'))
BEGIN
  SELECT RAISE(ABORT, 'a job cannot go from this state to that');
END;

CREATE TABLE payloads (
  job_id           TEXT NOT NULL PRIMARY KEY REFERENCES jobs (id) ON DELETE CASCADE,
  payload          BLOB NOT NULL,
  content_type     TEXT NOT NULL,
  content_encoding TEXT,
  headers          TEXT NOT NULL,
  stream           INTEGER NOT NULL
) STRICT;

CREATE TABLE job_metadata (
  job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  key    TEXT NOT NULL,
  value  TEXT NOT NULL,
  PRIMARY KEY (job_id, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX job_metadata_value ON job_metadata (key, value, job_id);

CREATE TABLE artifacts (
  job_id     TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  name       TEXT    NOT NULL CHECK (length(name) BETWEEN 1 AND 128),
  type       TEXT    NOT NULL,
  bytes      INTEGER NOT NULL,
  sha256     TEXT    NOT NULL,
  fence      INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  data       BLOB    NOT NULL,
  PRIMARY KEY (job_id, name)
) STRICT;

-- The output of an attempt that runs, as far as it has been stored.
CREATE TABLE pieces (
  job_id TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  fence  INTEGER NOT NULL,
  number INTEGER NOT NULL,
  data   BLOB    NOT NULL,
  PRIMARY KEY (job_id, fence, number)
) STRICT;

CREATE TABLE attempts (
  job_id      TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  fence       INTEGER NOT NULL,
  boot        TEXT    NOT NULL,
  started_at  INTEGER NOT NULL,
  ended_at    INTEGER,
  outcome     TEXT,
  error_class TEXT,
  error       TEXT,
  PRIMARY KEY (job_id, fence)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id  TEXT    NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
  at      INTEGER NOT NULL,
  type    TEXT    NOT NULL,
  attempt INTEGER NOT NULL,
  error   TEXT
) STRICT;
CREATE INDEX events_job ON events (job_id, id);
