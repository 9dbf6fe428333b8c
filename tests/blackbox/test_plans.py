"""How PostgreSQL finds work in a long queue: as the running program asks, with what the server knows of its tables at
the moment, which may be nothing, or the opposite of how it is."""

import json
import re
import signal

import psycopg2
import pytest

import database
from chaos import PythonAgent, submit_by_hand
from planes import Plane
from system import System, wait_until

pytestmark = pytest.mark.skipif(database.kind() != "postgresql", reason="of PostgreSQL's planner")
JOBS = 100_000
SETS = 200
# A step into an index, and past a few rows that are locked or just gone, is not a walk.
ROWS_MAX = 300

FILL = f"""
INSERT INTO label_set SELECT 1000000 + i, 'digest-' || i, 'fill-' || i FROM generate_series(1, {SETS}) i;
INSERT INTO job (id, org_id, origin, argv, env, label_set_id, executor, vcpus, memory_mb, disk_mb, timeout_s,
    has_secret_env, state, attempt, max_attempts, fence, moves, github_rank, repo_private, created_at, updated_at)
  SELECT 1000000 + i, 1, 'api', '["true"]', '{{}}', 1000001 + i % {SETS}, 'firecracker', 1, 256, 64, 60, 0, 'queued', 1,
    3, 0, 1, 0, 0, 1, 1 FROM generate_series(1, {JOBS}) i;
INSERT INTO queue SELECT id, label_set_id, id, vcpus, memory_mb, 1 FROM job WHERE id > 1000000;
"""


def explain_everything(dsn):
    """From here on the server's log has the plan of each statement on that database, with what it really did."""
    name = dsn.split("?")[0].rsplit("/", 1)[1]
    for setting in ("session_preload_libraries = 'auto_explain'", "auto_explain.log_min_duration = 0",
                    "auto_explain.log_analyze = on", "auto_explain.log_format = json"):
        database.server().psql(f'ALTER DATABASE "{name}" SET {setting}')


def plans(since):
    """(text, plan) of every statement that the log has from there on."""
    log = database.server().log[since:]
    found = []
    for match in re.finditer(r"duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)", log):
        explained = json.loads("\n".join(line[1:] for line in match[1].splitlines()))
        found.append((explained["Query Text"], explained["Plan"]))
    return found


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def too_much(text, plan):
    for node in nodes(plan):
        rows = (node.get("Actual Rows", 0) + node.get("Rows Removed by Filter", 0) +
                node.get("Rows Removed by Join Filter", 0)) * node.get("Actual Loops", 1)
        if rows > ROWS_MAX or (node["Node Type"] == "Seq Scan" and node["Relation Name"] in ("queue", "job", "lease")):
            return f"{node['Node Type']} on {node.get('Relation Name')}: {rows:.0f} rows in: {text[:500]}"
    return None


@pytest.mark.parametrize("statistics", ["none", "of an empty queue"])
def test_finding_work_is_no_walk(statistics):
    with System() as system:
        dsn = system.env["NIMBUS_DATABASE_URL"]
        post = psycopg2.connect(dsn)
        post.autocommit = True
        with post.cursor() as cursor:
            if statistics == "of an empty queue":
                cursor.execute("ANALYZE")
            cursor.execute("ALTER TABLE queue SET (autovacuum_enabled = false);"
                           "ALTER TABLE job SET (autovacuum_enabled = false)")
            cursor.execute(FILL)
        post.close()
        explain_everything(dsn)
        ids = submit_by_hand(system, count=3)
        begin = len(database.server().log)
        with Plane(system) as plane:
            agent = PythonAgent(system, "planned", base=plane.url)
            for job_id in ids:
                lease = agent.lease()
                assert lease["job"]["job_id"] == job_id
                assert agent.renew(lease).status_code == 200
                assert agent.status(lease, "succeeded", exit_code=0, last_seq=0).status_code == 202
            assert agent.lease()["job"] is None
            assert plane.end(signal.SIGTERM) == 0
        seen = wait_until(lambda: [(text, plan) for text, plan in plans(begin) if "queue" in text], "plans in the log")
        assert any("SKIP LOCKED" in text for text, _ in seen)
        assert any("offer_match" in text for text, _ in seen)
        bad = [problem for text, plan in seen if (problem := too_much(text, plan)) and "COUNT(*)" not in text]
        assert not bad, "\n".join(bad)
