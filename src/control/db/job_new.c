#include "control/db/job_new.h"

#include "base/buf.h"
#include "control/db/admission.h"
#include "control/db/job_files.h"
#include "control/db/job_move.h"
#include "control/db/label_rows.h"
#include "model/names.h"

void job_from_spec(const struct job_spec *spec, struct job *ret)
{
	*ret = (struct job){
		.org_id = spec->org_id,
		.name = spec->name,
		.origin = "api",
		.image = spec->image,
		.argv = spec->argv,
		.env = spec->env,
		.labels = {.items = spec->labels.items, .count = spec->labels.count},
		.executor = spec->executor != NULL ? spec->executor : "firecracker",
		.vcpus = spec->vcpus,
		.memory_mb = spec->memory_mb,
		.disk_mb = spec->disk_mb,
		.timeout_s = spec->timeout_s,
		.network = spec->network != NULL ? spec->network : JOB_NETWORK_NONE,
		.has_secret_env = spec->secret_env != NULL,
		.extras = spec->extras,
		.state = spec->waits_for_files ? JOB_PARKED : JOB_QUEUED,
		.reason = spec->waits_for_files ? JOB_FILES_REASON : NULL,
		.attempt = 1,
		.max_attempts = spec->max_attempts,
		.exit_code = -1,
		.last_seq = -1,
		.idempotency_key = spec->idempotency_key,
		.metadata = spec->metadata,
	};
}

static int store_secret(struct control_tx *t, int64_t job_id, const struct secret *secret, struct err *err)
{
	autovar(buf) sealed = {0};

	if (t->db->sealer == NULL)
		return err_set(err, ERR_UNSUPPORTED, "secret_env: this server has no key to encrypt it with");
	sealer_seal(t->db->sealer, job_id, secret_reveal(secret), &sealed); /* into the cipher, nowhere else */
	return sql_exec(t->tx, "INSERT INTO job_secret (job_id, sealed) VALUES ($1, $2)",
			SQL_ARGS(sql_i64(job_id), sql_blob(buf_str(&sealed))), NULL, err);
}

/* It may have to wait until its organisation's rate has room for it. */
static int admit(struct control_tx *t, struct job *job, struct err *err)
{
	int rc = job->state == JOB_QUEUED ? admission_ask(t, job->org_id, job->id, err) : 0;

	if (rc == ADMISSION_HELD) {
		job->state = JOB_PARKED;
		job->reason = ADMISSION_REASON;
	}
	return rc < 0 ? rc : 0;
}

int job_create(struct control_tx *t, const struct job_spec *spec, struct job *job, const char *digest, struct err *err)
{
	int rc = control_next_id(t, "job", &job->id, err);

	if (rc == 0)
		rc = admit(t, job, err);
	if (rc == 0)
		rc = label_set_store(t, &spec->labels, &job->label_set_id, err);
	if (rc == 0)
		rc = job_insert(t, job, digest, err);
	if (rc == 0 && spec->secret_env != NULL)
		rc = store_secret(t, job->id, spec->secret_env, err);
	if (rc == 0)
		rc = job_metadata_merge(t->tx, job->id, &spec->metadata, err);
	return rc;
}
