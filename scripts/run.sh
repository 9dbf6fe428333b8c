#!/bin/sh
# run.sh BUILD: `make run`. Starts Nimbus, runs a sample job in a microVM, and leaves the system running in the foreground
# until Ctrl-C; with RUN_ONCE=1 it stops after the job and exits as the job did.
set -eu
nimbus=$1/nimbus
data=${NIMBUS_DATA_DIR:-}
if [ -z "$data" ]; then
    if [ "$(id -u)" -eq 0 ]; then
        data=/var/lib/nimbus
    else
        data=${XDG_STATE_HOME:-$HOME/.local/state}/nimbus
    fi
fi
export NIMBUS_DATA_DIR="$data"
endpoints=$data/run/endpoints.json

# A system that already runs here is used as it is.
started=
if ! "$nimbus" jobs recent --limit 1 >/dev/null 2>&1; then
    rm -f "$endpoints"
    # The job's output is what this shows: its services say only what goes wrong. A session of its own: a terminal sends
    # Ctrl-C to everything in it, and what is passed on below would then be the second one, which does not wait.
    NIMBUS_LOG_LEVEL=${NIMBUS_LOG_LEVEL:-WARNING} setsid "$nimbus" up --port-fallback &
    started=$!
    trap 'kill "$started" 2>/dev/null || true; wait "$started" 2>/dev/null || true' EXIT
    trap 'exit 130' INT TERM
    waited=0
    while [ ! -e "$endpoints" ]; do
        kill -0 "$started" 2>/dev/null || { wait "$started" || exit $?; exit 1; }
        waited=$((waited + 1))
        [ "$waited" -lt 600 ] || { echo 'run: Nimbus was not ready within 60 s' >&2; exit 1; }
        sleep 0.1
    done
fi

echo
echo "\$ nimbus jobs submit --follow --wait -- sh -c 'uname -a; ...'"
status=0
"$nimbus" jobs submit --wait --follow -- \
    sh -c 'echo "hello from $(hostname), a microVM of its own"; uname -a; nproc; free -m | sed -n 2p' || status=$?
echo
if [ -n "${RUN_ONCE:-}" ]; then
    [ "$status" -eq 0 ] && echo 'sample job: succeeded' || echo "sample job: failed with exit code $status" >&2
    exit "$status"
fi
if [ -n "$started" ]; then
    echo 'Nimbus goes on running; Ctrl-C ends it: jobs that run get 20 seconds, or until Ctrl-C comes again.'
    trap - EXIT
    trap 'kill -INT "$started" 2>/dev/null || true' INT TERM HUP
    while kill -0 "$started" 2>/dev/null; do wait "$started" || true; done
fi
