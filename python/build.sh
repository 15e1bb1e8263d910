#!/usr/bin/env bash
# Builds the wheel: python/build.sh [OUT]   (default: target/wheels)
# The wheel carries the command line as it is (rlt.data/scripts/rlt) beside the Python package. Needs Rust, maturin and, for a
# wheel that runs on any Linux with glibc 2.28, zig and cargo-zigbuild: pip install maturin ziglang cargo-zigbuild
#   RLT_WHEEL_TARGET   the platform (default: this one's)
#   RLT_WHEEL_PROFILE  dist (default), or dev for a quick look
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/.." && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/target}
out=$(realpath -m "${1:-$CARGO_TARGET_DIR/wheels}")
profile=${RLT_WHEEL_PROFILE:-dist}
target=${RLT_WHEEL_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}

binary=rlt
build=(cargo build)
wheel=(--target "$target")
case $target in
*-linux-gnu)
    # Against the symbols of an old glibc, whatever this machine has.
    build=(cargo zigbuild)
    wheel+=(--zig --compatibility manylinux_2_28)
    ;;
*-windows-*) binary=rlt.exe ;;
esac

build_target=$target
[[ ${build[1]} == zigbuild ]] && build_target=$target.2.28
# As a dependency of the Python package: what both halves need is then built once.
"${build[@]}" --locked --manifest-path "$here/Cargo.toml" -p rlt-python -p rlt --bin rlt --profile "$profile" \
    --target "$build_target"

folder=$profile
[[ $profile == dev ]] && folder=debug
scripts=$here/rlt.data/scripts
rm -rf "$here/rlt.data"
mkdir -p "$scripts" "$out"
trap 'rm -rf "$here/rlt.data"' EXIT
cp "$CARGO_TARGET_DIR/$target/$folder/$binary" "$scripts/"
(cd "$here" && maturin build --locked --profile "$profile" --out "$out" "${wheel[@]}")
