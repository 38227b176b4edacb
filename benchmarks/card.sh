#!/usr/bin/env bash
# What is to be known on a machine with one NVIDIA card and no network, in two calls of at most six minutes each.
#
#   benchmarks/card.sh --prepare [WHEELS]   where there is a network: the packages that the machine may lack
#   benchmarks/card.sh tests [WHEELS]       the CUDA tests; a run to its end; a run that is interrupted, and its rest
#   benchmarks/card.sh speed [WHEELS]       every backbone: the plain way, ours and the ceiling, the cheapest first
#
# WHEELS (default: build/wheels) is a folder of wheels. What is written goes to OUT, else to build/card.
# PYTHON names the interpreter (default: .venv/bin/python where it is there, else python3); CARD_SECONDS a call's limit
# (default: 340); CARD_FLAGS more flags for benchmarks/speed.py. CARD_DEVICE=cpu rehearses all, on little.
set -euo pipefail

home=$(realpath "$(dirname "$0")/..")
command=${1:-}
wheels=$(realpath -m "${2:-$home/build/wheels}")
out=$(realpath -m "${OUT:-$home/build/card}")
device=${CARD_DEVICE:-cuda}
limit=${CARD_SECONDS:-340}
cd "$home"
if [ -z "${PYTHON:-}" ]; then
  PYTHON=$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)
fi

prepare() {
  mkdir -p "$wheels"
  rm -f "$wheels"/wavemix-*.whl "$wheels"/pywavelets-*.whl
  local platforms=()
  for tag in manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014; do
    platforms+=(--platform "${tag}_x86_64")
  done
  "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
    --implementation cp "${platforms[@]}" --dest "$wheels" "$(grep '^wavemix' requirements.txt)" pywavelets
  ls -l "$wheels"
}

# what the interpreter lacks is unpacked, which takes no pip
add_wheels() {
  if "$PYTHON" -c 'import sys; from importlib.util import find_spec as f; sys.exit(not (f("wavemix") and f("pywt")))'; then
    return
  fi
  for wheel in "$wheels"/*.whl; do
    if [ -e "$wheel" ]; then
      "$PYTHON" -m zipfile -e "$wheel" "$scratch/site"
    else
      echo "no wheels in $wheels: wavemix is left out (benchmarks/card.sh --prepare)"
    fi
  done
  export PYTHONPATH=$scratch/site${PYTHONPATH:+:$PYTHONPATH}
}

machine() {
  nvidia-smi --query-gpu=name,driver_version,memory.free,memory.total --format=csv || echo "no nvidia-smi"
  "$PYTHON" - <<'END'
import importlib.metadata as packages
import os
import platform

import torch

print("python", platform.python_version(), platform.platform(), os.cpu_count(), "processors")
for name in ("torch", "torchvision", "numpy", "wavemix", "pywavelets", "pillow", "scikit-learn", "triton"):
    try:
        print(name, packages.version(name))
    except packages.PackageNotFoundError:
        print(name, "not installed")
if torch.cuda.is_available():
    free, total = torch.cuda.mem_get_info()
    print(f"{torch.cuda.get_device_name()}, compute capability {torch.cuda.get_device_capability()}")
    print(f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}")
    print(f"{free / 2**20:,.0f} MiB free of {total / 2**20:,.0f}")
else:
    print("PyTorch finds no CUDA device")
END
}

# ok NAME STATUS WANTED: says whether a step ended as it should
failed=0
ok() {
  if [ "$2" = "$3" ]; then
    echo "== $1: ok after $SECONDS s"
  else
    echo "== $1: FAILED after $SECONDS s, exit code $2 instead of $3"
    failed=1
  fi
}

# limited SECONDS COMMAND: asked to stop by an interruption, as Ctrl-C does, which reaches what is started so
limited() {
  timeout --foreground -s INT -k 10 "$@"
}

left() {
  echo $((limit > SECONDS ? limit - SECONDS : 1))
}

# cuda_tests NAME MARKS SECONDS
cuda_tests() {
  local files status=0
  mapfile -t files < <(grep -rlE --include='test_*.py' 'mark\.cuda' tests)
  limited "$3" "$PYTHON" -m pytest -v -rfEs -m "$2" -p no:cacheprovider --durations=5 \
    --junitxml="$out/$1.xml" "${files[@]}" || status=$?
  ok "$1" $status 0
}

tests() {
  local status
  cuda_tests cuda-tests "cuda and not slow" $((limit * 5 / 10))

  local run=("$PYTHON" digits.py -model mobilenet -bs 64 --weights none --device "$device" --out "$scratch/runs")
  [ "$device" = cuda ] || run+=(--size 32 --plan off --precision fp32 --shots 20)
  status=0
  limited "$(left)" "${run[@]}" --epochs 2 || status=$?
  ok "a run to its end" $status 0
  find "$scratch/runs" -name record.json -exec cp {} "$out/run.json" \;

  # another is asked to stop after its first epoch, and the same command goes on from there
  run+=(--epochs 6 --seed 1)
  local process log=$scratch/interrupted.log
  "${run[@]}" >"$log" 2>&1 &
  process=$!
  # Ctrl-C is not for what runs in the background
  trap 'kill -KILL $process 2>/dev/null || true' EXIT
  while kill -0 $process 2>/dev/null && ! grep -qE '^ +1 ' "$log" && [ $SECONDS -lt "$limit" ]; do sleep 0.1; done
  kill "-$([ $SECONDS -lt "$limit" ] && echo USR1 || echo KILL)" $process || true
  status=0
  wait $process || status=$?
  trap - EXIT
  cat "$log"
  ok "a run that is asked to stop" $status 130
  status=0
  limited "$(left)" "${run[@]}" || status=$?
  ok "the rest of it" $status 0

  # last, since all else is known by then
  cuda_tests slow-cuda-tests "cuda and slow" "$(left)"
  return $failed
}

speed() {
  local flags status=0
  if [ "$device" = cuda ]; then
    flags=(--models mobilenet shufflenet efficientnet regnet resnet resnext convnext swinv2 swin densenet wavemix)
    flags+=(--batch-size 64 --rounds 2 --steps 20 --plan-seconds 8 --limit-seconds 28)
  else
    flags=(--models mobilenet shufflenet --batch-size 4 --size 64 --rounds 1 --plan-seconds 2 --limit-seconds 60)
  fi
  read -ra more <<<"${CARD_FLAGS:-}"
  # interrupted, it still prints the table of what it has
  limited "$(left)" "$PYTHON" benchmarks/speed.py --columns plain ours ceiling --compile off \
    --device "$device" --out "$out" "${flags[@]}" "${more[@]}" || status=$?
  ok "speed" $status 0
  return $failed
}

case $command in
  --prepare)
    prepare
    ;;
  tests | speed)
    mkdir -p "$out"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    export XDG_CACHE_HOME=$scratch/cache PYTHONUNBUFFERED=1
    {
      trap 'exit 130' INT # once the step that it interrupted has said what it has
      machine
      add_wheels
      "$command"
    } 2>&1 | tee -i "$out/$command.log"
    ;;
  *)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
