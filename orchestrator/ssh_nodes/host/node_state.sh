# What is on this host of a node; sourced in front of every other script. Changes nothing.
# A node is below one folder ($root): node/ is the one that runs, code/ and environments/ are shared
# by those that come after it.

say() { printf '%s %s\n' "$1" "${*:2}"; }

# $1: as it was given; a tilde is this user's home, whatever the caller's shell is.
folder_of() {
  case $1 in
    '~') printf '%s' "$HOME" ;;
    '~/'*) printf '%s' "$HOME/${1#'~/'}" ;;
    *) printf '%s' "$1" ;;
  esac
}

# A pid alone may be another process's by now: its start time tells them apart.
started_at() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  set -- ${stat##*)}
  [ "$1" != Z ] && printf '%s' "${20}"
}

is_serving() {
  local pid since
  read -r pid since 2>/dev/null <"$root/node/pid" || return 1
  [ -n "$pid" ] && [ "$(started_at "$pid")" = "$since" ]
}

# The lock is held by the script that brings the node up, and by whoever takes it down.
is_starting() { [ -e "$root/lock" ] && ! flock -n "$root/lock" true; }

node_name() { cat "$root/node/name" 2>/dev/null; }

# Every process of the node, whatever became of its parent: the variable is handed down. Ray's agents
# write their names over it; them, the folder that they work in gives away.
processes_of() {
  local path pid
  {
    grep -lsaxz "SAEQ_NODE=$1" /proc/[0-9]*/environ 2>/dev/null || true
    for path in /proc/[0-9]*; do
      [ "$(readlink "$path/cwd" 2>/dev/null)" != "$(readlink -f "$root/work")" ] \
        || ! grep -qsa '^ray::' "$path/cmdline" || printf '%s/cwd\n' "$path"
    done
  } | cut -d/ -f3 | sort -un | while read -r pid; do
    [ "$pid" = "$$" ] || ! started_at "$pid" >/dev/null || printf '%s\n' "$pid"
  done
}

# systemd's user services need a place that ssh without PAM does not name.
find_systemd() {
  [ -n "${XDG_RUNTIME_DIR:-}" ] || ! [ -d "/run/user/$(id -u)" ] \
    || export XDG_RUNTIME_DIR="/run/user/$(id -u)"
}

# Whether this user has a systemd of its own that answers.
has_systemd() {
  find_systemd
  case $(timeout 10 systemctl --user is-system-running 2>/dev/null) in
    running | degraded | starting) ;;
    *) return 1 ;;
  esac
}
