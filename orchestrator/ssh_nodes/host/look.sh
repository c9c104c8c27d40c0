# How far the start has come, a line each.
root=$(folder_of "$1")
say now "$(date +%s.%N)"
say node "$(node_name)"
! is_starting || say starting yes
! is_serving || say serving yes
[ ! -e "$root/node/under" ] || say under "$(cat "$root/node/under")"
[ ! -e "$root/node/deaths" ] || say deaths "$(cat "$root/node/deaths")"
[ ! -e "$root/node/stages" ] || sed 's/^/stage /' "$root/node/stages"
[ ! -e "$root/node/failure" ] || say failure "$(cat "$root/node/failure")"
last=$(tail -c 2000 "$root/node/start.log" 2>/dev/null | tr '\r' '\n' | grep -v '^ *$\|^WARNING' | tail -1)
say doing "${last:0:200}"
exit 0
