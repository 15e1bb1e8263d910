#!/usr/bin/env bash
# Ten minutes of a GPU: what works on it, how fast it is, and what PyTorch does beside it. A JSON line after every step.
#
#   benches/gpu/run.sh --build        # at home: builds all that is carried, into target/gpu-bench (no CUDA is needed)
#   benches/gpu/run.sh                # on the machine with the GPU: nothing is built there
#   benches/gpu/run.sh --emulated     # the same steps at tiny sizes on the emulated GPU, to try the script itself
#
# Each step has its own time limit, so that a step that hangs costs no other; lines of a run that is cut are whole. Peers (PyTorch,
# transformers) take their turns where Python has them. LAYERS is how many of a 7B model's 28 blocks are computed (8: random weights
# are made on the host, and a model's rest is its blocks again); STEPS the steps that are run, by their names, all without it.
# With PROFILE=dev, --build takes what `cargo test` has built, which is enough for the emulated GPU. What each program said is kept in
# target/gpu-bench/logs. Needs bash, coreutils and python3.
set -uo pipefail
cd "$(dirname "$0")/../.."
home=target/gpu-bench
logs=$home/logs
layers=${LAYERS:-8}
profile=${PROFILE:-release}
tiny=()
emulated=

build() {
    set -e
    mkdir -p "$home"
    cargo build --profile "$profile" --workspace --bin rlt --example gpu_bench
    install "target/${profile/dev/debug}/rlt" "target/${profile/dev/debug}/examples/gpu_bench" "$home"
    # The comparisons of kernels (rlt-cuda) and of the engine's operations (rlt-engine) with the processor.
    cargo test --profile "$profile" --workspace --test gpu --no-run --message-format=json |
        python3 -c '
import json, sys
for line in sys.stdin:
    made = json.loads(line)
    if made.get("executable") and made["target"]["name"] == "gpu":
        print(made["package_id"].split("/crates/")[1].split("#")[0], made["executable"])' |
        while read -r crate program; do install "$program" "$home/tests-$crate"; done
    strip "$home"/rlt "$home"/gpu_bench "$home"/tests-*
    ls -l "$home"
}

for word in "$@"; do
    case $word in
    --build) build; exit ;;
    --emulated) emulated=yes tiny=(--tiny) ;;
    *) printf 'usage: %s [--build | --emulated]\n' "$0" >&2; exit 2 ;;
    esac
done
for program in rlt gpu_bench tests-rlt-cuda tests-rlt-engine; do
    if ! [ -x "$home/$program" ]; then
        printf '%s is not there: %s --build makes it\n' "$home/$program" "$0" >&2
        exit 2
    fi
done
rm -rf "$logs"
mkdir -p "$logs"
if [ "$emulated" ]; then
    LD_LIBRARY_PATH=${EMULATED_LIBRARIES:?name the folder with the emulated libcuda.so: target/debug/cuda-emulator/plain}
    export LD_LIBRARY_PATH
else
    export RLT_CUDA=real
fi

# One line: a step, whether it went well, its seconds, and what it ended with.
say() { # name code seconds log
    python3 - "$@" <<'PYTHON'
import json, sys
name, code, seconds, log = sys.argv[1:5]
lines = [line.rstrip() for line in open(log, errors="replace") if line.strip()]
ended = {"0": "done", "124": "over its time", "137": "over its time", "77": "skipped"}.get(code, f"exit code {code}")
print(json.dumps({"step": name, "ended": ended, "seconds": round(float(seconds), 1), "said": lines[-1][:300] if lines else ""}), flush=True)
PYTHON
}

# Runs a command within some seconds. JSON lines that it prints are passed on as they come; exit code 77 means that it was skipped.
step() { # name limit command ..
    local name=$1 limit=$2 log begin code=0
    shift 2
    if [ -n "${STEPS:-}" ] && [[ " $STEPS " != *" ${name%%:*} "* ]]; then return; fi
    log=$logs/${name//[: ]/-}.log
    begin=$(date +%s.%N)
    timeout --kill-after=5 "$limit" "$@" 2>&1 | tee "$log" | grep --line-buffered '^{'
    code=${PIPESTATUS[0]}
    say "$name" "$code" "$(python3 -c "import time; print(time.time() - $begin)")" "$log"
}

missing() { # program
    command -v "$1" >/dev/null || { printf '%s is not installed\n' "$1"; return 1; }
}

bench() { "$home/gpu_bench" "${tiny[@]}" --layers "$layers" "$@"; }
peer() { python3 benches/gpu/peer.py "${tiny[@]}" --layers "$layers" "$@"; }

machine() {
    if [ "$emulated" ]; then
        printf 'the emulated GPU\n'
    else
        nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader || return
    fi
    bench time 'sum and RMS norm'
}

sanitized() { # tool
    missing compute-sanitizer || return 77
    compute-sanitizer --tool "$1" --error-exitcode 9 "$home/gpu_bench" --tiny time attention update:16
}

# A step of RL on the processor and twice on the GPU: the same rewards to rounding, and the same bits twice.
training() {
    local folder rewards device name
    folder=$(mktemp -d)
    local small='world.rows=8 world.heldout_rows=0 world.hidden_size=16 world.intermediate_size=24 world.n_layers=1 world.n_heads=2
        grpo.steps=2 grpo.questions_per_step=2 grpo.group_size=2 sampling.max_new_tokens=6 eval.every=0'
    [ "$emulated" ] || small='grpo.steps=3 eval.every=0'
    for name in cpu cuda again; do
        device=${name/again/cuda}
        # shellcheck disable=SC2086 # Settings are words.
        "$home/rlt" train -q -c configs/tests/short-rl.toml --device "$device" run_dir="$folder/$name" $small || return
    done
    cmp "$folder/cuda/model/model.safetensors" "$folder/again/model/model.safetensors" || return
    rewards=$(python3 - "$folder" <<'PYTHON'
import json, sys
of = lambda name: [json.loads(line) for line in open(f"{sys.argv[1]}/{name}/metrics.jsonl")]
pairs = list(zip(of("cpu"), of("cuda")))
furthest = max(abs(a[key] - b[key]) / max(abs(a[key]), 1e-2) for a, b in pairs for key in ("reward_mean", "grad_norm"))
print(json.dumps({"item": "training beside the processor's", "steps": len(pairs), "furthest": furthest}))
assert furthest < 1e-2, furthest
PYTHON
    ) || return
    printf '%s\n' "$rewards"
    rm -rf "$folder"
}

profiled() {
    missing ncu || return 77
    ncu --launch-count 6 --kernel-name 'regex:attention|adamw|rms_norm' \
        --metrics sm__throughput.avg.pct_of_peak_sustained_elapsed,dram__throughput.avg.pct_of_peak_sustained_elapsed,sm__warps_active.avg.pct_of_peak_sustained_active \
        "$home/gpu_bench" --layers 1 time 'attention backward 4096' 'AdamW' 'sum and RMS norm'
}

export -f machine sanitized training profiled bench peer missing
export home layers emulated
run() { # name limit function words ..: a function of this script, in a shell that a time limit can end
    local name=$1 limit=$2
    shift 2
    step "$name" "$limit" bash -c "tiny=(${tiny[*]}); \"\$@\"" bash "$@"
}

run libraries 40 machine
step kernels 60 "$home/tests-rlt-cuda" -q
step operations 90 "$home/tests-rlt-engine" -q
run memcheck 40 sanitized memcheck
run racecheck 40 sanitized racecheck
run products:f32 30 bench --arithmetic f32 time product
run products:bf16 30 bench time product
run products:bits 20 bench bits
run attention 40 bench time attention
run attention:64 40 bench --width 64 time attention
run attention:peer 40 peer attention
run attention:64:peer 40 peer --width 64 attention
run training 90 training
run model 100 bench time update score decode
run model:peer 100 peer update score decode
run elements 40 bench time sum RMS SwiGLU embedding AdamW
run profile 90 profiled
