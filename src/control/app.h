/*
 * What the parts of the control plane have in common: settings, database, keys, server, wait lists. Made once at the
 * start; all of it is safe to use from every thread.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "auth/keys.h"
#include "auth/sealed.h"
#include "auth/verifier.h"
#include "base/compiler.h"
#include "base/crypto.h"
#include "base/err.h"
#include "control/db/db.h"
#include "control/outage.h"
#include "control/peers.h"
#include "control/sessions.h"
#include "control/told.h"
#include "control/webhook_secrets.h"
#include "control/worker.h"
#include "model/job_file.h"
#include "model/settings.h"
#include "net/http_client.h"
#include "net/http_server.h"
#include "net/metrics.h"
#include "store/blobs.h"
#include "store/sql.h"
#include "vm/assets.h"

struct role;
struct role_serving;

struct app {
	const struct control_settings *settings;
	const struct common_settings *common;
	char *assets_dir;
	char *plane; /* which control plane this is, the same after a restart: HOST:DATA:PORT */
	int data_fd; /* the database's folder: whose free space counts */
	struct sql *sql;
	struct keyring *keyring;
	struct verifier *verifier;
	struct sealer *sealer;
	struct control_db db;
	struct webhook_secrets *webhook_secrets;
	atomic_int_fast64_t nonces; /* about as many as are remembered */
	struct metrics *metrics;
	struct http_client *client;
	struct cidr_list admin_addresses; /* empty: all */
	struct http_server_opts server_opts;
	struct http_server *server;
	struct http_wait_list *lease_waits;   /* tags: struct lease_wait, of lease_api.c */
	struct http_wait_list *command_waits; /* tags: the agent's id */
	struct sessions *sessions;
	struct blobs *files;	   /* of jobs */
	struct queue *files_ended; /* ids of jobs that had some, and have ended */
	int64_t files_due_ns;	   /* when they are swept: the expirer's own, as the next */
	struct job_file_place files_walk;
	struct told *told;     /* commands that agents got a moment ago */
	struct outage *outage; /* of the database */
	struct peers *peers;   /* the other control planes on this database */
	struct worker *peer_worker;
	struct worker *processor; /* of deliveries */
	struct worker *expirer;
	int64_t sweep_due_ns; /* the expirer's own */
	struct worker *log_sealer;
	struct worker *keeper; /* of keys */
	bool keys_joined;      /* the other control planes know our keys */
	/* The keeper's own. */
	int64_t keys_said_ns;
	struct sha256 keys_complaint;
	struct worker *admitter;
};

struct app_opts {
	const struct control_settings *settings;
	const struct common_settings *common;
	const struct role_serving *serving; /* NULL: as nothing is configured */
	const char *data_dir;
	struct role *role; /* whose SIGHUP is heard; NULL: nobody's */
	/* How the start waits for a database that does not answer yet: false when it is to end. NULL: it does not. */
	bool (*pause)(void *ctx, int64_t pause_ns);
	void *ctx;
};

enum { APP_ENDED = 1 }; /* the pause said so */

/* Loads the keys, opens the database (for which it waits a minute, where there is a pause), brings it up to date, binds
 * the port and starts everything. The settings outlive it. APP_ENDED. */
int app_start(const struct app_opts *opts, struct app **ret, struct err *err) must_check;
/* Takes nothing new, finishes what is under way for at most `drain_ns`, frees. */
void app_stop(struct app *app, int64_t drain_ns);

/* Which file stands for the image on this machine: the one of the digest `wanted` (or NULL) if it is there, else the
 * one of the name. False: this machine knows none. */
bool app_find_image(const struct app *app, const char *name, const char *wanted,
		    char digest[static ASSETS_DIGEST_SIZE]);

/* ERR_DISK_FULL while there is less room than NIMBUS_MIN_FREE_DISK: asked before anything is accepted. */
int app_check_disk(const struct app *app, struct err *err) must_check;
