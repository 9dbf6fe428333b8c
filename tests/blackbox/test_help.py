"""What is made of the command table: help, manual pages, completion in the real shells."""

import json
import os
import pty
import re
import select
import shutil
import subprocess
import time

import pytest

from system import BUILD, NIMBUS, PATIENCE, ROOT, System

pytestmark = pytest.mark.once


def nimbus(*words):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("NIMBUS_")}
    return subprocess.run([NIMBUS, *words], env=clean, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE,
                          check=False, text=True)


def commands():
    return json.loads(nimbus("reference", "commands").stdout)


VISIBLE = [command for command in commands() if not command["hidden"]]


@pytest.mark.parametrize("command", VISIBLE, ids=lambda command: command["path"])
def test_every_command_explains_itself(command):
    path = command["path"]
    assert command["summary"] and not command["summary"].endswith(".") and len(command["summary"]) < 90
    assert bool(command["args"]) == command["takes_args"], "an args line if and only if it takes any"
    examples = command["examples"] or ""
    lines = re.findall(r"^  \S", examples, re.M)
    assert len(lines) >= (1 if command["table"] == "Topics" else 3) and "nimbus" in examples, examples
    for line in examples.splitlines():
        assert line.startswith("  ") and len(line) < 110, line
    for flag in command["flags"]:
        assert flag["hidden"] or flag["help"].endswith("."), flag
        assert (flag["type"] == "flag") == (flag["value"] is None), flag
    letters = [flag["letter"] for flag in command["flags"] if flag["letter"]]
    names = [flag["name"] for flag in command["flags"]]
    assert len(set(letters)) == len(letters) and len(set(names)) == len(names)
    text = nimbus(*path.split(), "--help").stdout
    assert command["summary"] in text and examples in text


def test_examples_use_only_flags_that_there_are():
    known = {command["path"]: command for command in commands()}
    for command in VISIBLE:
        for line in (command["examples"] or "").splitlines():
            for call in re.findall(r"\bnimbus ((?:[a-z_-]+ ?)+)((?:(?! -- |[;|&]|\$\().)*)", line):
                path = next((p for n in range(3, 0, -1) for p in [" ".join(call[0].split()[:n])] if p in known), None)
                if path is None:
                    continue
                names = {flag["name"] for flag in known[path]["flags"]} | {"help", "version"}
                used = re.findall(r"(?<![\w-])--([a-z-]+)", call[1])
                assert set(used) <= names, (line, set(used) - names)


def test_every_manual_page_is_good_mdoc(tmp_path):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    pages = nimbus("reference", "manual").stdout.split()
    first_words = {command["path"].split()[0] for command in VISIBLE if command["table"] != "Topics"}
    assert {page.rsplit(".", 1)[0] for page in pages} == {"nimbus", "nimbus.env"} | {f"nimbus-{w}" for w in first_words}
    assert "nimbus-control-plane.8" in pages and "nimbus-jobs.1" in pages
    for page in pages:
        (tmp_path / page).write_text(nimbus("reference", "manual", page).stdout)
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", *pages], cwd=tmp_path, capture_output=True, text=True,
                          timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr
    shown = subprocess.run(["mandoc", "-T", "utf8", "nimbus-jobs.1"], cwd=tmp_path, capture_output=True, text=True,
                           timeout=PATIENCE, check=True).stdout
    shown = re.sub(".\b", "", shown)
    assert "nimbus jobs submit [flags] -- CMD ARGS" in shown and "--idempotency-key KEY" in shown
    assert "NIMBUS_LISTEN" in (tmp_path / "nimbus.env.5").read_text()


def test_pages_lie_where_packages_have_them(tmp_path):
    subprocess.run([ROOT / "scripts" / "pages.sh", NIMBUS, tmp_path], check=True, timeout=PATIENCE)
    pages = nimbus("reference", "manual").stdout.split()
    assert {path.name for path in (tmp_path / "man").rglob("*.*")} == set(pages)
    assert (tmp_path / "man" / "man8" / "nimbus-control-plane.8").exists()
    for path in ("bash-completion/completions/nimbus", "zsh/vendor-completions/_nimbus", "fish/vendor_completions.d/nimbus.fish"):
        assert "__complete" in (tmp_path / path).read_text()


def test_manual_pages_have_the_date_of_the_source():
    env = dict(os.environ, SOURCE_DATE_EPOCH="1700000000")
    page = subprocess.run([NIMBUS, "reference", "manual", "nimbus.1"], env=env, capture_output=True, text=True,
                          timeout=PATIENCE, check=True).stdout
    assert page.startswith(".Dd November 14, 2023\n")
    assert nimbus("reference", "manual", "nimbus-none.1").returncode == 3


# --- completion ---


@pytest.fixture(scope="module")
def system():
    with System() as running:
        running.submit("true", options=("--name", "first"))
        yield running


@pytest.fixture
def shell_env(system, tmp_path):
    keep = {k: v for k, v in system.env.items() if k.startswith("NIMBUS_") or k in ("LANG", "LC_ALL")}
    return keep | {"PATH": f"{BUILD}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "xterm",
                   "XDG_CONFIG_HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path)}


def test_what_the_shells_ask_for(system, shell_env):
    def complete(*words):
        done = subprocess.run([NIMBUS, "__complete", "--", *words], env=shell_env, capture_output=True, text=True,
                              timeout=PATIENCE, check=True)
        assert done.stderr == ""
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    assert "submit" in complete("jobs", "")
    assert complete("jobs", "show", "") == ["1"]
    assert complete("jobs", "submit", "--image", "dem") == ["demo"]
    assert complete("jobs", "submit", "--image=dem") == ["--image=demo"]
    assert complete("run", "--image", "dem") == complete("shell", "--image", "dem") == ["demo"]
    assert complete("jobs", "recent", "--status", "qu") == ["queued"]
    assert complete("jobs", "recent", "-o", "js") == ["json", "jsonl"]
    # The fields of a listing, one after the other.
    assert complete("jobs", "list", "--json=stat") == ["--json=state"]
    assert "--json=id,state" in complete("jobs", "list", "--json=id,") and \
        "--json=id,id" not in complete("jobs", "list", "--json=id,")
    assert complete("jobs", "show", "--json=id,exit") == ["--json=id,exit_code"]
    assert complete("config", "show", "host") == ["host-agent"]
    assert complete("up", "--data", "") == [":folders"]
    # Nobody there, a wrong token, an address that swallows what it gets: nothing, and no word.
    assert complete("jobs", "show", "--url", "http://127.0.0.1:1", "") == []
    assert complete("jobs", "show", "--token", "wrong", "") == []
    assert complete("jobs", "show", "--url", "http://192.0.2.1", "") == []


def ask_bash(env, *words):
    script = ('source <(nimbus completion bash); COMP_WORDS=(nimbus "$@"); COMP_CWORD=$#; _nimbus nimbus; '
              'printf "%s\\n" "${COMPREPLY[@]}"')
    done = subprocess.run(["bash", "--norc", "-c", script, "bash", *words], env=env, capture_output=True, text=True,
                          timeout=PATIENCE, check=True)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_takes_words_apart_at_equal_signs(shell_env, tmp_path):
    assert ask_bash(shell_env, "jobs", "sub") == ["submit"]
    assert ask_bash(shell_env, "jobs", "submit", "--image", "=", "dem") == ["demo"]
    assert "demo" in ask_bash(shell_env, "jobs", "submit", "--image", "=")
    assert ask_bash(shell_env, "jobs", "recent", "--color", "=", "a") == ["auto", "always"]
    assert ask_bash(shell_env, "jobs", "list", "--json", "=", "id,stat") == ["id,state"]
    assert ask_bash(shell_env, "jobs", "submit", "--color", "=", "never", "--imag") == ["--image"]
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    assert ask_bash(shell_env, "up", "--data", f"{tmp_path}/fo") == [f"{tmp_path}/folder"]
    assert sorted(ask_bash(shell_env, "up", "--env-file", f"{tmp_path}/f")) == [f"{tmp_path}/file", f"{tmp_path}/folder"]


SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(nimbus completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D; source <(nimbus completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "nimbus completion fish | source"),
}


class Typist:
    """Somebody at a terminal."""

    def __init__(self, argv, env):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, env)

    def type(self, text):
        os.write(self.fd, text.encode())

    def wait_for(self, pattern):
        deadline = time.monotonic() + PATIENCE
        while not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 65536).decode(errors="replace")
        return re.search(pattern, self.text)

    def close(self):
        os.close(self.fd)
        os.kill(self.pid, 9)
        os.waitpid(self.pid, 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes_what_is_typed(shell, shell_env):
    argv, setup = SHELLS[shell]
    if shutil.which(argv[0]) is None:
        pytest.skip(f"{shell} is not installed")
    typist = Typist(argv, shell_env)
    try:
        typist.type(f"{setup}; echo rea''dy\n")
        typist.wait_for("ready")
        for typed, wanted in (("nimbus jobs sho\t", "nimbus jobs show"), ("nimbus jobs show \t", "nimbus jobs show 1"),
                              ("nimbus jobs submit --image=dem\t", "nimbus jobs submit --image=demo"),
                              ("nimbus jobs show --json=id,exit\t", "nimbus jobs show --json=id,exit_code"),
                              ("nimbus comp\tb\t", "nimbus completion bash")):
            typist.type(typed)
            time.sleep(0.7)  # the line editor draws while it completes; no later key may come in between
            typist.text = ""
            typist.type("\x01echo RES''ULT:\x05:END\n")
            got = typist.wait_for(r"RESULT:(.*?)\s*:END").group(1)
            assert got.strip() == wanted, (got, typist.text)
    finally:
        typist.close()


def test_the_scripts_are_what_the_docs_say():
    assert nimbus("completion", "powershell").returncode == 2
    for shell in SHELLS:
        assert "__complete" in nimbus("completion", shell).stdout
    assert "nimbus completion" in (ROOT / "docs" / "operations.md").read_text()
