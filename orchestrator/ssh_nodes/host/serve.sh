#!/usr/bin/env bash
# Keeps `saeq serve` alive: starts it again when it dies, ends when it is told to or it is done.
set -u
umask 077
root=$1
cd "$root" || exit 1
. scripts/node_state.sh
. node/settings
set -a
. node/env
set +a
export SAEQ_NODE="$NODE" SAEQ_NODE_KIND=ssh SAEQ_NODE_LABELS="$LABELS" SAEQ_NODE_HOST="$MACHINE"
python=$(cat node/python)
export PYTHONPATH="$root/code/$CODE" PATH="$(dirname "$python"):$PATH"
export SAEQ_CACHE="${SAEQ_CACHE:-$root/cache}" HF_HOME="${HF_HOME:-$root/cache/huggingface}"
log=$root/node/serve.log
printf '%s %s\n' "$$" "$(started_at $$)" >node/pid
rm -f node/deaths
cd work || exit 1

stopping= child=
on_stop() {
  stopping=yes
  [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap on_stop TERM INT HUP

# `wait` comes back for a signal, too: then the child is still there.
wait_for_child() {
  local code
  while :; do
    wait "$child"
    code=$?
    kill -0 "$child" 2>/dev/null || return "$code"
  done
}

deaths=0
while [ -z "$stopping" ]; do
  if [ "$(wc -c <"$log" 2>/dev/null || echo 0)" -gt 20000000 ]; then mv -f "$log" "$log.1"; fi
  began=$SECONDS
  "$python" -m orchestrator.cli serve --plain --store "$STORE" "${SERVE_OPTIONS[@]}" \
    >>"$log" 2>&1 </dev/null &
  child=$!
  wait_for_child
  code=$?
  [ -z "$stopping" ] && [ "$code" -ne 0 ] || break # 0: it was to end by itself (--for)
  if [ $((SECONDS - began)) -gt 300 ]; then deaths=0; fi
  deaths=$((deaths + 1))
  printf '%s %s\n' "$deaths" "$code" >"$root/node/deaths"
  pause=$((deaths > 6 ? 60 : 1 << deaths))
  printf '%s serve ended with exit code %s; starting it again in %s s\n' \
    "$(date +%H:%M:%S)" "$code" "$pause" >>"$log"
  sleep "$pause" &
  child=$!
  wait_for_child
done
rm -f "$root/node/pid"
exit 0
