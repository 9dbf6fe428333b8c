"""The logging pipeline over HTTP: what it takes, from whom, what it gives back, and what a kill leaves of it."""

import gzip
import json
import os
import random
import re
import subprocess
import threading
import time

import pytest
import requests

from pipeline import Pipeline, lines
from system import PATIENCE

ORG = 7


def messages(found):
    return [line["message"] for line in found]


def seqs(found):
    return [line["seq"] for line in found]


# --- lines in, lines out ---


@pytest.mark.parametrize("encode", [
    lambda entries: "\n".join(map(json.dumps, entries)),
    json.dumps,
    lambda entries: json.dumps({"entries": entries}),
], ids=["ndjson", "array", "entries"])
def test_three_forms_of_a_body(pipeline, encode):
    answer = pipeline.request("POST", "/logs", pipeline.issuer.job_token(ORG, 1), data=encode(lines(1, 1, 3)))
    assert (answer.status_code, answer.text) == (202, "null")
    found = pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1)
    assert seqs(found) == [3, 2, 1]
    assert found[0] == {"job_id": 1, "attempt": 1, "seq": 3, "stream": "stdout", "level": "info", "message": "line 3",
                        "timestamp": "2026-11-21T12:00:00.000003Z", "org_id": ORG, "repo_id": 0} | found[0]


def test_the_seeds_entries(pipeline):
    entries = [{"job_id": 12345, "agent_id": "host-1", "org_id": ORG, "repo_id": 99, "level": "warning",
                "message": text, "timestamp": "2026-11-21T12:00:00Z"} for text in ("first", "second")]
    token = pipeline.issuer.pusher_token(ORG)
    for _ in range(2):
        assert pipeline.request("POST", "/logs", token, json={"entries": entries}).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    found = pipeline.query(reader, job_id=12345)
    assert messages(found) == ["second", "first", "second", "first"]  # not deduplicated: they carry no number
    assert {(line["attempt"], line["repo_id"], line["level"]) for line in found} == {(0, 99, "warning")}
    assert pipeline.query(reader, repo_id=99, limit=1) == found[:1]
    assert pipeline.query(reader, repo_id=98) == []


def test_a_retried_batch_stores_nothing_twice(pipeline):
    token = pipeline.issuer.job_token(ORG, 1)
    for first, last in ((1, 100), (1, 100), (51, 150), (150, 150)):
        assert pipeline.post(token, lines(1, first, last)).status_code == 202
    found = pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1, attempt=1, order="oldest", limit=500)
    assert seqs(found) == list(range(1, 151))


def test_a_gap_is_refused(pipeline):
    token = pipeline.issuer.job_token(ORG, 1)
    assert pipeline.post(token, lines(1, 1, 3)).status_code == 202
    answer = pipeline.post(token, lines(1, 5, 6))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert "line 4 is next" in answer.json()["detail"]
    assert seqs(pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1)) == [3, 2, 1]


def test_pages_by_cursor(pipeline):
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), lines(1, 1, 25)).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    for order, wanted in (("oldest", list(range(1, 26))), ("newest", list(range(25, 0, -1)))):
        got = []
        while True:
            page = pipeline.query(reader, job_id=1, attempt=1, order=order, limit=10, cursor=got[-1] if got else 0)
            got += seqs(page)
            if not page:
                break
        assert got == wanted


def test_search(pipeline):
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), lines(1, 1, 20)).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    assert messages(pipeline.query(reader, contains="LINE 19")) == ["line 19"]
    assert messages(pipeline.query(reader, contains="line 2", job_id=1)) == ["line 20", "line 2"]
    assert messages(pipeline.query(reader, job_id=1, since="2026-11-21T12:00:00.000019Z")) == ["line 20", "line 19"]
    assert messages(pipeline.query(reader, job_id=1, until="2026-11-21T12:00:00.000002Z")) == ["line 1"]
    assert messages(pipeline.query(reader, job_id=1, limit=1)) == ["line 20"]


def test_filters_of_a_search(pipeline):
    entries = lines(1, 1, 6)
    for entry, (message, level) in zip(entries, [("Start", "info"), ("step ERROR 1", "info"), ("bad", "error"),
                                                 ("careful", "warning"), ("error_count 0", "info"), ("100% Ok", "info")]):
        entry |= {"message": message, "level": level}
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), entries).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    for asked, wanted in (({"contains": "START"}, [1]), ({"grep": "START"}, []), ({"grep": "Start"}, [1]),
                          ({"contains": "%"}, [6]), ({"contains": "s_a"}, []), ({"errors": "true"}, [2, 3]),
                          ({"level": "warning"}, [3, 4]), ({"level": "critical"}, []),
                          ({"errors": "1", "contains": "step"}, [2]), ({"errors": "false"}, [1, 2, 3, 4, 5, 6])):
        for where in ({}, {"job_id": 1}, {"job_id": 1, "attempt": 1}):
            assert seqs(pipeline.query(reader, order="oldest", **where, **asked)) == wanted, (asked, where)
        got = pipeline.tail_lines(reader, job_id=1, follow="false", **asked)
        assert seqs(got[:-1]) == wanted, asked
        assert got[-1] == {"end": False, "last_seq": 6}


def test_the_end_of_a_tail(pipeline):
    entries = lines(1, 1, 20)
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), entries).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    for asked, wanted in (({"tail": 3}, [18, 19, 20]), ({"tail": 0}, []), ({"tail": 99}, list(range(1, 21))),
                          ({"tail": 2, "contains": "line 1"}, [18, 19]), ({"tail": 3, "cursor": 10}, list(range(11, 21))),
                          ({"since": "2026-11-21T12:00:00.000018Z"}, [18, 19, 20]),
                          ({"until": "2026-11-21T12:00:00.000003Z"}, [1, 2])):
        got = pipeline.tail_lines(reader, job_id=1, follow="false", **asked)
        assert seqs(got[:-1]) == wanted, asked
        assert got[-1] == {"end": False, "last_seq": 20}


def test_ndjson_and_a_cursor_over_several_jobs(pipeline):
    # Two jobs, an organisation of another's between them, and times that alternate.
    for job in (1, 2):
        entries = lines(job, 1, 10)
        for i, entry in enumerate(entries):
            entry["timestamp"] = f"2026-11-21T12:00:{2 * i + job:02}Z"
        assert pipeline.post(pipeline.issuer.job_token(ORG, job), entries).status_code == 202
    assert pipeline.post(pipeline.issuer.job_token(ORG + 1, 1), lines(1, 1, 10)).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    for order in ("newest", "oldest"):
        times, cursor, pages = [], None, 0
        while True:
            answer = pipeline.request("GET", "/logs/query", reader, headers={"Accept": "application/x-ndjson"},
                                      params={"order": order, "limit": 7, "cursor": cursor,
                                              "since": "2026-01-01T00:00:00Z", "hours_back": 10**6})
            assert answer.status_code == 200, answer.text
            *found, end = map(json.loads, answer.text.splitlines())
            times += [line["timestamp"] for line in found]
            assert {line["org_id"] for line in found} <= {ORG}
            pages += 1
            if end["end"]:
                assert end == {"end": True} and "X-Nimbus-Cursor" not in answer.headers
                break
            cursor = end["cursor"]
            assert answer.headers["X-Nimbus-Cursor"] == cursor
        assert pages == 3 and len(times) == 20
        assert times == sorted(times, reverse=order == "newest")


# --- limits of searches ---


def test_a_search_that_reads_too_much_goes_on(make_pipeline, issuer):
    pipeline = make_pipeline(env={"NIMBUS_LOG_QUERY_SCAN_BYTES": "1K"}).start()
    token, reader = issuer.job_token(ORG, 1), issuer.reader_token(ORG)
    for first in range(1, 1001, 100):
        assert pipeline.post(token, lines(1, first, first + 99)).status_code == 202
    got, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        answer = pipeline.request("GET", "/logs/query", reader, params={
            "job_id": 1, "attempt": 1, "contains": "9", "order": "oldest", "limit": 500, "cursor": cursor})
        assert answer.status_code == 200, answer.text
        got += seqs(answer.json())
        cursor = answer.headers.get("X-Nimbus-Cursor")
        assert answer.headers.get("X-Nimbus-Partial") == ("scanned" if cursor is not None else None)
        pages += 1
    wanted = [n for n in range(1, 1001) if "9" in str(n)]
    assert got == wanted and pages == 11  # a block each, and the end
    # A tail with a filter is a search too, until it has caught up.
    got, cursor = [], 0
    while True:
        *found, end = pipeline.tail_lines(reader, job_id=1, contains="9", cursor=cursor, follow="false")
        got += [line["seq"] for line in found if "seq" in line]
        cursor = end["last_seq"]
        if "partial" not in end:
            break
        assert end["partial"] == "scanned"
    assert got == wanted and cursor == 1000
    metrics = pipeline.request("GET", "/metrics").text
    assert "nimbus_logging_query_partial_total 0" not in metrics
    assert "nimbus_logging_query_active 0" in metrics and "nimbus_logging_query_concurrency_limit 2" in metrics


def test_a_search_that_takes_too_long_says_so(make_pipeline, issuer):
    pipeline = make_pipeline(env={"NIMBUS_LOG_QUERY_TIMEOUT": "0.01"}).start()
    token, reader = issuer.job_token(ORG, 1), issuer.reader_token(ORG)
    body = "\n".join(json.dumps({**lines(1, 1, 1)[0], "seq": seq, "message": f"{seq} " + "x" * 4000})
                     for seq in range(1, 3001)).encode()
    assert pipeline.request("POST", "/logs", token, data=body).status_code == 202
    cursor, partial, pages = None, set(), 0
    while pages == 0 or cursor is not None:
        answer = pipeline.request("GET", "/logs/query", reader, params={
            "job_id": 1, "attempt": 1, "errors": "true", "order": "oldest", "cursor": cursor})
        assert answer.status_code == 200 and answer.json() == []
        cursor = answer.headers.get("X-Nimbus-Cursor")
        partial.add(answer.headers.get("X-Nimbus-Partial"))
        pages += 1
    assert partial <= {"time", None}


def test_two_searches_at_a_time(make_pipeline, issuer):
    pipeline = make_pipeline(env={"NIMBUS_LOG_QUERY_CONCURRENCY": "1"}).start()
    token, reader = issuer.job_token(ORG, 1), issuer.reader_token(ORG)
    # A tail with a filter whose reader does not read: its search is not over.
    body = "\n".join(json.dumps({**lines(1, 1, 1)[0], "seq": seq, "message": f"{seq} " + "x" * 4000})
                     for seq in range(1, 3501)).encode()
    assert pipeline.request("POST", "/logs", token, data=body).status_code == 202
    with pipeline.tail(reader, job_id=1, contains="x", follow="false") as slow:
        assert slow.status_code == 200
        for path in ("/logs/query", "/logs/tail"):
            answer = pipeline.request("GET", path, reader, params={"job_id": 1, "contains": "x", "follow": "false"})
            assert (answer.status_code, answer.json()["code"]) == (429, "limit_reached")
            assert answer.headers["Retry-After"] == "1"
        # Others are not touched, nor is who only follows.
        assert pipeline.query(issuer.reader_token(ORG + 1)) == []
        assert pipeline.tail_lines(reader, job_id=1, tail=1, follow="false")[-1] == {"end": False, "last_seq": 3500}
        slow.close()
    deadline = time.monotonic() + PATIENCE
    while pipeline.request("GET", "/logs/query", reader, params={"job_id": 1}).status_code == 429:
        assert time.monotonic() < deadline
    assert "nimbus_logging_query_refused_total 0" not in pipeline.request("GET", "/metrics").text


@pytest.mark.parametrize("path, parameters", [
    ("/logs/query", {"cursor": "x"}), ("/logs/query", {"cursor": "1.2.3"}), ("/logs/query", {"cursor": "1.2.3.4.5"}),
    ("/logs/query", {"job_id": 1, "attempt": 1, "cursor": "1.2.3.4"}),
    ("/logs/query", {"job_id": 1, "attempt": 1, "cursor": -1}),
    ("/logs/query", {"job_id": 1, "attempt": 1, "cursor": 2**63}),
    ("/logs/tail", {"job_id": 1, "cursor": "0x1"}), ("/logs/tail", {"job_id": 1, "tail": -1}),
    ("/logs/query", {"level": "loud"}), ("/logs/query", {"errors": "perhaps"}),
    ("/logs/query", {"contains": "a", "grep": "a"}),
    ("/logs/query", {"contains": "a" * 257}), ("/logs/tail", {"job_id": 1, "grep": "a" * 257}),
], ids=str)
def test_cursors_made_by_hand(pipeline, path, parameters):
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), lines(1, 1, 3)).status_code == 202
    answer = pipeline.request("GET", path, pipeline.issuer.reader_token(ORG), params=parameters)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_field"), answer.text


def test_cursors_that_are_another_s(pipeline):
    for org in (ORG, ORG + 1):
        assert pipeline.post(pipeline.issuer.job_token(org, org), lines(org, 1, 3)).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    for cursor in (f"{2**62}.{ORG + 1}.1.2", f"-{2**62}.0.0.0", f"{2**63 - 1}.{2**53 - 1}.{2**32 - 1}.{2**53 - 1}"):
        for order in ("newest", "oldest"):
            answer = pipeline.request("GET", "/logs/query", reader, params={"cursor": cursor, "order": order})
            assert answer.status_code == 200
            assert {line["org_id"] for line in answer.json()} <= {ORG}
    # A line that is not there is not waited for.
    answer = pipeline.request("GET", "/logs/tail", reader, params={"job_id": ORG, "attempt": 1, "cursor": 4})
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")
    assert "ends with line 3" in answer.json()["detail"]
    answer = pipeline.request("GET", "/logs/tail", reader, params={"job_id": ORG + 1, "attempt": 1, "cursor": 1})
    assert answer.status_code == 404
    answer = pipeline.request("GET", "/logs/query", reader, headers={"Range": "bytes=0-1,5-"}, params={"job_id": ORG})
    assert answer.status_code == 200 and len(answer.json()) == 3


# --- who may ---


def test_nobody_without_a_token(pipeline):
    for method, path in (("POST", "/logs"), ("POST", "/logs/seal"), ("GET", "/logs/query"), ("GET", "/logs/tail")):
        answer = pipeline.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized"), path


def test_an_organisation_is_alone(pipeline):
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), lines(1, 1, 3)).status_code == 202
    stranger = pipeline.issuer.reader_token(ORG + 1)
    assert pipeline.query(stranger) == []
    assert pipeline.query(stranger, job_id=1) == []
    assert pipeline.tail_lines(stranger, job_id=1, follow="false") == [{"end": False, "last_seq": 0}]
    answer = pipeline.request("GET", "/logs/query", stranger, params={"org_id": ORG})
    assert answer.status_code == 403
    answer = pipeline.post(pipeline.issuer.pusher_token(ORG + 1), lines(1, 4, 4, org_id=ORG))
    assert answer.status_code == 400
    assert answer.json()["detail"] == f"Entry org_id mismatch: expected {ORG + 1}, got {ORG}"
    # The same job id of another organisation is another log.
    assert pipeline.post(pipeline.issuer.job_token(ORG + 1, 1), lines(1, 1, 1)).status_code == 202
    assert seqs(pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1)) == [3, 2, 1]


def test_the_token_of_a_jobs_services_reads_that_job_and_writes_beside_it(pipeline):
    for job in (1, 2):
        assert pipeline.post(pipeline.issuer.job_token(ORG, job), lines(job, 1, 3)).status_code == 202
    token = pipeline.issuer.token("job", org=ORG, job_id=1, scope=f"pull:org-{ORG},push:org-{ORG}")
    assert {line["job_id"] for line in pipeline.query(token)} == {1}
    assert seqs(pipeline.query(token, job_id=1)) == [3, 2, 1]
    assert seqs(pipeline.tail_lines(token, follow="false", attempt=1, job_id=1)[:-1]) == [1, 2, 3]
    for path in ("/logs/query", "/logs/tail"):
        answer = pipeline.request("GET", path, token, params={"job_id": 2})
        assert answer.status_code == 403
        assert "the token is for job 1, not 2" in answer.json()["detail"]
    assert pipeline.post(token, lines(1, 4, 4)).status_code == 403
    assert pipeline.request("POST", "/logs", token, json={"entries": [{"job_id": 2, "message": "x"}]}).status_code == 403
    assert pipeline.request("POST", "/logs", token, json={"entries": [{"job_id": 1, "message": "x"}]}).status_code == 202
    assert pipeline.query(token, job_id=1, attempt=0)[0]["message"] == "x"


def test_a_job_token_is_for_its_attempt(pipeline):
    token = pipeline.issuer.job_token(ORG, 1, attempt=2)
    for wrong in (lines(2, 1, 1, attempt=2), lines(1, 1, 1, attempt=1), lines(1, 1, 1, attempt=2) + lines(2, 1, 1)):
        answer = pipeline.post(token, wrong)
        assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    assert pipeline.post(token, lines(1, 1, 1, attempt=2)).status_code == 202
    # It writes; it does not read, nor seal.
    assert pipeline.request("GET", "/logs/query", token).status_code == 403
    assert pipeline.seal(ORG, 1, 2, None, token=token).status_code == 403
    assert len(pipeline.query(pipeline.issuer.reader_token(ORG))) == 1


@pytest.mark.parametrize("make, status", [
    (lambda i: i.job_token(ORG, 1, lifetime=-120), 401),
    (lambda i: i.token("agent", org=ORG, scope=f"push:org-{ORG}"), 403),
    (lambda i: i.token("job", org=ORG, scope=f"pull:org-{ORG}"), 403),
    (lambda i: i.token("job", org=ORG, scope=f"push:org-{ORG + 1}"), 403),
    (lambda i: i.token("job", org=0, scope="push:org-0"), 403),
    (lambda i: i.job_token(ORG, 1, header={"kid": "unknown"}), 401),
    (lambda i: i.job_token(ORG, 1, header={"alg": "none"}), 401),
    (lambda i: i.job_token(ORG, 1)[:-4] + "AAAA", 401),
    (lambda i: "nonsense", 401),
], ids=["expired", "audience", "scope", "other org", "org 0", "unknown key", "alg none", "signature", "nonsense"])
def test_bad_tokens(pipeline, make, status):
    answer = pipeline.post(make(pipeline.issuer), lines(1, 1, 1))
    assert answer.status_code == status, answer.text
    assert pipeline.query(pipeline.issuer.reader_token(ORG)) == []


# --- what bad input gets ---


@pytest.mark.parametrize("body, status, word", [
    (b"", 400, ""),
    (b"{", 400, ""),
    (b"\xff\xfe", 400, ""),
    (b"null", 422, "line 1"),
    (b'{"job_id": 1, "attempt": 1, "seq": 1}', 422, "message"),
    (b'{"job_id": 0, "attempt": 1, "seq": 1, "message": "x"}', 422, "job_id"),
    (b'{"job_id": 1, "attempt": -1, "seq": 1, "message": "x"}', 422, "attempt"),
    (b'{"job_id": 1, "attempt": 1, "message": "x"}', 422, "seq"),
    (b'{"job_id": 1, "attempt": 1, "seq": 1, "message": "x", "level": "loud"}', 422, "level"),
    (b'{"job_id": 1, "attempt": 1, "seq": 1, "message": "x", "timestamp": "noon"}', 422, "timestamp"),
    (b'{"job_id": 1, "attempt": 1, "seq": 1, "message": "' + b"x" * 300000 + b'"}', 422, "message"),
    (b'{"job_id": 1, "attempt": 1, "seq": 1, "message": "x"}\n{"job_id": 1}', 422, "2"),
], ids=lambda value: str(value)[:60])
def test_bad_bodies_store_nothing(pipeline, body, status, word):
    answer = pipeline.request("POST", "/logs", pipeline.issuer.job_token(ORG, 1), data=body)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail", "code", "hint", "request_id"}
    assert word in answer.json()["detail"]
    assert pipeline.query(pipeline.issuer.reader_token(ORG)) == []


def test_a_body_that_is_too_large(pipeline):
    answer = pipeline.request("POST", "/logs", pipeline.issuer.job_token(ORG, 1), data=b" " * (30 << 20))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize("path, name", [
    ("/logs/query?limit=0", "limit"), ("/logs/query?limit=501", "limit"), ("/logs/query?limit=x", "limit"),
    ("/logs/query?job_id=-1", "job_id"), ("/logs/query?attempt=1", "attempt"), ("/logs/query?cursor=1", "cursor"),
    ("/logs/query?since=yesterday", "since"), ("/logs/query?order=random", "order"),
    ("/logs/query?hours_back=0", "hours_back"),
    ("/logs/tail", "job_id"), ("/logs/tail?job_id=1&cursor=-1", "cursor"), ("/logs/tail?job_id=1&follow=no", "follow"),
])
def test_bad_parameters_are_named(pipeline, path, name):
    answer = pipeline.request("GET", path, pipeline.issuer.reader_token(ORG))
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(f"{name}: ")


@pytest.mark.parametrize("body, name", [
    ({"job_id": 1, "attempt": 1}, "org_id"), ({"org_id": 1, "attempt": 1}, "job_id"),
    ({"org_id": 1, "job_id": 1}, "attempt"), ({"org_id": 1, "job_id": 1, "attempt": 0}, "attempt"),
    ({"org_id": 1, "job_id": 1, "attempt": 1, "last_seq": -1}, "last_seq"),
    ({"org_id": 1, "job_id": 1, "attempt": 1, "last_seq": "many"}, "last_seq"),
])
def test_bad_seals_are_named(pipeline, body, name):
    answer = pipeline.request("POST", "/logs/seal", pipeline.issuer.seal_token(), json=body)
    assert answer.status_code == 422
    assert name in answer.json()["detail"]


# --- packed bodies ---


def by_zstd(data):
    return subprocess.run(["zstd", "-qc"], input=data, capture_output=True, check=True).stdout


@pytest.mark.parametrize("coding, pack", [("gzip", gzip.compress), ("zstd", by_zstd), ("X-GZip", gzip.compress),
                                          ("identity", bytes)])
def test_packed_bodies(pipeline, coding, pack):
    token, reader = pipeline.issuer.job_token(ORG, 1), pipeline.issuer.reader_token(ORG)
    body = "\n".join(map(json.dumps, lines(1, 1, 5000))).encode()

    def post(data):
        return pipeline.request("POST", "/logs", token, data=data, headers={"Content-Encoding": coding})

    if pack is not bytes:
        # Nothing of a body that breaks off is stored, although its first lines were whole.
        whole = pack(body)
        for cut in (whole[:-1], whole[:len(whole) // 2], whole[:5], body[:100], whole + b"more"):
            answer = post(cut)
            assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request"), answer.text
        assert pipeline.query(reader, job_id=1) == []
    # Two members or frames are one body; chunks of a request are none of their business.
    half = body.index(b"\n", len(body) // 2) + 1
    data = pack(body[:half]) + pack(body[half:])
    assert post(data[i:i + 1000] for i in range(0, len(data), 1000)).status_code == 202
    assert seqs(pipeline.tail_lines(reader, job_id=1, follow="false")[:-1]) == list(range(1, 5001))
    assert "nimbus_logging_body_bytes 0" in pipeline.request("GET", "/metrics").text


@pytest.mark.parametrize("coding, pack", [("gzip", gzip.compress), ("zstd", by_zstd)])
def test_a_bomb(pipeline, coding, pack):
    entry = json.dumps(lines(1, 1, 1)[0]).encode() + b"\n"
    for data in (pack(b" " * (40 << 20)), pack(entry + b"\n" * (17 << 20))):
        answer = pipeline.request("POST", "/logs", pipeline.issuer.job_token(ORG, 1), data=data,
                                  headers={"Content-Encoding": coding})
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
        assert "unpacks to more than" in answer.json()["detail"]
    assert pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1) == []


@pytest.mark.parametrize("coding", ["br", "deflate", "gzip, zstd", "", "gzip;q=1"])
def test_other_codings(pipeline, coding):
    answer = pipeline.request("POST", "/logs", pipeline.issuer.job_token(ORG, 1), data=b"x",
                              headers={"Content-Encoding": coding})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_coding")
    assert answer.headers["Accept-Encoding"] == "gzip, zstd"


# --- seals and following ---


def test_a_seal_closes_behind_its_last_line(pipeline):
    token = pipeline.issuer.job_token(ORG, 1)
    assert pipeline.post(token, lines(1, 1, 3)).status_code == 202
    for _ in range(2):
        assert pipeline.seal(ORG, 1, 1, 5).status_code == 202
    assert pipeline.post(token, lines(1, 4, 5)).status_code == 202
    answer = pipeline.post(token, lines(1, 6, 6))
    assert (answer.status_code, answer.json()["code"]) == (409, "sealed")
    assert pipeline.post(token, lines(1, 4, 5)).status_code == 202  # its answer was lost
    assert pipeline.tail_lines(pipeline.issuer.reader_token(ORG), job_id=1)[-1] == {"end": True, "last_seq": 5}


def test_a_lost_attempt_is_closed_at_once(pipeline):
    first, second = (pipeline.issuer.job_token(ORG, 1, attempt=n) for n in (1, 2))
    assert pipeline.post(first, lines(1, 1, 3)).status_code == 202
    assert pipeline.seal(ORG, 1, 1, None).status_code == 202
    assert pipeline.post(first, lines(1, 4, 4)).json()["code"] == "sealed"
    assert pipeline.post(second, lines(1, 1, 2, attempt=2)).status_code == 202
    reader = pipeline.issuer.reader_token(ORG)
    assert pipeline.tail_lines(reader, job_id=1, attempt=1)[-1] == {"end": True, "last_seq": 3}
    newest = pipeline.tail_lines(reader, job_id=1, follow="false")
    assert [line.get("attempt") for line in newest] == [2, 2, None]


class Follower(threading.Thread):
    """Collects the objects of a tail; `seen` is set whenever one came."""

    def __init__(self, pipeline, **parameters):
        super().__init__(daemon=True)
        self.answer = pipeline.tail(pipeline.issuer.reader_token(ORG), **parameters)
        assert self.answer.status_code == 200
        self.got = []
        self.changed = threading.Condition()
        self.start()

    def run(self):
        try:
            for line in self.answer.iter_lines(chunk_size=None):
                if line:
                    with self.changed:
                        self.got.append(json.loads(line))
                        self.changed.notify_all()
        except requests.RequestException:
            pass  # cut: what came counts

    def wait_for(self, count):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.got) >= count, PATIENCE), self.got


def test_a_follower_sees_lines_as_they_come(pipeline):
    token = pipeline.issuer.job_token(ORG, 1)
    early = Follower(pipeline, job_id=1, attempt=1)  # before there is anything
    assert pipeline.post(token, lines(1, 1, 2)).status_code == 202
    early.wait_for(2)
    late = Follower(pipeline, job_id=1, attempt=1, cursor=1)
    late.wait_for(1)
    assert pipeline.post(token, lines(1, 3, 3)).status_code == 202
    early.wait_for(3)
    assert pipeline.seal(ORG, 1, 1, 4).status_code == 202  # one line is still missing
    assert pipeline.post(token, lines(1, 4, 4)).status_code == 202
    for follower, wanted in ((early, [1, 2, 3, 4]), (late, [2, 3, 4])):
        follower.join(PATIENCE)
        assert not follower.is_alive()
        assert [line.get("seq") for line in follower.got[:-1]] == wanted
        assert follower.got[-1] == {"end": True, "last_seq": 4}


def test_a_seal_without_lines_ends_followers(pipeline):
    follower = Follower(pipeline, job_id=1, attempt=1)
    assert pipeline.seal(ORG, 1, 1, 0).status_code == 202
    follower.join(PATIENCE)
    assert follower.got == [{"end": True, "last_seq": 0}]


def test_server_sent_events(pipeline):
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), lines(1, 1, 2)).status_code == 202
    assert pipeline.seal(ORG, 1, 1, 2).status_code == 202
    headers = {"Accept": "text/event-stream", "Last-Event-ID": "1"}
    with pipeline.tail(pipeline.issuer.reader_token(ORG), headers=headers, job_id=1, attempt=1) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        events = answer.text.split("\n\n")
    head, data = events[0].split("\n")
    assert head == "id: 2"
    assert json.loads(data.removeprefix("data: "))["message"] == "line 2"
    assert events[1] == 'event: end\ndata: {"end":true,"last_seq":2}'
    assert events[2] == ""


def test_a_stopping_pipeline_lets_followers_go(pipeline):
    follower = Follower(pipeline, job_id=1, attempt=1)
    assert pipeline.post(pipeline.issuer.job_token(ORG, 1), lines(1, 1, 1)).status_code == 202
    follower.wait_for(1)
    assert pipeline.stop() == 0
    follower.join(PATIENCE)
    assert not follower.is_alive()
    assert seqs(follower.got) == [1]  # and no word of an end


# --- what goes ---


def everything_in(folder):
    """All bytes below it, and all that they unpack to."""
    found = []
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        data = path.read_bytes()
        found += [str(path).encode(), data]
        at = data.find(b"\x28\xb5\x2f\xfd")
        while at >= 0:
            found.append(subprocess.run(["zstd", "-dcq"], input=data[at:], capture_output=True, check=False).stdout)
            at = data.find(b"\x28\xb5\x2f\xfd", at + 4)
    return b"\n".join(found)


def admin(pipeline, method, path, **parameters):
    return pipeline.request(method, path, pipeline.issuer.token("admin"), params=parameters)


def test_deleting_an_organisation_s_logs_leaves_nothing(pipeline):
    issuer, canary = pipeline.issuer, "canary" + os.urandom(8).hex()
    other = "other" + os.urandom(8).hex()
    for job in (1, 2, 3):
        assert pipeline.post(issuer.job_token(ORG, job), lines(job, 1, 50, message=canary)).status_code == 202
        assert pipeline.post(issuer.job_token(ORG + 1, job), lines(job, 1, 5, message=other)).status_code == 202
    assert pipeline.post(issuer.pusher_token(ORG), [{"job_id": 9, "message": canary}]).status_code == 202
    assert pipeline.seal(ORG, 1, 1, 50).status_code == 202
    assert pipeline.seal(ORG, 2, 1, 60).status_code == 202  # ten lines are still on their way
    follower = Follower(pipeline, job_id=3, attempt=1)
    follower.wait_for(50)
    assert len(pipeline.query(issuer.reader_token(ORG), contains=canary, limit=500)) == 151
    before = everything_in(pipeline.data)
    assert canary.encode() in before and other.encode() in before
    for token in (issuer.seal_token(), issuer.reader_token(ORG), issuer.job_token(ORG, 1), issuer.token("admin", org=9)):
        assert pipeline.request("DELETE", "/logs", token, params={"org_id": ORG}).status_code == 403
    assert admin(pipeline, "DELETE", "/logs").status_code == 422
    answer = admin(pipeline, "DELETE", "/logs", org_id=ORG)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["deleted_attempts"], found["running_attempts"]) == (4, 3) and found["deleted_bytes"] > 0
    after = everything_in(pipeline.data)
    assert canary.encode() not in after and other.encode() in after
    assert re.search(rf"audit: logs deleted by request.*by=test.*org={ORG}\b", pipeline.text())
    # Who goes on finds its numbers; who has ended is gone; nobody else has noticed.
    for life in range(2):
        reader = issuer.reader_token(ORG)
        if life == 0:
            assert pipeline.query(reader) == []
            assert pipeline.post(issuer.job_token(ORG, 3), lines(3, 48, 52)).status_code == 202
            assert pipeline.post(issuer.job_token(ORG, 2), lines(2, 51, 60)).status_code == 202
            follower.wait_for(52)
            assert seqs(follower.got) == list(range(1, 53))
        assert seqs(pipeline.tail_lines(reader, job_id=3, follow="false")[:-1]) == [51, 52]
        assert pipeline.tail_lines(reader, job_id=2, cursor=58)[-1] == {"end": True, "last_seq": 60}
        assert pipeline.tail_lines(reader, job_id=1, attempt=1, follow="false") == [{"end": False, "last_seq": 0}]
        assert pipeline.request("GET", "/logs/tail", reader, params={"job_id": 1, "attempt": 1, "cursor": 50}
                                ).status_code == 404
        assert len(pipeline.query(issuer.reader_token(ORG + 1), contains=other)) == 15
        pipeline.kill()
        assert canary.encode() not in everything_in(pipeline.data)
        pipeline.start()
    assert admin(pipeline, "DELETE", "/logs", org_id=ORG, job_id=2).json()["deleted_attempts"] == 1
    assert seqs(pipeline.query(issuer.reader_token(ORG), job_id=3)) == [52, 51]
    pipeline.seal(ORG, 3, 1, 52)
    assert admin(pipeline, "DELETE", "/logs", org_id=ORG).status_code == 200
    # All but the one of the seeds' form, which nobody ever seals, and only its number.
    assert [path.name for path in (pipeline.data / "logs" / "segments" / str(ORG)).rglob("*.seg")] == ["9-0.seg"]


def test_kill_9_while_logs_are_deleted(pipeline):
    """Whatever was deleted at the moment of the kill: no half of a log, and numbers that go on."""
    issuer = pipeline.issuer
    reader, token = issuer.reader_token(ORG), issuer.token("admin")
    acknowledged = {job: 0 for job in range(1, 9)}
    for kill in range(4):
        for job, last in acknowledged.items():
            assert pipeline.post(issuer.job_token(ORG, job), lines(job, last + 1, last + 20)).status_code == 202
            acknowledged[job] = last + 20

        def delete():
            try:
                pipeline.request("DELETE", "/logs", token, params={"org_id": ORG})
            except OSError:
                pass

        deleter = threading.Thread(target=delete)
        deleter.start()
        time.sleep(kill * 0.004)
        pipeline.kill()
        deleter.join(PATIENCE)
        pipeline.start()
        for job, last in acknowledged.items():
            got = seqs(pipeline.tail_lines(reader, job_id=job, attempt=1, follow="false")[:-1])
            assert got in ([], list(range(last - len(got) + 1, last + 1))) and len(got) % 20 == 0


def age(pipeline, job, days):
    path = pipeline.data / "logs" / "segments" / str(ORG) / "0" / f"{job}-1.seg"
    os.utime(path, (time.time() - days * 86400,) * 2)


def stored(pipeline):
    return sorted(int(path.name.split("-")[0]) for path in (pipeline.data / "logs" / "segments").rglob("*.seg"))


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_old_logs_go(make_pipeline, issuer):
    pipeline = make_pipeline(env={"NIMBUS_LOG_RETENTION_DAYS": "1"}).start()
    for job in (1, 2, 3, 4):
        assert pipeline.post(issuer.job_token(ORG, job), lines(job, 1, 5)).status_code == 202
    for job in (1, 2):
        assert pipeline.seal(ORG, job, 1, 5).status_code == 202
    assert pipeline.stop() == 0
    for job, days in ((1, 1.5), (2, 0.5), (3, 1.5), (4, 2.5)):  # 3 may still be sent lines, 4 not
        age(pipeline, job, days)
    pipeline.env["NIMBUS_LOG_RETENTION_INTERVAL"] = "0.05"
    pipeline.start()
    wait_until(lambda: stored(pipeline) == [2, 3])
    wait_until(lambda: re.search(rf"old logs deleted.*org={ORG} attempts=\d bytes=\d+", pipeline.text()))
    assert "nimbus_logging_retention_attempts_total 2" in pipeline.request("GET", "/metrics").text
    pipeline.kill()
    pipeline.start()
    assert stored(pipeline) == [2, 3]
    # A job's lines are its own again.
    assert pipeline.post(issuer.job_token(ORG, 3), lines(3, 6, 7)).status_code == 202
    assert len(pipeline.query(issuer.reader_token(ORG), job_id=3)) == 7


def test_an_organisation_has_its_own_retention(make_pipeline, issuer):
    pipeline = make_pipeline(env={"NIMBUS_LOG_RETENTION_INTERVAL": "0.05"}).start()
    default = {"org_id": ORG, "days": 90, "bytes": 0, "own": False}
    assert admin(pipeline, "GET", "/logs/retention", org_id=ORG).json() == default
    for job in (1, 2, 3):
        assert pipeline.post(issuer.job_token(ORG, job), lines(job, 1, 5)).status_code == 202
        assert pipeline.seal(ORG, job, 1, 5).status_code == 202
        age(pipeline, job, 1 - job * 0.1)
    size = (pipeline.data / "logs" / "segments" / str(ORG) / "0" / "1-1.seg").stat().st_size

    def put(body, token=None):
        return pipeline.request("PUT", "/logs/retention", token or issuer.token("admin"), params={"org_id": ORG}, json=body)

    for body in ({"days": 1}, {"days": -1, "bytes": 0}, {"days": 1, "bytes": "much"}):
        assert put(body).status_code == 422
    assert put({"days": 1, "bytes": 1}, issuer.seal_token()).status_code == 403
    assert put({"days": 30, "bytes": 2 * size + 50}).json() == {"org_id": ORG, "days": 30, "bytes": 2 * size + 50,
                                                               "own": True}
    wait_until(lambda: stored(pipeline) == [2, 3])
    pipeline.kill()
    pipeline.start()
    assert admin(pipeline, "GET", "/logs/retention", org_id=ORG).json()["days"] == 30
    assert admin(pipeline, "DELETE", "/logs/retention", org_id=ORG).json() == default
    pipeline.stop()
    # More days than nanoseconds have numbers for would be a time to come, and everything older than that.
    for bad in ('{"7": {"days": "many"}}', '{"7": {"days": 106752, "bytes": 0}}'):
        (pipeline.data / "logs" / "retention.json").write_text(bad)
        done = subprocess.run(pipeline.argv, env=pipeline.env, capture_output=True, text=True, timeout=PATIENCE,
                              check=False)
        assert done.returncode != 0 and "retention.json" in done.stderr


def test_one_job_does_not_fill_the_disk(make_pipeline, issuer):
    pipeline = make_pipeline(env={"NIMBUS_LOG_ATTEMPT_MAX_BYTES": "1K"}).start()
    token, reader = issuer.job_token(ORG, 1), issuer.reader_token(ORG)
    sent = 0
    while "nimbus_logging_rows_cut_total 0" in pipeline.request("GET", "/metrics").text:
        assert pipeline.post(token, lines(1, sent + 1, sent + 100)).status_code == 202
        sent += 100
        assert sent <= 2000
    path = pipeline.data / "logs" / "segments" / str(ORG) / "0" / "1-1.seg"
    size = path.stat().st_size
    for life in range(2):
        for _ in range(20):
            assert pipeline.post(token, lines(1, sent + 1, sent + 100)).status_code == 202
            sent += 100
        assert path.stat().st_size == size
        if life == 0:
            pipeline.kill()
            pipeline.start()
    assert pipeline.seal(ORG, 1, 1, sent).status_code == 202
    *found, end = pipeline.tail_lines(reader, job_id=1, attempt=1)
    assert seqs(found) == list(range(1, len(found) + 1))
    assert "NIMBUS_LOG_ATTEMPT_MAX_BYTES" in found[-1]["message"] and found[-1]["stream"] == "system"
    assert end == {"end": True, "last_seq": len(found), "cut": True}


# --- what stays ---


def test_a_follower_that_comes_back_misses_nothing(make_pipeline, issuer):
    """Kills, clean restarts, retention and a seal under it; and it never sees a line twice."""
    pipeline = make_pipeline(env={"NIMBUS_LOG_RETENTION_INTERVAL": "0.05", "NIMBUS_LOG_RETENTION_BYTES": "1"}).start()
    count = 4000
    sender = Sender(pipeline, 1, count, 7)
    sender.start()
    got, done = [], threading.Event()

    def follow():
        cursor = 0
        while not done.is_set():
            try:
                for entry in pipeline.tail_lines(issuer.reader_token(ORG), job_id=1, attempt=1, cursor=cursor):
                    got.append(entry)
            except (AssertionError, OSError, TypeError, ValueError):  # cut within a line, refused, or nobody there
                pass
            numbers = seqs([entry for entry in got if "seq" in entry])
            cursor = numbers[-1] if numbers else 0
            if got and "end" in got[-1]:
                done.set()

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    for number in range(4):
        sender.progress.clear()
        sender.progress.wait(PATIENCE)
        _ = pipeline.kill() if number % 2 == 0 else pipeline.stop()
        pipeline.start()
    sender.join(PATIENCE)
    assert not sender.is_alive() and sender.error is None
    # Sealed while it is away or there; from here on retention may take it, which a follower would be told.
    pipeline.env["NIMBUS_LOG_RETENTION_BYTES"] = "0"
    pipeline.stop()
    pipeline.start()
    assert pipeline.seal(ORG, 1, 1, count).status_code == 202
    assert done.wait(PATIENCE), got[-1:]
    assert seqs(got[:-1]) == list(range(1, count + 1))
    assert got[-1] == {"end": True, "last_seq": count}


def test_a_restart_keeps_all(pipeline):
    token = pipeline.issuer.job_token(ORG, 1)
    assert pipeline.post(token, lines(1, 1, 10)).status_code == 202
    assert pipeline.seal(ORG, 1, 1, 11).status_code == 202
    assert pipeline.stop() == 0
    assert list((pipeline.data / "logs" / "journal").iterdir()) == []
    pipeline.start()
    assert pipeline.post(token, lines(1, 11, 11)).status_code == 202
    assert pipeline.post(token, lines(1, 12, 12)).json()["code"] == "sealed"
    assert len(pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1)) == 11


class Sender(threading.Thread):
    """Ships numbered lines as a shim does: the next batch after the answer, the same one again until there is one."""

    def __init__(self, pipeline, job_id, count, seed):
        super().__init__(daemon=True)
        self.pipeline, self.job_id, self.count = pipeline, job_id, count
        self.random = random.Random(f"{seed}/{job_id}")
        self.token = pipeline.issuer.job_token(ORG, job_id)
        self.acknowledged = 0
        self.progress = threading.Event()
        self.error = None

    def run(self):
        while self.acknowledged < self.count and self.error is None:
            last = min(self.count, self.acknowledged + self.random.randint(1, 200))
            # Now and then from a little before, as after an answer that was lost.
            first = max(1, self.acknowledged + 1 - self.random.randint(0, 5))
            try:
                answer = self.pipeline.post(self.token, lines(self.job_id, first, last))
            except (OSError, TypeError):  # it is dead, or has no address yet
                continue
            if answer.status_code == 202:
                self.acknowledged = last
                self.progress.set()
            elif answer.status_code != 503:
                self.error = answer.text


def test_kill_9_loses_no_acknowledged_line(pipeline):
    seed = int(os.environ.get("NIMBUS_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"NIMBUS_TEST_SEED={seed}")
    count, jobs, kills = 6000, 4, 6
    senders = [Sender(pipeline, job_id, count, seed) for job_id in range(1, jobs + 1)]
    for sender in senders:
        sender.start()
    chooser = random.Random(seed)
    for _ in range(kills):
        watched = chooser.choice(senders)
        watched.progress.clear()
        if watched.is_alive():
            watched.progress.wait(PATIENCE)
        pipeline.kill()
        pipeline.start()
    for sender in senders:
        sender.join(PATIENCE)
        assert not sender.is_alive()
        assert sender.error is None
        assert pipeline.seal(ORG, sender.job_id, 1, count).status_code == 202
        got = pipeline.tail_lines(pipeline.issuer.reader_token(ORG), job_id=sender.job_id, attempt=1)
        assert seqs(got[:-1]) == list(range(1, count + 1))
        assert got[-1] == {"end": True, "last_seq": count}


def test_a_torn_segment_is_cut_and_goes_on(pipeline):
    token = pipeline.issuer.job_token(ORG, 1)
    for first in (1, 11, 21):
        assert pipeline.post(token, lines(1, first, first + 9)).status_code == 202
    assert pipeline.stop() == 0
    (segment,) = (pipeline.data / "logs" / "segments").rglob("*.seg")
    os.truncate(segment, segment.stat().st_size - 7)
    pipeline.start()
    reader = pipeline.issuer.reader_token(ORG)
    assert len(pipeline.query(reader, job_id=1)) == 20
    assert pipeline.post(token, lines(1, 1, 35)).status_code == 202
    assert seqs(pipeline.query(reader, job_id=1, attempt=1, order="oldest")) == list(range(1, 36))


def test_a_full_disk_refuses_and_recovers(make_pipeline, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", disk], check=False,
                           capture_output=True)
    if mount.returncode != 0:
        pytest.skip("needs to mount a small disk")
    try:
        pipeline = make_pipeline(folder=disk / "data").start()
        token = pipeline.issuer.job_token(ORG, 1)
        assert pipeline.post(token, lines(1, 1, 10)).status_code == 202
        ballast = disk / "ballast"
        with open(ballast, "wb") as f:
            with pytest.raises(OSError):
                while True:
                    f.write(b"x" * 65536)
                    f.flush()
        answer = pipeline.post(token, lines(1, 11, 20))
        assert (answer.status_code, answer.json()["code"]) == (503, "disk_full")
        assert "Retry-After" in answer.headers
        assert len(pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1)) == 10
        ballast.unlink()
        assert pipeline.post(token, lines(1, 11, 20)).status_code == 202
        assert len(pipeline.query(pipeline.issuer.reader_token(ORG), job_id=1)) == 20
        pipeline.stop()
    finally:
        subprocess.run(["umount", "-l", disk], check=False)


# --- the rest ---


def test_keys_survive_a_control_plane_that_is_away(make_pipeline, issuer):
    pipeline = make_pipeline().start()
    token = issuer.job_token(ORG, 1)
    assert pipeline.post(token, lines(1, 1, 1)).status_code == 202
    pipeline.stop()
    pipeline.env["NIMBUS_CONTROL_PLANE_URL"] = "http://127.0.0.1:9"
    pipeline.start()
    assert pipeline.post(token, lines(1, 2, 2)).status_code == 202


def test_health_and_metrics(pipeline):
    assert pipeline.request("GET", "/healthz").json() == {"status": "ok"}
    wait_until(lambda: pipeline.request("GET", "/readyz").status_code == 200)
    assert pipeline.request("GET", "/readyz").json() == {"status": "ready"}
    token = pipeline.issuer.job_token(ORG, 1)
    pipeline.post(token, lines(1, 1, 5))
    pipeline.post(token, lines(1, 1, 6))
    pipeline.query(pipeline.issuer.reader_token(ORG))
    values = dict(line.rsplit(" ", 1) for line in pipeline.request("GET", "/metrics").text.splitlines()
                  if line and not line.startswith("#"))
    assert float(values["nimbus_logging_ingest_requests_total"]) == 2
    assert float(values["nimbus_logging_rows_ingested_total"]) == 6
    assert float(values["nimbus_logging_rows_repeated_total"]) == 5
    assert float(values["nimbus_logging_batches_total"]) == 2
    assert float(values["nimbus_logging_query_requests_total"]) == 1


def test_metrics_with_a_token(make_pipeline):
    pipeline = make_pipeline({"NIMBUS_LOGGING_METRICS_TOKEN": "a-token-for-metrics"}).start()
    assert pipeline.request("GET", "/metrics").status_code == 401
    assert pipeline.request("GET", "/metrics", "another").status_code == 401
    assert pipeline.request("GET", "/metrics", "a-token-for-metrics").status_code == 200


def test_one_folder_one_pipeline(pipeline, issuer):
    second = Pipeline(pipeline.data, issuer)
    done = subprocess.run(second.argv, env=second.env, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode != 0
    assert "another logging pipeline uses this folder" in done.stderr


def test_a_token_is_never_logged(pipeline):
    token = pipeline.issuer.job_token(ORG, 1)
    pipeline.post(token, lines(1, 1, 1))
    pipeline.post(token[:-4] + "AAAA", lines(1, 1, 1))
    pipeline.stop()
    assert token.split(".")[1] not in pipeline.text()
    assert "/logs" in pipeline.text()
