"""What programs of the Python Nimbus rely on: every variable, every endpoint, and the commands as its pages give them.
The lists are in seeds/; what differs or is not there must stand in docs/compatibility.md, and nothing else may."""

import base64
import fnmatch
import hashlib
import hmac
import json
import os
import pathlib
import re
import subprocess
import time

import pytest
import requests

from system import BUILD, NIMBUS, PATIENCE, ROOT, System

SEEDS = pathlib.Path(__file__).parent / "seeds"
SECRET = "a-secret-of-these-tests-that-is-long-enough"


def rows(name):
    lines = (SEEDS / name).read_text().splitlines()
    return [line.split("\t") for line in lines if not line.startswith("#")]


def section(title):
    """First and second column of the table under a heading of docs/compatibility.md: what stands in backticks, text."""
    page = (ROOT / "docs" / "compatibility.md").read_text()
    part = re.split(r"^##+ ", page.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.M)[0]
    found = []
    for line in part.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        names = re.findall(r"`([^`]+)`", cells[0]) if line.startswith("| `") else []
        found += [(name, " | ".join(cells[1:])) for name in names]
    assert found, title
    return found


def nimbus(*words, env=None, cwd=None, program=NIMBUS):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    return subprocess.run([program, *words], env={**clean, **(env or {})}, stdin=subprocess.DEVNULL, cwd=cwd,
                          capture_output=True, timeout=PATIENCE, check=False, text=True)


# --- variables ---


@pytest.fixture(scope="module")
def settings():
    """name -> what the tables of all roles say of it."""
    found = {}
    for item in json.loads(nimbus("config", "show", "--json", "--data", "/nonexistent").stdout):
        found.setdefault(item["name"], []).append(item)
    return found


def same(ours, seeds):
    if seeds in ("required", "unset", "empty list"):
        return ours is None and seeds != "required"
    try:
        return ours is not None and float(ours) == float(seeds)
    except ValueError:
        return ours == seeds


@pytest.mark.once
def test_every_variable_is_read_with_its_default_or_listed(settings):
    differs = dict(section("Read otherwise"))
    later = section("Not read yet")
    wrong = []
    for role, name, default in rows("variables.tsv"):
        if name not in settings:
            wrong.append(f"{name}: unknown")
            continue
        live = [item for item in settings[name] if not item["later"]]
        listed = [why for pattern, why in later if fnmatch.fnmatchcase(name, pattern)]
        if live and listed:
            wrong.append(f"{name}: is read, and listed as not read yet")
        elif not live and not (listed and listed[0]):
            wrong.append(f"{name} ({role}): is not read, and not listed")
        elif live and name not in differs and not all(same(item["default"], default) for item in live):
            wrong.append(f"{name} ({role}): default {[item['default'] for item in live]}, was {default}: not listed")
    assert not wrong, "\n".join(wrong)


@pytest.mark.once
def test_the_page_lists_nothing_that_is_not_so(settings):
    seeds = {name for _, name, _ in rows("variables.tsv")}
    for name, why in section("Read otherwise"):
        assert why and name in settings and not all(item["later"] for item in settings[name]), name
    for pattern, why in section("Not read yet"):
        matched = [name for name in seeds if fnmatch.fnmatchcase(name, pattern)]
        assert why and matched, pattern


@pytest.mark.once
def test_lists_take_commas_and_json(settings, tmp_path):
    lists = {name for name, items in settings.items() for item in items if item["type"] in ("list", "secrets")}
    assert "NIMBUS_ADMIN_ALLOWED_SUBJECTS" in lists
    for form in ("{0},{0}2", '["{0}", "{0}2"]', ""):
        env = {name: form.format("127.0.0.1" if re.search("IPS|CIDR", name) else SECRET + name) for name in lists}
        if form:
            env = {name: value.replace("127.0.0.12", "127.0.0.2") for name, value in env.items()}
        done = nimbus("config", "check", "--data", tmp_path, env=env)
        assert done.returncode == 0, done.stdout


@pytest.mark.once
def test_one_file_with_every_variable_starts_every_role(settings, tmp_path):
    """As a shared .env of the Python Nimbus: keys of other services are no reason not to start."""
    values = {"required": None, "unset": None, "empty list": ""}
    text = "".join(f"{name}={values.get(default, default) or ''}\n" for _, name, default in rows("variables.tsv"))
    path = tmp_path / "nimbus.env"
    path.write_text(text)
    done = nimbus("config", "check", "--env-file", path, "--data", tmp_path / "d")
    assert done.returncode == 0, done.stdout


# --- endpoints ---


@pytest.fixture(scope="module")
def system():
    with System(env={"NIMBUS_JWT_SECRET": SECRET + "-admin", "NIMBUS_AGENT_TOKEN_SECRET": SECRET + "-agent",
                     "NIMBUS_CACHE_SHARED_SECRET": SECRET + "-cache",
                     "NIMBUS_SSO_SESSION_SECRET": SECRET + "-sessions"}) as running:
        yield running


def test_every_endpoint_answers_or_is_listed(system):
    bases = {"control-plane": system.endpoints["control_plane"], "logging-pipeline": system.endpoints["logging_pipeline"],
             "host-agent": system.endpoints["agent_metrics"]}
    absent = section("Endpoints that are not there")
    wrong = []
    for service, method, path in rows("endpoints.tsv"):
        listed = [why for pattern, why in absent
                  if fnmatch.fnmatchcase(f"{service} {method} {path}", pattern.replace("[", "[[]"))]
        there = False
        if service in bases:
            url = bases[service] + re.sub(r"\{[^}]*\}", "1", path)
            there = requests.request(method, url, timeout=PATIENCE, allow_redirects=False).status_code not in (404, 405)
        if there and listed:
            wrong.append(f"{service} {method} {path}: is there, and listed as absent")
        if not there and not (listed and listed[0]):
            wrong.append(f"{service} {method} {path}: is not there, and not listed")
    assert not wrong, "\n".join(wrong)
    every = [" ".join(row) for row in rows("endpoints.tsv")]
    for pattern, why in absent:
        assert why and fnmatch.filter(every, pattern), pattern


def test_slashes_are_collapsed_and_ids_may_be_text(system):
    admin = {"Authorization": f"Bearer {(system.data / 'secrets' / 'admin-token').read_text()}"}
    base = system.endpoints["control_plane"]
    assert requests.get(f"{base}//api//jobs/recent", headers=admin, timeout=PATIENCE).status_code == 200
    answer = requests.get(f"{base}/api/jobs/none", headers=admin, timeout=PATIENCE)
    assert answer.status_code == 422 and isinstance(answer.json()["detail"], str)


# --- tokens ---


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hs256(secret, claims):
    """As PyJWT makes it, without kid."""
    text = ".".join(base64url(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return text + "." + base64url(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def claims_of(token):
    payload = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))


def test_reads_take_admin_user_and_agent_tokens(system):
    job_id = system.submit("true")
    base = system.endpoints["control_plane"]
    by_server = requests.post(f"{base}/api/agents/token", json={"agent_id": "viewer"}, timeout=PATIENCE, headers={
        "Authorization": f"Bearer {hs256(SECRET + '-admin', {'sub': 'ops'})}"}).json()["token"]
    tokens = {"admin": hs256(SECRET + "-admin", {"sub": "ops", "ver": 0}),
              "agent": hs256(SECRET + "-agent", {"sub": "dashboard-viewer", "ver": "0"}),
              "agent by server": by_server,
              "user": hs256(SECRET + "-sessions", {"sub": "ann@example.org", "email": "ann@example.org", "type": "user",
                                                   "roles": {"default": ["operator"]}, "exp": int(time.time()) + 60})}
    for kind, token in tokens.items():
        head = {"Authorization": f"Bearer {token}"}
        for path in ("/api/jobs/recent", "/api/status", f"/api/jobs/{job_id}"):
            answer = requests.get(base + path, headers=head, timeout=PATIENCE)
            other = kind == "agent by server" and path.endswith(str(job_id))
            assert answer.status_code == (404 if other else 200), (kind, path, answer.text)


def test_an_offline_agent_token_has_version_0(system, tmp_path):
    secret = SECRET + "-agent"
    done = nimbus("auth", "--agent-id", "agent-001", "--secret", secret, "--ttl", "3600", "--json")
    assert done.returncode == 0 and "NIMBUS_AGENT_TOKEN_SECRET" in done.stderr and secret not in done.stderr
    answer = json.loads(done.stdout)
    assert set(answer) == {"agent_id", "token", "ttl_seconds"} and answer["ttl_seconds"] == 3600
    claims = claims_of(answer["token"])
    assert (claims["sub"], claims["ver"], claims["exp"] - claims["iat"]) == ("agent-001", 0, 3600)
    path = tmp_path / "secret"
    path.write_text(secret)
    path.chmod(0o600)
    quiet = nimbus("auth", "--agent-id", "agent-001", "--offline", "--data", tmp_path,
                   env={"NIMBUS_AGENT_TOKEN_SECRET_FILE": str(path)})
    assert quiet.returncode == 0 and quiet.stderr == "" and claims_of(quiet.stdout)["ver"] == 0
    lease = requests.post(f"{system.endpoints['control_plane']}/api/jobs/lease", timeout=PATIENCE,
                          headers={"Authorization": f"Bearer {quiet.stdout.strip()}"},
                          json={"agent_id": "agent-001", "agent_version": "0.1.0", "capabilities": ["docker"]})
    assert lease.status_code == 200, lease.text


def test_cache_tokens_are_those_of_the_python_nimbus(system):
    secret = SECRET + "-cache"
    done = nimbus("cache", "--secret", secret, "--org-id", "123", "--ttl", "3600", "--json")
    assert done.returncode == 0 and "NIMBUS_CACHE_SHARED_SECRET" in done.stderr
    answer = json.loads(done.stdout)
    assert (answer["organization_id"], answer["scope"]) == (123, "read_write")
    payload, mac = answer["token"].split(".")
    payload = base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))
    assert hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest() == mac
    claims = json.loads(payload)
    assert payload == json.dumps(claims, sort_keys=True, separators=(",", ":")).encode()
    assert claims == {"expires_at": answer["expires_at"], "organization_id": 123, "scope": "read_write"}
    short = nimbus("cache", "--org-id", "123", env={"NIMBUS_CACHE_SHARED_SECRET": "local-cache-secret"})
    assert short.returncode == 0 and "less than 32 bytes" in short.stderr
    text = nimbus("cache", "--org-id", "123", "--scope", "read", env={"NIMBUS_CACHE_SHARED_SECRET": secret})
    assert [line.split(":")[0] for line in text.stdout.splitlines()] == ["Token", "Organization ID", "Scope",
                                                                         "Expires At"]
    assert text.stderr == ""
    found = requests.get(f"{system.endpoints['logging_pipeline']}/logs/query", timeout=PATIENCE,
                         headers={"Authorization": f"Bearer {answer['token']}"})
    assert found.status_code == 200 and found.json() == [], found.text


# --- commands, as the seeds' pages write them ---


def test_the_pages_commands_work_with_the_secret_as_token(system):
    control, logs = system.endpoints["control_plane"], system.endpoints["logging_pipeline"]
    job_id = system.submit("echo", "as the pages say")
    system.wait_final(job_id)
    token = ("--token", SECRET + "-admin")
    for words in (("jobs", "recent", "--base-url", control, *token, "--limit", "10"),
                  ("jobs", "--base-url", control, *token, "recent", "--limit", "1000", "--json"),
                  ("jobs", "status", "--base-url", control, *token),
                  ("logs", "--logs-url", logs, *token, "--job-id", str(job_id), "--limit", "50")):
        done = nimbus(*words)
        assert done.returncode == 0, (words, done.stderr)
        assert "NIMBUS_TOKEN" in done.stderr and SECRET not in done.stderr
    assert re.fullmatch(r"\[[^]]+\] job=\d+ level=info as the pages say\n", done.stdout)
    status = nimbus("jobs", "status", "--base-url", control, env={"NIMBUS_TOKEN": SECRET + "-admin"})
    assert status.stderr == "" and re.match(r"Queue length: \d+\nJobs by status:\n(  \w+: \d+\n)+$", status.stdout)
    raw = json.loads(nimbus("jobs", "status", "--base-url", control, *token, "--json").stdout)
    assert {"queue_length", "jobs_by_status"} <= set(raw)
    wrong = nimbus("jobs", "recent", "--base-url", control, "--token", "not the secret, and no token either")
    assert wrong.returncode == 4


def test_records_have_the_old_fields(system):
    system.submit("true")
    done = nimbus("jobs", "recent", "--base-url", system.endpoints["control_plane"], "--json", "--limit", "1",
                  env={"NIMBUS_TOKEN": SECRET + "-admin"})
    assert {"job_id", "run_id", "run_attempt", "repo_id", "repo_full_name", "repo_private", "org_id", "labels", "status",
            "agent_id", "executor", "queued_at", "leased_at", "completed_at", "last_message", "updated_at",
            "metadata"} <= set(json.loads(done.stdout)[0])


@pytest.mark.once
def test_what_is_not_there_says_what_to_use(tmp_path):
    for path, _ in section("Commands that are not there"):
        done = nimbus(*path.removeprefix("nimbus ").split(), "--base-url", "http://127.0.0.1:1", "--json", "more")
        assert done.returncode == 1, path
        assert done.stderr.startswith(f"error: there is no '{path}': ") and "compatibility.md" in done.stderr


def test_nimbus_cli_is_a_link(system, tmp_path):
    link = BUILD / "nimbus-cli"
    assert link.is_symlink() and os.readlink(link) == "nimbus"
    done = nimbus("jobs", "--help", program=link)
    assert done.returncode == 0 and "usage: nimbus-cli jobs" in done.stdout
    run = subprocess.run([link, "jobs", "submit", "--image", "demo", "--cmd", "echo $A $B", "--env", "A=1", "--env",
                          "B=two words", "--wait", "--follow"], env=system.env, capture_output=True, timeout=PATIENCE,
                         check=False)
    assert (run.returncode, run.stdout) == (0, b"1 two words\n"), run.stderr
    mistake = nimbus("jbos", program=link)
    assert mistake.returncode == 2 and "'nimbus-cli jobs'" in mistake.stderr


@pytest.mark.once
@pytest.mark.parametrize("words", [
    ("nonsense",), ("jobs",), ("jobs", "recent", "more"), ("jobs", "recent", "--limit"), ("jobs", "recent", "--limit", "0"),
    ("jobs", "recent", "--limt", "3"), ("jobs", "recent", "--url", "ftp://x"), ("jobs", "recent", "--url", ""),
    ("jobs", "recent", "--token", ""), ("jobs", "show"), ("jobs", "show", "x"), ("jobs", "show", "0"),
    ("jobs", "show", "9" * 30), ("jobs", "cancel"), ("jobs", "submit"), ("jobs", "submit", "--env", "A", "--", "true"),
    ("jobs", "submit", "--timeout", "soon", "--", "true"), ("jobs", "submit", "--cmd", "a", "--", "b"),
    ("auth",), ("auth", "--agent-id", ""), ("auth", "--agent-id", "../x"), ("auth", "--agent-id", "a", "--offline"),
    ("auth", "--agent-id", "a", "--ttl", "0", "--secret", "s"), ("auth", "--agent-id", "a", "--secret", ""),
    ("cache",), ("cache", "--org-id", "0"), ("cache", "--org-id", "1"), ("cache", "--org-id", "1", "--secret", ""),
    ("cache", "--org-id", "1", "--secret", "s", "--scope", "all"), ("cache", "--org-id", "1", "--secret", "s", "--ttl", "-1"),
    ("cache", "--org-id", "1", "--secret", "s", "--scope", "pull:org-2"), ("config",), ("config", "show", "nobody"),
    ("config", "check", "nobody"), ("config", "show", "--env-file", "/nonexistent"), ("version", "x"), ("help", "x"),
    ("reference",), ("up", "--port-base", "99999"), ("control-plane", "--env-file", "/nonexistent"), ("--json",),
    ("jobs", "recent", "--\x1b]0;title\x07"),
])
def test_wrong_use_is_one_clear_line_and_exit_2(words, tmp_path):
    done = nimbus(*words, cwd=tmp_path, env={"NIMBUS_DATA_DIR": str(tmp_path), "NIMBUS_URL": "http://127.0.0.1:1"})
    assert done.returncode == 2, done.stderr
    assert done.stdout == "" or words[:1] == ("jobs",)
    told = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert [line.split(":")[0] for line in told] == ["error", "hint"], done.stderr
    assert len(told[0]) < 300 and "\x1b" not in done.stderr
