# Takes the node down. Says: left N, other NAME, busy NAME, freed MIB (with purge), or none.
root=$(folder_of "$1") name=$2 patience=$3 purge=$4
[ -d "$root" ] || { say none; exit 0; }
here=$(node_name) || here=
if [ -n "$here" ] && [ "$here" != "$name" ]; then say other "$here"; exit 0; fi
stop_start
exec 9>"$root/lock"
flock -w 10 9 || { say busy "$here"; exit 0; }
stop_node "$name" "$patience"
rm -f "$root/node/env" # the store's credentials
say left "$(processes_of "$name" | wc -l)"
if [ "$purge" = yes ]; then
  # Only what is ours: the folder may be a disk that others use, too.
  cd "$root" || exit 1
  say freed "$(du -smc node code environments scripts work cache uv 2>/dev/null | tail -1 | cut -f1)"
  rm -f environments/*/ready # cut off in the middle, none of them counts as whole
  rm -rf node code environments scripts work cache uv incoming.* lock
  cd / && rmdir "$root" 2>/dev/null
fi
exit 0
