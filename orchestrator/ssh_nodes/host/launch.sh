# Takes over what was sent and starts the start, which goes on without this connection.
# Says one word: started, same, busy NAME, differs WHAT, other NAME.
root=$(folder_of "$1") new=$2 restart=$3
umask 077
cd "$root" || exit 1
name=$(cat "$new/node/name")

give_up() {
  rm -rf "$new"
  say "$@"
  exit 0
}

exec 9>lock
flock -n 9 || give_up busy "$(node_name)"
find "$root" -maxdepth 1 -name 'incoming.*' -mmin +60 -exec rm -rf {} + 2>/dev/null

if is_serving; then
  [ "$(node_name)" = "$name" ] || give_up other "$(node_name)"
  differs=
  for part in settings env; do
    cmp -s "$new/node/$part" "node/$part" || differs="$differs $part"
  done
  [ -n "$differs" ] || give_up same
  [ "$restart" = yes ] || give_up differs "$differs"
fi
# Also what a crashed start or a killed keeper left behind.
was=$(node_name) && stop_node "$was" 75

mkdir -p code environments work cache node
rm -rf node/*
mv "$new"/node/* node/
rm -rf scripts && mv "$new/scripts" scripts
code=$(cat node/code)
[ -d "code/$code" ] || { mv "$new/code" "code/$code.part" && mv "code/$code.part" "code/$code"; }
rm -rf "$new"
for other in code/*; do [ "$other" = "code/$code" ] || rm -rf "$other"; done

SAEQ_NODE=$name setsid nohup bash scripts/start.sh "$root" >>node/start.log 2>&1 </dev/null &
say started
