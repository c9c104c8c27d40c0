# Starts scripts/serve.sh so that it outlives this connection; sourced by start.sh.

start_keeper() {
  local under=$UNDER
  if [ "$under" = auto ]; then
    if has_systemd && lingers; then under=systemd
    elif command -v tmux >/dev/null; then under=tmux
    else under=nohup; fi
  fi
  if [ "$under" = systemd ] && ! start_under_systemd; then
    echo "systemd did not take the service; it runs under nohup"
    under=nohup
  fi
  printf '%s\n' "$under" >"$root/node/under"
  case $under in
    tmux)
      tmux -L "saeq-$NODE" new-session -d -s serve "exec bash '$root/scripts/serve.sh' '$root'" \; \
        split-window -t serve "exec tail -n 200 -F '$root/node/serve.log'" 9>&-
      ;;
    nohup) setsid nohup bash "$root/scripts/serve.sh" "$root" >>"$root/node/serve.log" 2>&1 </dev/null 9>&- & ;;
  esac
}

# Without lingering, user services end with the last session.
lingers() {
  local user
  user=$(id -un)
  [ "$(loginctl show-user "$user" --property=Linger --value 2>/dev/null)" = yes ] \
    || timeout 10 loginctl enable-linger "$user" 2>/dev/null
}

start_under_systemd() {
  local units=$HOME/.config/systemd/user unit=saeq-$NODE.service path=${root//%/%%}
  has_systemd && lingers || return 1
  mkdir -p "$units"
  cat >"$units/$unit" <<END
[Unit]
Description=saeq serve, node $NODE

[Service]
ExecStart=/usr/bin/env bash "$path/scripts/serve.sh" "$path"
Environment=SAEQ_NODE=$NODE
Restart=on-failure
RestartSec=5
KillMode=mixed
TimeoutStopSec=90

[Install]
WantedBy=default.target
END
  systemctl --user daemon-reload && systemctl --user enable "$unit" \
    && systemctl --user restart "$unit"
}
