"""Keys and tokens: rotation without a restart, revocation, what stops a start, and what a hostile token meets."""

import base64
import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import time

import pytest
import requests

import database
from chaos import PythonAgent
from planes import Plane
from system import NIMBUS, PATIENCE, System, open_folder, wait_until

SESSION_SECRET = "a secret of user sessions, 0123456789abcdef"
CACHE_SECRET = "a secret of cache tokens, 0123456789abcdef"


@pytest.fixture(scope="module")
def nimbus():
    with System(env={"NIMBUS_SSO_SESSION_SECRET": SESSION_SECRET, "NIMBUS_CACHE_SHARED_SECRET": CACHE_SECRET}) as system:
        yield system


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def hs256(secret, payload, header=None):
    """payload: text, so that it may be no JSON that Python would write."""
    head = json.dumps({"alg": "HS256", "typ": "JWT", **(header or {})}).encode()
    body = payload if isinstance(payload, str) else json.dumps(payload)
    text = b64(head) + "." + b64(body.encode())
    return text + "." + b64(hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest())


def cache_token(org, scope, secret=CACHE_SECRET, expires="2099-01-01T00:00:00.5+00:00"):
    payload = json.dumps({"expires_at": expires, "organization_id": org, "scope": scope}, sort_keys=True,
                         separators=(",", ":")).encode()
    return b64(payload) + "." + hmac.new(secret.encode(), payload, hashlib.sha256).hexdigest()


def secret_of(system, name):
    return (system.data / "secrets" / name).read_text().strip()


def ask(system, path, token, base="control_plane", **more):
    headers = {"Authorization": f"Bearer {token}"}
    return requests.get(system.endpoints[base] + path, headers=headers, timeout=PATIENCE, **more)


def jwks(system):
    return {key["kid"]: key for key in
            requests.get(system.endpoints["control_plane"] + "/.well-known/jwks.json", timeout=60).json()["keys"]}


def reload(system):
    before = system.log().count("configuration read again")
    system.process.send_signal(signal.SIGHUP)
    wait_until(lambda: system.log().count("configuration read again") >= before + 3, "three roles to read again")


def kid_of(token):
    head = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]


def test_signing_keys_rotate_without_a_restart(nimbus):
    pids = {role: nimbus.role_pid(role) for role in ("control-plane", "logging-pipeline", "host-agent")}
    agent = PythonAgent(nimbus, "rotated")
    old = kid_of(agent.token)
    assert agent.lease_call().status_code == 200
    printed = nimbus.cli("admin", "keys", "rotate", "--publish", "9", "--keep", "2").stdout.decode()
    new = re.search(r"key (\S+) signs from", printed)[1]
    wait_until(lambda: new in jwks(nimbus), "the next key to be listed")
    assert kid_of(PythonAgent(nimbus, "another").token) in (old, new)
    done = nimbus.cli("admin", "keys", "rotate", check=False)
    assert done.returncode != 0 and b"is next already" in done.stderr
    wait_until(lambda: kid_of(PythonAgent(nimbus, "another").token) == new, "the next key to sign")
    wait_until(lambda: agent.lease_call().status_code == 401, "the old key's tokens to be refused")
    wait_until(lambda: old not in jwks(nimbus), "the old key not to be listed")
    # Everything still works, with the processes from before: a job's lines are taken with a token of the new key.
    job_id = nimbus.submit("echo", "after the rotation")
    assert nimbus.wait_final(job_id)["state"] == "succeeded"
    assert nimbus.output(job_id) == "after the rotation\n"
    assert pids == {role: nimbus.role_pid(role) for role in pids}
    listed = nimbus.cli("admin", "keys", "list").stdout.decode()
    assert re.search(new + r"\s+active", listed) and re.search(old + r"\s+over", listed)


def test_shared_secrets_rotate_without_a_restart(nimbus):
    old_token = secret_of(nimbus, "admin-token")
    nimbus.cli("admin", "keys", "rotate", "--kind", "admin")
    assert ask(nimbus, "/api/status", old_token).status_code == 200, "nothing happens before SIGHUP"
    reload(nimbus)
    new_token = wait_until(lambda: secret_of(nimbus, "admin-token") != old_token and secret_of(nimbus, "admin-token"),
                           "a new admin token")
    for token in (old_token, new_token):
        assert ask(nimbus, "/api/status", token).status_code == 200
        assert ask(nimbus, "/logs/query", token, "logging_pipeline").status_code == 200
    nimbus.cli("admin", "keys", "retire", "--kind", "admin")
    reload(nimbus)
    for base, path in (("control_plane", "/api/status"), ("logging_pipeline", "/logs/query")):
        assert ask(nimbus, path, old_token, base).status_code == 401
        assert ask(nimbus, path, new_token, base).status_code == 200


def test_the_local_agent_lives_through_a_rotation_of_its_secret(nimbus):
    nimbus.cli("admin", "keys", "rotate", "--kind", "agent")
    reload(nimbus)
    nimbus.cli("admin", "keys", "retire", "--kind", "agent")
    reload(nimbus)
    assert nimbus.wait_final(nimbus.submit("true"))["state"] == "succeeded"


def test_what_an_older_key_sealed_is_still_opened(nimbus):
    job_id = nimbus.submit("sh", "-c", "echo ${#SEALED}", options=["--label", "sealed-then",
                                                                     "--secret-env", "SEALED=sealed-by-the-old-key"])
    nimbus.cli("admin", "keys", "rotate", "--kind", "sealing")
    wait_until(lambda: "seals the secret environment" in nimbus.log(), "the control plane to see the new key")
    agent = PythonAgent(nimbus, "opens-sealed")
    lease = wait_until(lambda: (lambda got: got if got["job"] else None)(agent.lease(labels=["sealed-then"])), "a lease")
    answer = agent.post("/api/jobs/lease/renew", {"job_id": job_id, "agent_id": agent.name, "want_secrets": True,
                                                  "fence_token": lease["fence_token"]})
    assert answer.json()["secret_env"] == {"SEALED": "sealed-by-the-old-key"}
    assert agent.status(lease, "cancelled").status_code == 202


def test_a_newer_token_revokes_the_older_ones(nimbus):
    offline = hs256(secret_of(nimbus, "agent-token-secret"), {"sub": "versions", "ver": 0, "exp": int(time.time()) + 600})
    call = lambda token: requests.post(  # noqa: E731
        nimbus.endpoints["control_plane"] + "/api/agents/commands", timeout=60, json={"agent_id": "versions", "wait_seconds": 0},
        headers={"Authorization": f"Bearer {token}"}).status_code
    assert call(offline) == 200, "version 0 is good as long as no token was made"
    first = PythonAgent(nimbus, "versions").token
    assert call(offline) == 403 and call(first) == 200
    second = PythonAgent(nimbus, "versions").token
    assert call(first) == 403 and call(second) == 200
    admin = secret_of(nimbus, "admin-token")
    row = next(a for a in ask(nimbus, "/api/agents", admin).json() if a["agent_id"] == "versions")
    audit = [a for a in ask(nimbus, "/api/agents/audit", admin).json() if a["agent_id"] == "versions"]
    assert row["token_version"] == 2 and [a["token_version"] for a in audit] == [2, 1]
    keys = ask(nimbus, "/api/keys", admin).json()
    assert keys["admin_token_keys"] == [hashlib.sha256(secret_of(nimbus, "jwt-secret").encode()).hexdigest()[:16]]


def test_a_user_reads_and_changes_nothing(nimbus):
    user = hs256(SESSION_SECRET, {"sub": "u", "email": "u@example.org", "roles": {}, "type": "user",
                                  "exp": int(time.time()) + 600})
    assert ask(nimbus, "/api/status", user).status_code == 200
    assert ask(nimbus, "/api/jobs/recent", user).status_code == 200
    assert ask(nimbus, "/logs/query", user, "logging_pipeline").status_code == 200
    assert ask(nimbus, "/api/agents", user).status_code == 403
    base = nimbus.endpoints["control_plane"]
    for path in ("/api/jobs", "/api/agents/token", "/api/jobs/lease"):
        assert requests.post(base + path, json={}, timeout=60,
                             headers={"Authorization": f"Bearer {user}"}).status_code == 403
    no_type = hs256(SESSION_SECRET, {"sub": "u", "exp": int(time.time()) + 600})
    assert ask(nimbus, "/api/status", no_type).status_code == 401


def test_cache_tokens_reach_their_organisation_with_their_scopes(nimbus):
    logs = nimbus.endpoints["logging_pipeline"]
    entry = {"job_id": 424242, "agent_id": "a", "org_id": 7, "level": "info", "message": "by a cache token",
             "timestamp": "2026-11-21T12:00:00Z"}

    def push(token, **more):
        return requests.post(logs + "/logs", json={"entries": [{**entry, **more}]}, timeout=60,
                             headers={"Authorization": f"Bearer {token}"} if token else {}).status_code

    assert push(cache_token(7, "push:org-7")) == 202
    assert push(cache_token(7, "read_write")) == 202
    assert push(cache_token(7, "pull:org-7")) == 403
    assert push(cache_token(8, "push:org-8")) in (400, 403), "lines of another organisation"
    assert push(None) == 401, "the Python Nimbus took this as organisation 0"
    assert push(cache_token(7, "push:org-7", expires="2020-01-01T00:00:00Z")) == 401
    assert push(cache_token(7, "push:org-7", secret="local-cache-secret")) == 401
    query = lambda token: requests.get(logs + "/logs/query", params={"job_id": 424242}, timeout=60,  # noqa: E731
                                       headers={"Authorization": f"Bearer {token}"})
    assert [line["message"] for line in query(cache_token(7, "pull:org-7")).json()] == ["by a cache token"] * 2
    assert query(cache_token(7, "push:org-7")).status_code == 403
    assert query(cache_token(8, "read")).json() == []
    assert ask(nimbus, "/api/status", cache_token(7, "read_write")).status_code == 401, "the control plane has none"


def hostile(system):
    admin_secret, admin = secret_of(system, "jwt-secret"), secret_of(system, "admin-token")
    now = int(time.time())
    public = next(iter(jwks(system).values()))
    claims = {"sub": "local", "iat": now, "exp": now + 600, "aud": "admin"}
    text = json.dumps(claims)
    yield "alg none", b64(b'{"alg":"none"}') + "." + b64(text.encode()) + "."
    yield "alg none, signed", b64(b'{"alg":"none"}') + "." + ".".join(admin.split(".")[1:])
    yield "the public key as HMAC secret", hs256(json.dumps(public), claims, {"kid": public["kid"]})
    yield "the public x as HMAC secret", hs256(public["x"], claims, {"kid": public["kid"]})
    yield "HS256 called ES256", hs256(admin_secret, claims, {"alg": "ES256", "kid": public["kid"]})
    yield "a kid that is a path", hs256("guess" * 8, claims, {"alg": "ES256", "kid": "../../secrets/jwt-secret"})
    yield "a kid that is SQL", hs256("guess" * 8, claims, {"alg": "ES256", "kid": "' OR 1=1 --"})
    yield "a kid with NUL", hs256("guess" * 8, claims, {"alg": "ES256", "kid": "a\0b"})
    yield "critical extensions", hs256(admin_secret, claims, {"crit": ["exp"]})
    yield "a huge token", "e" * 1_000_000
    yield "a long token", hs256(admin_secret, {**claims, "more": "x" * 9000})
    for exp in ("1e300", "-1", "-1e9", "9007199254740993", "18446744073709551616", "0", '"soon"', "null", "true", "[]"):
        yield f"exp {exp}", hs256(admin_secret, f'{{"sub":"local","exp":{exp}}}')
    yield "exp twice", hs256(admin_secret, f'{{"sub":"local","exp":1,"exp":{now + 600}}}')
    yield "sub twice", hs256(admin_secret, f'{{"sub":"nobody","sub":"local","exp":{now + 600}}}')
    yield "deep claims", hs256(admin_secret, f'{{"sub":"local","exp":{now + 600},"x":{"[" * 100}{"]" * 100}}}')
    yield "claims that are no UTF-8", b64(b'{"alg":"HS256"}') + "." + b64(b'{"sub":"\xff"}') + "." + admin.split(".")[2]
    yield "padding", admin + "="
    yield "another alphabet", admin.replace("-", "+").replace("_", "/") + "+"
    yield "four parts", admin + ".e30"


def test_hostile_tokens_are_refused_everywhere(nimbus):
    for what, token in hostile(nimbus):
        for base, path in (("control_plane", "/api/status"), ("logging_pipeline", "/logs/query")):
            try:
                answer = ask(nimbus, path, token, base)
            except requests.ConnectionError:
                assert len(token) > 100_000, what  # cut, before it is read whole
                continue
            assert answer.status_code in ((401, 403) if len(token) < 30_000 else (400, 401, 403, 413, 431)), \
                (what, base, answer.status_code, answer.text)
            assert token not in answer.text
    assert ask(nimbus, "/api/status", secret_of(nimbus, "admin-token")).status_code == 200


# --- what stops a start ---

GOOD = "0123456789abcdef0123456789abcdef"


def refused(folder, role="control-plane", **env):
    """What it says when it does not start, and its exit status."""
    variables = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    variables |= {"NIMBUS_DATA_DIR": str(folder), "NIMBUS_CONTROL_PLANE_PORT": "0", "NIMBUS_LOGGING_PORT": "0"}
    done = subprocess.run([NIMBUS, role], env={**variables, **env}, stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=PATIENCE, check=False, text=True)
    assert done.returncode == 2, (done.returncode, done.stderr)
    for name, value in env.items():
        assert name.endswith("_FILE") or len(value) < 12 or value not in done.stderr, "it shows the secret"
    return done.stderr


@pytest.mark.once
def test_a_role_says_which_key_is_bad_and_how_to_mend_it(tmp_path):
    said = refused(tmp_path / "a", NIMBUS_JWT_SECRET="short-but-secret")
    assert "NIMBUS_JWT_SECRET has 16 bytes" in said and "openssl rand" in said
    said = refused(tmp_path / "b", NIMBUS_AGENT_TOKEN_SECRET=GOOD, NIMBUS_AGENT_TOKEN_SECRET_FALLBACKS="brief-older-one")
    assert "NIMBUS_AGENT_TOKEN_SECRET_FALLBACKS" in said
    said = refused(tmp_path / "c", NIMBUS_AGENT_TOKEN_SECRET=GOOD, NIMBUS_JWT_SECRET=GOOD)
    assert "NIMBUS_AGENT_TOKEN_SECRET and NIMBUS_JWT_SECRET are the same" in said
    said = refused(tmp_path / "d", NIMBUS_GITHUB_WEBHOOK_SECRET=GOOD, NIMBUS_JWT_SECRET=GOOD)
    assert "NIMBUS_GITHUB_WEBHOOK_SECRET" in said
    said = refused(tmp_path / "e", role="logging-pipeline", NIMBUS_CACHE_SHARED_SECRET=GOOD, NIMBUS_JWT_SECRET=GOOD)
    assert "NIMBUS_CACHE_SHARED_SECRET" in said
    (tmp_path / "open").write_text(GOOD)
    (tmp_path / "open").chmod(0o644)
    said = refused(tmp_path / "f", NIMBUS_JWT_SECRET_FILE=str(tmp_path / "open"))
    assert "NIMBUS_JWT_SECRET_FILE" in said and "everybody may read" in said and "chmod" in said


@pytest.mark.once
def test_a_role_refuses_keys_that_are_over_open_or_mismatched(tmp_path):
    with open_folder() as folder, System(data=folder) as system:
        system.stop()
        key = next((system.data / "keys").glob("*.jwk"))
        good = key.read_text()
        key.chmod(0o644)
        said = refused(folder)
        assert key.name in said and "0600" in said
        key.chmod(0o600)
        (system.data / "keys" / "other.jwk").write_text(good)
        (system.data / "keys" / "other.jwk").chmod(0o600)
        assert "thumbprint" in refused(folder)
        (system.data / "keys" / "other.jwk").unlink()
        broken = json.loads(good)
        broken["d"] = b64(b"\1" * 32)
        key.write_text(json.dumps(broken))
        assert "do not match" in refused(folder)
        key.write_text(json.dumps({**json.loads(good), "exp": 1000000000}))
        assert "nimbus admin keys rotate --now" in refused(folder)
        system.cli("admin", "keys", "rotate", "--now")
        sealing = system.data / "secrets" / "secret-env.key"
        sealing.chmod(0o640)
        assert "secret-env.key" in refused(folder)
        sealing.chmod(0o600)
        system.start()
        assert system.cli("jobs", "status").returncode == 0


def test_the_seeds_own_cache_secret_is_a_warning_and_no_key():
    with System(env={"NIMBUS_CACHE_SHARED_SECRET": "local-cache-secret"}) as system:
        assert "NIMBUS_CACHE_SHARED_SECRET is too short" in system.log()
        token = cache_token(1, "read_write", secret="local-cache-secret")
        assert ask(system, "/logs/query", token, "logging_pipeline").status_code == 401


def test_a_control_plane_with_other_keys_does_not_join():
    if database.kind() != "postgresql":
        pytest.skip("control planes share PostgreSQL only (--database postgresql)")
    with System() as system:
        with Plane(system):  # with the same keys: fine
            pass
        stranger = Plane(system, share_keys=False)
        stranger.launch()
        assert stranger.process.wait(PATIENCE) == 2, stranger.log()
        assert "which this one lacks: copy " in stranger.log()
        stranger.__exit__()
