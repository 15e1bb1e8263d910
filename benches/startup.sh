#!/usr/bin/env bash
# What starting costs, before anything is computed for long: benches/startup.sh MODEL_DIR [RLT]
#
# MODEL_DIR is any model folder with a tokenizer; RLT the program (default target/release/rlt). Prints a table of medians over
# RUNS runs (default 9). "cold" drops the page cache before each run and needs root; elsewhere that column is empty.
set -euo pipefail
model=${1:?MODEL_DIR}
rlt=$(realpath "${2:-target/release/rlt}")
runs=${RUNS:-9}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

printf '{"text": "The"}\n' >"$folder/text.jsonl"
printf '{"question": "What is 2 + 2?", "solution": "4"}\n' >"$folder/question.jsonl"
printf '{"question": "What is 2 + 2?", "solution": "4", "reasoning_trace": "Two and two are four."}\n' >"$folder/row.jsonl"

# The median of what COMMAND takes, milliseconds; its folder is emptied before each run.
median() { # cold COMMAND ..
    local cold=$1 times=() begin
    shift
    for _ in $(seq "$runs"); do
        rm -rf "$folder/out"
        if [[ $cold == cold ]]; then
            sync
            echo 3 >/proc/sys/vm/drop_caches
        fi
        begin=$(date +%s%N)
        "$@" >/dev/null 2>"$folder/errors" || { cat "$folder/errors" >&2; exit 1; }
        times+=($((($(date +%s%N) - begin) / 10000)))
    done
    printf '%s\n' "${times[@]}" | sort -n | awk '{ t[NR] = $1 } END { printf "%.1f", t[int((NR + 1) / 2)] / 100 }'
}

row() { # words COMMAND ..
    local words=$1 cold=
    shift
    [[ -w /proc/sys/vm/drop_caches ]] && cold=$(median cold "$@")
    printf '| %s | %s | %s |\n' "$words" "$(median warm "$@")" "$cold"
}

printf '%s: %d bytes; model.safetensors: %d bytes\n\n' "${rlt##*/}" "$(stat -c %s "$rlt")" "$(stat -Lc %s "$model/model.safetensors")"
printf '| until | ms, warm | ms, cold |\n| --- | ---: | ---: |\n'
row '`rlt --version` has answered' "$rlt" --version
row 'the first log-probability (`rlt logprobs` of one token)' \
    "$rlt" logprobs --quiet --model "$model" --data "$folder/text.jsonl" --out "$folder/out"
row 'the first sampled token (`rlt explain`, `sampling.max_new_tokens=1`)' \
    "$rlt" explain --quiet --model "$model" --data "$folder/question.jsonl" --out "$folder/out" sampling.max_new_tokens=1
row 'the first step of training has ended (`rlt sft`, one row; its model is written)' \
    "$rlt" sft --quiet model.path="$model" data.path="$folder/row.jsonl" run_dir="$folder/out" sft.format=student \
    checkpoint.every=0 sft.epochs=1
