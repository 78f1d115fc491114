-- model_key is the one spelling that all names of a model share (names.canonical); model stays as it was typed.
-- group_key is what a claim goes through instead: all models of the cloud are one group, since none of them is ever
-- loaded here, and so are all names that cannot be read.
ALTER TABLE jobs ADD COLUMN model_key TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN group_key TEXT NOT NULL DEFAULT '';
UPDATE jobs SET model_key = canonical(model);
UPDATE jobs SET group_key = group_key_of(model_key);

DROP INDEX jobs_ready;
CREATE INDEX jobs_ready ON jobs (lane, group_key, sort_key, id) WHERE state = 'queued';
-- The places in the queue, whatever the models.
CREATE INDEX jobs_place ON jobs (lane, sort_key, id) WHERE state = 'queued';
-- Lists by two things at once; one by the model alone goes through all states.
DROP INDEX jobs_model;
CREATE INDEX jobs_model_state ON jobs (model_key, state, id);
CREATE INDEX jobs_owner_state ON jobs (owner, state, id);
CREATE INDEX jobs_owner_model ON jobs (owner, model_key, id);
