"""The supervisor: what falls is started again, what is killed leaves nothing in the way, one folder has one system."""

import os
import signal
import stat
import subprocess

from system import NIMBUS, System, alive, descendants, wait_until

ROLES = ("control-plane", "logging-pipeline", "host-agent")


def works(system):
    return system.cli("jobs", "recent", check=False).returncode == 0


def test_a_killed_role_is_started_again_at_the_same_place():
    with System() as system:
        endpoints = system.endpoints
        for role in ROLES:
            before = system.kill_role(role)
            assert before is not None
            wait_until(lambda: system.role_pid(role) not in (None, before), f"another {role}")
        wait_until(lambda: works(system), "the control plane to answer again")
        assert system.endpoints == endpoints


def test_after_kill_9_the_next_start_finds_nothing_in_its_way():
    with System() as system:
        endpoints = system.endpoints
        pids = descendants(system.process.pid)
        system.process.kill()
        system.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in pids), "every role to end with it")
        system.start()
        wait_until(lambda: system.endpoints_path.exists() and system.endpoints["pid"] != endpoints["pid"],
                   "new endpoints")
        assert system.endpoints["control_plane"] == endpoints["control_plane"], "free ports stay the same"
        assert works(system)


def test_one_folder_has_one_system():
    with System() as system:
        done = subprocess.run([NIMBUS, "up", "--data", system.data, "--port-base", "0"], env=system.env,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
        assert done.returncode == 1
        assert str(system.process.pid).encode() in done.stderr
        assert works(system), "the first one goes on"


def test_only_up_stays_root():
    with System() as system:
        for role in ROLES:
            status = open(f"/proc/{system.role_pid(role)}/status", encoding="ascii").read()
            uids = [line.split()[1:] for line in status.splitlines() if line.startswith("Uid:")][0]
            assert len(set(uids)) == 1
            assert (uids[0] == "0") is False, role
            assert "CapEff:\t0000000000000000" in status, role
        if os.geteuid() == 0:
            assert stat.S_IMODE((system.data / "secrets").stat().st_mode) == 0o700
            assert (system.data / "secrets").stat().st_uid != 0


def test_a_role_that_refuses_its_settings_ends_it_all():
    system = System(env={"NIMBUS_JOB_LEASE_TTL": "-5"})
    done = subprocess.run([NIMBUS, "up", "--data", system.data, "--port-base", "0"], env=system.env,
                          stdin=subprocess.DEVNULL, capture_output=True, timeout=60, check=False)
    assert done.returncode == 2
    assert b"NIMBUS_JOB_LEASE_TTL (environment): -5 is not from 1 to 86400" in done.stderr
    assert not system.endpoints_path.exists()


def test_sigterm_ends_it_like_ctrl_c():
    with System() as system:
        system.process.send_signal(signal.SIGTERM)
        wait_until(lambda: system.process.poll() is not None, "its end")
        assert system.process.returncode == 0
        assert not system.endpoints_path.exists()
