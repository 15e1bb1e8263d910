"""Expected rotary inverse frequencies for crates/rlt-model/src/config/tests.rs.

    python3 -m venv V && V/bin/pip install numpy
    V/bin/python tests/parity/rope_golden.py

The formulas are those of transformers' modeling_rope_utils.py, written with numpy float32 arrays
where transformers has float32 tensors; only the power is taken in float64 and rounded, since
float32 power functions differ in the last place. Prints one Rust array a case.
"""

import math

import numpy as np

f32 = np.float32


def base_freqs(theta, dim):
    exponents = np.arange(0, dim, 2).astype(f32) / f32(dim)
    return (np.float64(theta) ** exponents.astype(np.float64)).astype(f32)


def default(theta, dim):
    return f32(1) / base_freqs(theta, dim), 1.0


def linear(theta, dim, factor):
    return default(theta, dim)[0] / f32(factor), 1.0


def llama3(theta, dim, factor, low, high, context):
    inv = default(theta, dim)[0]
    wavelen = f32(2 * math.pi) / inv
    out = np.where(wavelen > context / low, inv / f32(factor), inv)
    smooth = (f32(context) / wavelen - f32(low)) / f32(high - low)
    smoothed = (f32(1) - smooth) * out / f32(factor) + smooth * out
    medium = ~(wavelen < context / high) & ~(wavelen > context / low)
    return np.where(medium, smoothed, out), 1.0


def yarn(theta, dim, factor, context, fast=32, slow=1, mscale=None, mscale_all=None, truncate=True):
    def get_mscale(scale, m=1):
        return 1.0 if scale <= 1 else 0.1 * m * math.log(scale) + 1.0

    attention = get_mscale(factor, mscale) / get_mscale(factor, mscale_all) if mscale else get_mscale(factor)

    def turning(rotations):
        return (dim * math.log(context / (rotations * 2 * math.pi))) / (2 * math.log(theta))

    low, high = turning(fast), turning(slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(dim // 2).astype(f32) - f32(low)) / f32(high - low), 0, 1)
    pos = base_freqs(theta, dim)
    extra = f32(1) - ramp
    inv = f32(1) / (f32(factor) * pos) * (f32(1) - extra) + f32(1) / pos * extra
    return inv, attention


CASES = {
    "DEFAULT": default(1e6, 32),
    "LINEAR": linear(1e4, 32, 4.0),
    "LLAMA3": llama3(5e5, 64, 8.0, 1.0, 4.0, 8192),
    "YARN_QWEN": yarn(1e6, 128, 4.0, 32768),
    "YARN_MSCALE": yarn(1e4, 64, 40.0, 4096, mscale=1.0, mscale_all=0.5, truncate=False),
}

for name, (freqs, attention) in CASES.items():
    print(f"const {name}: ([f32; {len(freqs)}], f32) = (")
    assert freqs.dtype == f32
    print("    [" + ", ".join(repr(float(str(x))) for x in freqs) + "],")
    print(f"    {float(str(f32(attention)))!r},\n);")
