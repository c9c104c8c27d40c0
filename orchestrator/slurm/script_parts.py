"""The parts of a worker's script that are the same for every job, as shell text.

bash alone until the line that marks `environment`: what cannot start Python still says so.
"""

BEGINNING = r"""
umask 077
key=$SLURM_JOB_ID
[ -z "${SLURM_ARRAY_JOB_ID-}" ] || key=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
job=$up/jobs/$key
host=${SLURMD_NODENAME:-$(hostname)}
attempt=${SLURM_RESTART_COUNT:-0}
mkdir -p "$job"

mark() { printf '%s %s %s %s\n' "$(date +%s.%3N)" "$host" "$1" "$2" >>"$job/stages"; }
mark allocated "$SLURM_JOB_NODELIST"
mark script "start $((attempt + 1))"
echo "--- $(date '+%F %T') job $key on $SLURM_JOB_NODELIST, start $((attempt + 1))"

# The exit code tells SLURM, the stages file tells `saeq slurm status`.
phase=environment said='' limit='' terminated='' asked='' python='' scratch='' head='' watch=''
rays=()
fail() { said=1; mark failed "$1: $2"; echo "saeq: $2" >&2; exit 1; }
leave() { said=1; mark ended "$1"; echo "--- $(date '+%F %T') $1"; }
on_exit() {
  local code=$?
  trap - EXIT
  trap '' TERM USR2
  [ -n "$said" ] || mark failed "$phase: the script ended with code $code"
  clean_up
  [ -n "$said" ] || exit 1
}
trap on_exit EXIT
trap 'fail "$phase" "the time limit came before it was ready"' USR2
trap 'leave "ended by SLURM before it was ready"; exit 143' TERM
"""

SCRATCH = r"""
# Scratch of this job alone. Its lock is held by all that inherit it; what a killed job of ours
# has left here goes first. (Ray's own folder has to be in /tmp itself: paths of sockets are short.)
clean_up() {
  [ -z "$watch" ] || kill "$watch" 2>/dev/null
  [ "${#rays[@]}" -eq 0 ] || { kill -USR1 "${rays[@]}" && wait "${rays[@]}"; } 2>/dev/null
  [ -z "$python" ] || "$python" -m orchestrator.serving.scratch
  [ -z "$scratch" ] || rm -rf "$scratch"
  rays=() python='' scratch=''
}
place=${TMPDIR:-/tmp}
[ -d "$place" ] && [ -w "$place" ] || place=/tmp
for left in "$place"/saeq-job-*; do
  [ -O "$left" ] && [ -n "$(find "$left" -maxdepth 0 -mmin +1)" ] || continue
  flock --nonblock "$left/lock" true && rm -rf "$left"
done
scratch=$(mktemp -d "$place/saeq-job-$SLURM_JOB_ID-XXXXXX") || fail environment "no room in $place"
exec 8>"$scratch/lock" && flock --nonblock 8
export TMPDIR=$scratch
"""

ENVIRONMENT = r"""
# Which Python: the one asked for, else the one that the setup brought, else the submitter's.
outside=$(command -v python)
if [ -f "$up/setup.sh" ]; then
  for file in /etc/profile.d/{modules,lmod,z00_lmod,z00-lmod}.sh; do
    command -v module >/dev/null && break
    [ ! -r "$file" ] || . "$file"
  done
  . "$up/setup.sh"
  code=$?
  set +eu
  [ "$code" -eq 0 ] || fail environment "the last line of the setup ended with code $code"
  inside=$(command -v python)
  [ "$inside" = "$outside" ] || python_there=$inside
fi
tried=${python_asked:-$python_there}
version=$("$tried" -m orchestrator.cli --version 2>&1) ||
  fail environment "$tried cannot run saeq: ${version##*$'\n'}"
python=$tried
mark environment "${version##*$'\n'}, $python"

# srun hands on none of these by itself, and a Ray of somebody else's is none of ours.
cpus=${SLURM_CPUS_PER_TASK:-${SLURM_CPUS_ON_NODE:-1}}
export SLURM_CPUS_PER_TASK=$cpus OMP_NUM_THREADS=${OMP_NUM_THREADS:-$cpus} PYTHONUNBUFFERED=1
unset RAY_ADDRESS
export SAEQ_NODE=slurm-$key SAEQ_NODE_KIND=slurm SAEQ_NODE_HOST=$host SAEQ_STAGES=$job/stages
export SAEQ_NODE_LABELS="partition=${SLURM_JOB_PARTITION-},job=$key"

# When SLURM will end it: nothing is begun that cannot come to a checkpoint before that.
ends=${SLURM_JOB_END_TIME-}
[ -n "$ends" ] || ends=$(squeue -h -j "$SLURM_JOB_ID" -o %e)
case $ends in
  *T*) ends=$(date -d "$ends" +%s) ;;
  *[!0-9]*) ends='' ;;
esac
"""

RAY = r"""
# One Ray across the nodes: its head here, a step on each node, a token that only this job knows.
phase=ray
ray=$job/ray-$attempt
mkdir -p "$ray"
head -c 32 /dev/urandom | od -An -v -tx1 | tr -d ' \n' >"$ray/token"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$ray/token
start_ray() {
  srun --nodes=1 --ntasks=1 --nodelist="$1" --cpus-per-task="$cpus" --overlap --export=ALL \
    --mpi=none "${devices[@]}" --output="$ray/$1.log" \
    "$python" -m orchestrator.slurm.ray_node "${@:2}" &
  rays+=($!)
}
start_ray "$host" head "$ray"
head=${rays[0]}
for ((second = 0; second < 180; second++)); do
  { [ -s "$ray/address" ] || ! kill -0 "$head"; } 2>/dev/null && break
  sleep 1
done
address=$(cat "$ray/address") || fail ray "its head: $(tail -n 1 "$ray/$host.log")"
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
  [ "$node" = "$host" ] || start_ray "$node" join "$address"
done
words=$("$python" -m orchestrator.slurm.ray_node wait "$address" "$SLURM_JOB_NUM_NODES" 2>&1) ||
  fail ray "${words##*$'\n'}; its logs: $ray"
"""

SERVE = r"""
# A step of its own: SLURM tells steps alone of a preemption. Its processes hear SIGTERM all at
# once; Ray is deaf to it (serving/ray_host.py), so that what runs can be checkpointed first.
tell_serve() { kill "$1" "$(cat "$job/serve.pid")" 2>/dev/null; }
on_limit() { asked=1 limit=1; tell_serve -TERM; }
on_term() {  # serve has heard it, too; half a minute later SLURM kills, and there is to clear away
  asked=1
  # A wait without a process of its own, which would outlive us.
  [ -n "$terminated" ] || { (read -rt 20 <> <(:); tell_serve -KILL) & watch=$!; }
  terminated=1
}
rm -f "$job/serve.pid"
trap on_limit USR2
trap on_term TERM
phase=serve
left_s=$((${ends:-0} - signal_s - $(date +%s)))
[ -z "$ends" ] || [ "$left_s" -gt 0 ] || fail environment 'nothing is left of its time'
until=()
[ -z "$ends" ] || until=(--for "${left_s}s")
"""

WAIT = r"""
step=$!
await() { if [ -n "$head" ]; then wait -n; else wait "$step"; fi; }
while asked=''; await; code=$?; [ -n "$asked" ] || kill -0 "$step" 2>/dev/null; do
  if [ -n "$head" ] && ! kill -0 "$head" 2>/dev/null; then
    head='' lost='its Ray was lost'
    tell_serve -TERM
  fi
done
wait "$step"
last=$?
[ "$last" -eq 127 ] || code=$last
"""

END = r"""
# How it ended, and whether it comes back.
if [ -n "$terminated" ]; then
  leave 'ended by SLURM'  # cancelled, or preempted: then SLURM itself takes it back
  exit 143
fi
why=''
[ -z "$ends" ] || [ "$(date +%s)" -lt "$((ends - signal_s))" ] || limit=1
[ -z "$limit" ] || why='time limit'
# Within the grace time of a preemption; ending now would count as having done all there was to do.
scontrol show job "$SLURM_JOB_ID" | grep -q 'PreemptTime=[0-9]' && why=preempted
if [ -z "$why" ]; then
  [ -z "${lost-}" ] || fail ray "$lost"
  [ "$code" -ne 0 ] || { leave 'nothing to do'; exit 0; }
  said=1
  tail -n 1 "$job/stages" | grep -q ' failed ' ||
    mark failed "serve: it ended with code $code: $(tail -n 1 "$job/serve.log")"
  exit 1
fi
[ "$requeue" = yes ] && [ ! -e "$up/down" ] || { leave "$why, not requeued"; exit 0; }
words=$("$python" -m orchestrator.slurm.after_serve "$store" "$job/stages" 2>>"$job/serve.log")
case $? in
  3) leave "$why, not requeued: $words"; exit 0 ;;
  4) fail report "$words" ;;
esac
leave "requeued: $why"
clean_up
for again in 1 2 3; do
  scontrol requeue "$SLURM_JOB_ID" && exec sleep 120  # SLURM ends it within seconds
  sleep 3
done
fail report "$why, and SLURM does not take it back; try: scontrol requeue $SLURM_JOB_ID"
"""
