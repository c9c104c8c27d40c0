#!/usr/bin/env bash
# Compares Python, Ray and saeq of this machine with those of the cluster's head.
# saeq and Ray have to be the same; Python's minor version only where you use Ray from here yourself.
set -euo pipefail
config=${1:-cluster.yaml}
ask='python -c "
import sys; from importlib.metadata import version
print(\"versions:\", \"saeq=\" + version(\"saeq\"), \"ray=\" + version(\"ray\"), \"python=%d.%d\" % sys.version_info[:2])"'
here=$(bash -c "$ask" | grep '^versions:')
head=$(ray exec "$config" --no-config-cache "$ask" 2>/dev/null | tr -d '\r' | grep '^versions:') || {
  echo "the head does not answer; is it up? ray get-head-ip $config" >&2
  exit 2
}
echo "here  ${here#versions: }"
echo "head  ${head#versions: }"
if [ "${here% python=*}" != "${head% python=*}" ]; then
  echo "they differ: build the wheel again (pip wheel --no-deps -w dist .), then ray up $config" >&2
  exit 1
fi
