"""Real workflows in a VM of the Debian image: the toolkit that GitHub's own actions are written with, and a workflow file
that act runs. Their packages come from the package registries; where these, or the image (`make images`), are not to be
had, this skips."""

import json
import os
import pathlib
import shutil
import subprocess

import pytest

from system import BUILD, NIMBUS, ROOT, System

PEERS = ROOT / "tests" / "peers"
DEPLOY_KEY = "a-deploy-key-that-nobody-may-see-0815"
HELLO = """#include <stdio.h>

int main(int argc, char **argv)
{
	printf("hello, %s\\n", argc > 1 ? argv[1] : "you");
	return 0;
}
"""
MAKEFILE = "hello: src/hello.c\n\tcc -o $@ $<\n\ntest: hello\n\t./hello test | grep -q 'hello, test' && echo all is well\n"

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(not (BUILD / "share" / "debian.squashfs").exists(),
                       reason="no Debian image in the build folder: make images"),
]


def made(name, program, argv, env=None):
    """A peer that a package manager brings, made once in the build folder."""
    folder = BUILD / "peers" / name
    if not (folder / program).exists():
        if shutil.which(argv[0]) is None:
            pytest.skip(f"{argv[0]} is not installed")
        shutil.copytree(PEERS / name, folder, dirs_exist_ok=True)
        done = subprocess.run(argv, cwd=folder, capture_output=True, env={**os.environ, **(env or {})}, check=False)
        if done.returncode != 0:
            pytest.skip(f"{' '.join(argv)} failed: {done.stderr.decode()[-300:]}")
    return folder / program


@pytest.fixture(scope="module")
def nimbus():
    with System() as system:
        yield system


@pytest.fixture
def checkout(tmp_path):
    """A small C project under git."""
    folder = pathlib.Path(tmp_path) / "hello"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / "hello.c").write_text(HELLO)
    (folder / "Makefile").write_text(MAKEFILE)
    (folder / ".gitignore").write_text("/hello\n*.o\n")
    commit(folder)
    return folder


def commit(folder):
    for words in (["init", "-q"], ["add", "-A"], ["-c", "user.name=Test", "-c", "user.email=test@example.org", "commit",
                                                  "-qm", "the beginning"]):
        subprocess.run(["git", *words], cwd=folder, check=True)


def run(system, folder, *words):
    return subprocess.run([NIMBUS, "run", "--data", system.data, "--image", "debian", "--memory", "512", *words],
                          cwd=folder, env=system.env, stdin=subprocess.DEVNULL, capture_output=True, timeout=600,
                          check=False)


def newest(system):
    return system.cli_json("jobs", "recent", "--limit", "1")[0]["id"]


def test_a_small_project_is_tested(nimbus, checkout):
    done = run(nimbus, checkout, "--", "sh", "-c", "make test")
    assert done.returncode == 0, done.stderr.decode()
    assert b"all is well\n" in done.stdout
    assert not (checkout / "hello").exists(), "nothing comes back that was not asked for"


def test_a_script_of_the_actions_toolkit(nimbus, checkout):
    modules = made("actions", "node_modules", ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"])
    shutil.copytree(modules, checkout / "node_modules")
    for name in ("package.json", "build.mjs"):
        shutil.copy(PEERS / "actions" / name, checkout)
    env = {"DEPLOY_KEY": DEPLOY_KEY, "RUNNER_TEMP": "/tmp/runner", "RUNNER_TOOL_CACHE": "/tmp/tools"}
    flags = [flag for name, value in env.items() for flag in ("--env", f"{name}={value}")]
    done = run(nimbus, checkout, *flags, "--", "sh", "-c", "mkdir -p /tmp/runner /tmp/tools && exec node build.mjs")
    assert done.returncode == 0, done.stderr.decode()
    log = nimbus.output(newest(nimbus))
    assert "hello says: hello, world" in log and "tool cache: true" in log and "sources: 1" in log
    assert DEPLOY_KEY not in log and "deploying with ***" in log, "what add-mask named is stored by nobody"
    shown = json.loads(nimbus.cli("jobs", "show", str(newest(nimbus)), "--annotations", "--json").stdout)
    assert "this compiler is old" in json.dumps(shown)


def test_a_workflow_file_run_by_act(nimbus, checkout):
    act = made("act", "act", ["go", "build", "-mod=mod", "-o", "act", "github.com/nektos/act"], {"CGO_ENABLED": "0"})
    (checkout / ".github" / "workflows").mkdir(parents=True)
    shutil.copy(PEERS / "act" / "workflow.yml", checkout / ".github" / "workflows")
    commit(checkout)
    (checkout / "bin").mkdir()
    shutil.copy2(act, checkout / "bin")
    done = run(nimbus, checkout, "--env", "HOME=/root", "--", "./bin/act", "push", "-P",
               "ubuntu-latest=-self-hosted", "--no-cache-server")
    said = done.stdout.decode()
    assert done.returncode == 0, said + done.stderr.decode()
    for words in ("hello, alpha", "hello, beta", "deploying hello", "Failed but continue next step", "always, on Linux"):
        assert f"| {words}" in said or words in said, said
    assert "not-for-anybody-4711" not in said.replace("echo", ""), "act's own mask"
    assert said.count("Job succeeded") == 3
