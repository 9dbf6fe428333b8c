"""A bad network between every two roles: jobs end right, each log arrives whole and once, whatever the connections do.

Every connection between roles, and the command line's, goes through tests/chaos/proxy.py, which delays, starves, cuts,
resets and silences them by a seed."""

import random
import time
import urllib.parse

import pytest

from chaos import (AGENT, CONTROL, FULL, PIPELINE, Client, Parts, check_invariants, check_log, counting,
                   needs_qemu_reason, new_seed, report, size, wait_shipped)
from proxy import FAULTS, Proxy

pytestmark = pytest.mark.skipif(needs_qemu_reason is not None, reason=str(needs_qemu_reason))

JOBS = size(3, 12)
LINES = size(300, 2000)
# Who asks whom, as Parts.reach calls the way.
WAYS = {"agent-control": CONTROL, "shim": PIPELINE, "seal": PIPELINE, "jwks": CONTROL, "cli-control": CONTROL,
        "cli-logs": PIPELINE}


class Network:
    """A proxy on every way of a system in parts, and before the database where that is a server."""

    def __init__(self, system, seed, faults, share):
        rng = random.Random(seed)

        def proxy(target):
            return Proxy(target, seed=rng.randrange(1 << 32), faults=faults, share=share, sure=1)

        self.proxies = {way: proxy(("127.0.0.1", system.ports[role])) for way, role in WAYS.items()}
        system.reach |= {way: proxy.url for way, proxy in self.proxies.items()}
        if system.database:
            where = urllib.parse.urlsplit(system.database["NIMBUS_DATABASE_URL"])
            before = self.proxies["database"] = proxy((where.hostname, where.port))
            user = where.netloc.rpartition("@")[0]
            system.more[CONTROL] = {"NIMBUS_DATABASE_URL": where._replace(
                netloc=f"{user}@127.0.0.1:{before.port}").geturl()}

    def switch(self, on):
        for proxy in self.proxies.values():
            proxy.switch = on

    def cut_all(self):
        for proxy in self.proxies.values():
            proxy.cut_all()

    def close(self):
        for proxy in self.proxies.values():
            proxy.close()

    def counts(self):
        return {way: dict(proxy.counts) for way, proxy in self.proxies.items()}


def run_jobs(system, client):
    scripts = [counting(n, LINES, "sleep 0.5; echo end") for n in range(JOBS)]
    ids = [client.submit(script) for script, _ in scripts]
    assert len(set(ids)) == JOBS, "a submission that was repeated made a second job"
    for job_id, (_, printed) in zip(ids, scripts):
        job = client.wait_final(job_id, size(240, 600))
        assert job["state"] == "succeeded", job
        check_log(system, job_id, printed + "end\n")


# All faults at once; `make chaos` tries each alone too.
@pytest.mark.parametrize("faults", [FAULTS, *(((fault,) for fault in FAULTS) if FULL else ())], ids="+".join)
def test_connections_that_break_lose_nothing_and_double_nothing(faults):
    seed = new_seed()
    with Parts(env={"NIMBUS_JOB_LEASE_TTL": "8", "NIMBUS_VM_SHUTDOWN_GRACE": "1"}) as system:
        network = Network(system, seed, faults, share=0.4)
        try:
            network.switch(False)
            system.start_parts()
            network.switch(True)
            network.cut_all()
            started = time.monotonic()
            run_jobs(system, Client(system))
            report(f"network, {'+'.join(faults)}, seed {seed}: {JOBS} jobs of {LINES} lines in "
                   f"{time.monotonic() - started:.0f} s; connections {network.counts()}")
            hurt = {way: sum(n for fault, n in proxy.counts.items() if fault in faults)
                    for way, proxy in network.proxies.items()}
            network.switch(False)
            wait_shipped(system)
            check_invariants(system)
            # Keys are fetched once or twice in a run, seals use one connection as long as it holds.
            assert all(hurt[way] > 0 for way in ("agent-control", "shim", "cli-control", "cli-logs")), \
                f"nothing happened on some way, this run has shown too little: {hurt}"
        finally:
            network.close()
