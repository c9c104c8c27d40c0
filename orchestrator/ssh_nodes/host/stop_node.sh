# Ends a start that is under way, with its installers.
stop_start() {
  local pid since
  read -r pid since 2>/dev/null <"$root/node/start.pid" || return 0
  [ "$(started_at "$pid")" != "$since" ] || kill -TERM -- "-$pid" 2>/dev/null
  rm -f "$root/node/start.pid"
}

# $1: the node's name, $2: seconds to let it give its trials back. Ends everything that it runs.
stop_node() {
  local name=$1 patience=$2 pid signal
  if [ -e "$root/node/under" ] && [ "$(cat "$root/node/under")" = systemd ]; then
    find_systemd
    timeout 20 systemctl --user disable "saeq-$name.service" >/dev/null 2>&1
    timeout 20 systemctl --user stop --no-block "saeq-$name.service" 2>/dev/null
  elif is_serving; then
    read -r pid _ <"$root/node/pid"
    kill -TERM "$pid" 2>/dev/null
  fi
  for ((; patience > 0; patience--)); do
    is_serving || is_marked_serve "$name" || break
    sleep 1
  done
  tmux -L "saeq-$name" kill-server 2>/dev/null
  for signal in KILL KILL KILL; do
    set -- $(processes_of "$name")
    [ $# -gt 0 ] || break
    kill "-$signal" "$@" 2>/dev/null
    sleep 0.5
  done
  rm -f "$root/node/pid" "$HOME/.config/systemd/user/saeq-$name.service"
}

# Whether its serve lives though its keeper does not.
is_marked_serve() {
  local pid
  for pid in $(processes_of "$1"); do
    ! tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q -- '-m orchestrator.cli serve' || return 0
  done
  return 1
}
