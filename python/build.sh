#!/usr/bin/env bash
# Builds the wheel: python/build.sh [OUT]   (default: target/wheels)
# The wheel carries the command line as it is (rlt.data/scripts/rlt) beside the Python package. Needs Rust, maturin and, on Linux,
# where it then runs with any glibc from 2.28 on, zig and cargo-zigbuild: pip install maturin ziglang cargo-zigbuild
#   RLT_WHEEL_TARGET   the platform (default: this one's)
#   RLT_WHEEL_PROFILE  dist (default), or dev for a quick look
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
mkdir -p "${1:-$CARGO_TARGET_DIR/wheels}"
out=$(cd "${1:-$CARGO_TARGET_DIR/wheels}" && pwd)
profile=${RLT_WHEEL_PROFILE:-dist}
target=${RLT_WHEEL_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}

binary=rlt
wheel=(--target "$target")
case $target in
*-linux-gnu)
    # Linked by zig against the symbols of an old glibc, whatever this machine has. Cargo builds again what another linker
    # built, so both calls below are given the same one.
    tools=$CARGO_TARGET_DIR/wheel-cc
    mkdir -p "$tools"
    python=$(dirname "$(command -v maturin)")/python
    zig_target=${target/-unknown/}.2.28
    for tool in "cc -- -g -fno-sanitize=all -target $zig_target" "c++ -- -g -fno-sanitize=all -target $zig_target" ar ranlib; do
        name=$tools/${tool%% *}
        if [[ $tool == *--* ]]; then
            call="'$(command -v cargo-zigbuild)' zig $tool"
        else
            call="'$python' -m ziglang $tool"
        fi
        printf '#!/bin/sh\nexport CARGO_ZIGBUILD_ZIG_COMMAND=%q CARGO_ZIGBUILD_ZIG_COMMAND_ARGS="-m ziglang"\nexec %s "$@"\n' \
            "$python" "$call" > "$name.new"
        chmod +x "$name.new"
        # Untouched where it is the same: a newer linker would be another one.
        cmp -s "$name.new" "$name" && rm "$name.new" || mv "$name.new" "$name"
    done
    lower=${target//-/_}
    export "CARGO_TARGET_${lower^^}_LINKER=$tools/cc" "CC_$lower=$tools/cc" "CXX_$lower=$tools/c++" \
        "AR_$lower=$tools/ar" "RANLIB_$lower=$tools/ranlib"
    wheel+=(--compatibility manylinux_2_28)
    ;;
*-windows-*) binary=rlt.exe ;;
esac

# As a dependency of the Python package: what both halves need is then built once.
cargo build --locked --manifest-path "$here/Cargo.toml" -p rlt-python -p rlt --bin rlt --profile "$profile" --target "$target"

folder=$profile
[[ $profile == dev ]] && folder=debug
scripts=$here/rlt.data/scripts
rm -rf "$here/rlt.data"
mkdir -p "$scripts"
trap 'rm -rf "$here/rlt.data"' EXIT
cp "$CARGO_TARGET_DIR/$target/$folder/$binary" "$scripts/"
(cd "$here" && maturin build --locked --profile "$profile" --compression-level 9 --out "$out" "${wheel[@]}")
