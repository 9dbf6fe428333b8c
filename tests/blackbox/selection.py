"""Which tests of the suite a run has: all of them, unless it is told less.

A second database (`--database postgresql`) leaves out what is the same whatever the database. Sanitizers (`--sanitized`)
leave out what the table below names, and have each file on one of the databases only: the code that speaks to each is
under them in the unit tests, which run on both. The plain run leaves out nothing of either."""

import os
import pathlib
import zlib

# What never starts a control plane is the same whatever its database, and what watches SQLite's own file is of no other:
# both run once.
WITHOUT_DATABASE = {"test_cli_logs", "test_config", "test_logs", "test_disk_full", "test_durability"}

# What sanitizers find is in code that parses the bytes of others or manages memory. These files run the same code as
# others do, for what it does and not for how: a file, or FILE::TEST, and why.
NOT_SANITIZED = {
    "test_demo": "the kills of test_faults_kill, by a command that asks over HTTP",
    "test_durability": "the order of system calls, which sanitizers do not change",
    "test_faults_leak": "memory that grows, which under sanitizers always does",
    "test_faults_time": "waits for leases; what runs meanwhile is that of test_faults",
    "test_help": "tables of the program's own and the shells that read them",
    "test_images": "boots, to see which file a machine was given; the pipeline is test_rootfs",
    "test_leaks": "the suite itself",
    "test_nimbus_run_terminal": "the screens of test_nimbus_run's commands",
    "test_progress": "a bar of the commands that test_rootfs and test_nimbus_run run",
    "test_plans": "the database's plans",
    "test_readme": "everything once, as typed",
    "test_schema": "SQL",
    "test_templates": "boots and files of gigabytes; manifests are fuzzed",
    "test_top": "a screen; what it is drawn from is a unit test",
    "test_upgrade::test_jobs_and_callers_do_not_notice": "ten machines; the hand-over is in the other tests of the file",
    "test_workflow": "hundreds of thousands of lines of others' programs in a machine",
}

# The longest first, so that lanes end together. What is not named comes after them.
LONGEST = ["test_upgrade", "test_jobs", "test_hostile", "test_pool", "test_nimbus_run", "test_templates", "test_sessions",
           "test_faults", "test_network", "test_faults_time", "test_keys", "test_readme", "test_faults_lease",
           "test_rootfs", "test_logs", "test_run", "test_planes", "test_faults_kill", "test_disk_full"]


def name(item):
    return item.module.__name__.rpartition(".")[2]


def wanted(item, database, sanitized):
    once = name(item) in WITHOUT_DATABASE or item.get_closest_marker("once")
    if not sanitized:
        return database == "sqlite" or not once
    if {name(item), f"{name(item)}::{item.function.__name__}"} & NOT_SANITIZED.keys():
        return False
    second = not once and zlib.crc32(name(item).encode()) % 2 == 1
    return second == (database != "sqlite")


def longest_first(items):
    """Files stay together, and in their order."""
    rank = {file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(name(item), len(rank)))


def unknown_names(folder):
    """Of the tables above: what no file bears any more."""
    files = {path.stem for path in pathlib.Path(folder).glob("test_*.py")}
    named = WITHOUT_DATABASE | set(LONGEST) | {key.partition("::")[0] for key in NOT_SANITIZED}
    return sorted(named - files)


class Share:
    """Several runs with one folder divide the files among themselves: each has those that it was the first to begin."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.known = {}

    def mine(self, file):
        if file not in self.known:
            try:
                os.close(os.open(self.folder / file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
                self.known[file] = True
            except FileExistsError:
                self.known[file] = False
        return self.known[file]
