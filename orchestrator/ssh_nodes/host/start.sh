#!/usr/bin/env bash
# Brings the node up: environment, store, serve. Cut off anywhere, the next call goes on from there.
set -euo pipefail
umask 077
root=$1
cd "$root"
# shellcheck source=/dev/null
. scripts/node_state.sh
. node/settings
. node/choices
set -a
. node/env
set +a
export SAEQ_NODE="$NODE"
export SAEQ_STORE="$STORE" SAEQ_NODE_KIND=ssh SAEQ_NODE_LABELS="$LABELS" SAEQ_NODE_HOST="$MACHINE"
printf '%s %s\n' "$$" "$(started_at $$)" >node/start.pid
stage() { printf '%s %s %s\n' "$(date +%s.%N)" "$(uname -n)" "$*" >>"$root/node/stages"; }

# $1: the stage that is not reached; the rest: why.
failed() {
  printf '%s\n' "$*" >"$root/node/failure.part" && mv "$root/node/failure.part" "$root/node/failure"
  exit 1
}

is_over=
on_exit() {
  rm -f "$root/node/start.pid"
  [ -n "$is_over" ] || [ -e "$root/node/failure" ] \
    || printf '%s\n' "$next its start script ended early" >"$root/node/failure"
}
next=script
trap on_exit EXIT

next=environment
stage script "saeq $VERSION"
if [ -n "$SETUP" ]; then
  printf '$ %s\n' "$SETUP"
  bash -c "$SETUP" || failed environment "--setup ended with exit code $?"
fi

. scripts/environment.sh
find_python
export PYTHONPATH="$root/code/$CODE"
on_host() { (cd work && "$python" -m orchestrator.ssh_nodes.on_host "$@"); }
told=$(on_host environment) || failed environment "${told##*$'\n'}"
printf '%s\n' "$python" >node/python
stage environment "$told"

next=probe
told=$(on_host store) || failed probe "${told##*$'\n'}"

. scripts/keep.sh
start_keeper
for ((tries = 0; tries < 40; tries++)); do
  ! is_serving || break
  sleep 0.25
done
is_over=yes
