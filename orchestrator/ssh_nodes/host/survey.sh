# Says what this host has, a line each. Changes nothing.
root=$(folder_of "$1") wanted_python=$2 reach_host=$3 reach_port=$4 file_in_store=$5

say now "$(date +%s.%N)"
say hostname "$(uname -n)"
say system "$(uname -sm)"
say user "$(id -un)"
say root "$root"
place=$root
while [ ! -d "$place" ]; do place=$(dirname "$place"); done
say free_mib "$(df -Pm "$place" 2>/dev/null | awk 'NR == 2 {print $4}')"
[ -w "$place" ] || say not_writable "$place"
say memory_mib "$(awk '/^MemTotal/ {print int($2 / 1024)}' /proc/meminfo)"
for tool in flock setsid tar awk; do command -v "$tool" >/dev/null || say lacks "$tool"; done

if command -v nvidia-smi >/dev/null; then
  query=name,memory.total,driver_version
  if found=$(timeout 30 nvidia-smi --query-gpu=$query --format=csv,noheader,nounits 2>&1); then
    while IFS= read -r line; do say gpu "$line"; done <<<"$found"
    say cuda "$(timeout 30 nvidia-smi 2>/dev/null \
      | sed -n 's/.*CUDA Version: *\([0-9.]*\).*/\1/p' | head -1)"
  else
    say gpu_fault "$(printf '%s' "$found" | tail -1)"
  fi
elif [ -e /dev/nvidia0 ]; then
  say gpu_fault "there is a GPU (/dev/nvidia0) and no nvidia-smi: its driver is not installed"
fi

look_at_python() {
  local told
  told=$("$1" -c 'import sys, importlib.util as u
ready = all(u.find_spec(name) for name in ("venv", "ensurepip"))
print("%d.%d.%d" % sys.version_info[:3], "venv" if ready else "no-venv", sys.executable)' \
    2>/dev/null </dev/null) && say python "$told"
}
case $wanted_python in
  '') names='python3.11 python3.12 python3.13 python3.14 python3 python' ;;
  [0-9]*) names="python$wanted_python python3 python" ;;
  *) names=$(folder_of "$wanted_python") ;;
esac
for name in $names; do
  path=$(command -v "$name") && look_at_python "$path"
done
case $wanted_python in
  '' | [0-9]*)
    for path in /opt/conda/bin/python /venv/main/bin/python "$HOME/miniconda3/bin/python"; do
      [ ! -x "$path" ] || look_at_python "$path"
    done
    ;;
esac
for path in uv "$HOME/.local/bin/uv" "$root/uv/bin/uv"; do
  ! found=$(command -v "$path") || { say uv "$found"; break; }
done
python3 -m pip --version >/dev/null 2>&1 </dev/null && say pip python3

if [ -n "$reach_host" ]; then
  if [ -n "${https_proxy:-}${HTTPS_PROXY:-}${http_proxy:-}${HTTP_PROXY:-}" ]; then
    say reach by-proxy
  elif said=$(timeout 10 bash -c "exec 3<>/dev/tcp/\$0/\$1" "$reach_host" "$reach_port" 2>&1); then
    say reach yes
  else
    why=$(printf '%s' "$said" | head -1 | sed 's/.*: //')
    say reach "no ${why:-no answer within 10 s}"
  fi
fi
[ -z "$file_in_store" ] || { [ -e "$file_in_store" ] && say store_folder yes || say store_folder no; }

if has_systemd; then say under systemd
elif command -v tmux >/dev/null; then say under tmux
else say under nohup; fi

for path in "$root"/environments/*/ready; do
  [ ! -e "$path" ] || say ready "$(basename "$(dirname "$path")")"
done
! name=$(node_name) || say node "$name"
! is_serving || say serving yes
! is_starting || say starting yes
exit 0
