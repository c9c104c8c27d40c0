# Finds or makes the Python that saeq runs in; sets $python. Sourced by start.sh.

find_python() {
  if [ -n "$ENVIRONMENT" ]; then
    local given
    given=$(folder_of "$ENVIRONMENT")
    python=$given/bin/python
    [ ! -f "$given" ] || python=$given
    [ -x "$python" ] || failed environment "--environment $ENVIRONMENT: there is no $python here"
    return
  fi
  local place=$root/environments/$NEED
  python=$place/bin/python
  [ ! -e "$place/ready" ] || return 0
  # One that was cut off is gone on with; one that is not whole or does not import is made anew.
  [ ! -e "$place" ] || is_venv "$place" || discard "$place"
  make_environment "$place"
  if ! "$python" -c 'import ray, torch, boto3'; then
    echo "the environment does not import; it is made anew"
    discard "$place"
    make_environment "$place"
  fi
  touch "$place/ready"
}

# A folder that lost its pyvenv.cfg still has a python: the machine's own, with its packages.
is_venv() {
  [ -e "$1/pyvenv.cfg" ] && "$1/bin/python" -c 'import os, pip, sys
sys.exit(not os.path.samefile(sys.prefix, sys.argv[1]))' "$1" 2>/dev/null
}

# By its name first: cut off in the middle, nothing of it looks whole.
discard() {
  local gone=$1.gone
  rm -rf "$gone"
  mv "$1" "$gone"
  rm -rf "$gone"
}

make_environment() {
  local place=$1
  is_venv "$place" || make_venv "$place"
  is_venv "$place" || failed environment "$place did not become a virtual environment"
  install_torch || failed environment "torch could not be installed: $(last_error)"
  install --requirement scripts/requirements.txt \
    || failed environment "packages could not be installed: $(last_error)"
}

make_venv() {
  case $MAKE_WITH in
    venv) "$BASE_PYTHON" -m venv "$1" || failed environment "$BASE_PYTHON -m venv failed: $(last_error)" ;;
    uv | pip)
      local uv=$BASE_PYTHON
      if [ "$MAKE_WITH" = pip ]; then # this host's Python is too old: uv brings a newer one
        PIP_REQUIRE_VIRTUALENV=0 "$BASE_PYTHON" -m pip install --target "$root/uv" uv \
          || failed environment "uv, to get Python $PYTHON_VERSION, could not be installed: $(last_error)"
        uv=$root/uv/bin/uv
      fi
      "$uv" venv --seed --python "$PYTHON_VERSION" "$1" \
        || failed environment "uv could not get Python $PYTHON_VERSION: $(last_error)"
      ;;
  esac
}

# Never into anything but a virtual environment, whatever happened to ours.
install() {
  PIP_REQUIRE_VIRTUALENV=1 "$python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
    --constraint scripts/constraints.txt "$@"
}

# A plain torch on Linux brings gigabytes of CUDA: without a GPU, the CPU build is asked for by name.
install_torch() {
  if "$python" -c 'import importlib.metadata as m; m.version("torch")' 2>/dev/null; then
    return 0
  elif [ -n "$TORCH_INDEX" ]; then
    install --index-url "$TORCH_INDEX" "torch==$TORCH"
  elif [ "$DEVICE" = cuda ]; then
    install "torch==$TORCH"
  else
    install "torch==$TORCH+cpu" 2>/dev/null \
      || install --timeout 15 --retries 0 "torch==$TORCH" \
        --index-url https://download.pytorch.org/whl/cpu 2>/dev/null \
      || install "torch==$TORCH"
  fi
}

# What pip said went wrong, else the last thing that it said.
last_error() {
  local last
  last=$(tail -n 30 "$root/node/start.log" | grep -v '^ *$')
  { grep -i '^error\|no space left' <<<"$last" || tail -n 1 <<<"$last"; } | tail -n 1 | cut -c1-400
}
