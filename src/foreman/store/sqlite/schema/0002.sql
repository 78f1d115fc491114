-- model_key is the canonical spelling of a model's name (model_names.canonical); model keeps the caller's spelling.
-- A claim goes through the values of group_key: all models of the cloud are one group, since none of them is ever loaded
-- here, and so are all names that cannot be parsed.
ALTER TABLE jobs ADD COLUMN model_key TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN group_key TEXT NOT NULL DEFAULT '';
UPDATE jobs SET model_key = canonical(model);
UPDATE jobs SET group_key = group_key_of(model_key);

DROP INDEX jobs_ready;
CREATE INDEX jobs_ready ON jobs (lane, group_key, sort_key, id) WHERE state = 'queued';
-- The order of the queue across all models.
CREATE INDEX jobs_place ON jobs (lane, sort_key, id) WHERE state = 'queued';
-- Lists filtered by two columns; a list filtered by the model alone merges all states.
DROP INDEX jobs_model;
CREATE INDEX jobs_model_state ON jobs (model_key, state, id);
CREATE INDEX jobs_owner_state ON jobs (owner, state, id);
CREATE INDEX jobs_owner_model ON jobs (owner, model_key, id);

-- The totals of each caller: how many of its jobs wait, and the bytes of the payloads and artifacts of all its jobs.
CREATE TABLE owners (
  owner   TEXT    NOT NULL PRIMARY KEY,
  waiting INTEGER NOT NULL,
  bytes   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
ALTER TABLE jobs ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE jobs SET bytes = coalesce((SELECT length(payload) FROM payloads WHERE job_id = jobs.id), 0)
                      + (SELECT coalesce(sum(artifacts.bytes), 0) FROM artifacts WHERE job_id = jobs.id);
INSERT INTO owners SELECT owner, sum(state IN ('scheduled', 'queued')), sum(bytes) FROM jobs GROUP BY owner;

CREATE TRIGGER owners_more AFTER INSERT ON jobs
BEGIN
  INSERT INTO owners VALUES (NEW.owner, NEW.state IN ('scheduled', 'queued'), NEW.bytes)
  ON CONFLICT (owner) DO UPDATE SET waiting = waiting + excluded.waiting, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER owners_change AFTER UPDATE OF state, bytes ON jobs
WHEN NEW.bytes <> OLD.bytes OR (NEW.state IN ('scheduled', 'queued')) <> (OLD.state IN ('scheduled', 'queued'))
BEGIN
  INSERT INTO owners VALUES (
    NEW.owner, (NEW.state IN ('scheduled', 'queued')) - (OLD.state IN ('scheduled', 'queued')), NEW.bytes - OLD.bytes
  )
  ON CONFLICT (owner) DO UPDATE SET waiting = waiting + excluded.waiting, bytes = bytes + excluded.bytes;
END;
CREATE TRIGGER owners_less AFTER DELETE ON jobs
BEGIN
  UPDATE owners SET waiting = waiting - (OLD.state IN ('scheduled', 'queued')), bytes = bytes - OLD.bytes
  WHERE owner = OLD.owner;
  DELETE FROM owners WHERE owner = OLD.owner AND waiting = 0 AND bytes = 0;
END;
