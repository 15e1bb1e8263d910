"""Golden values of GGUF's number formats, by the `gguf` Python package.

    pip install gguf numpy
    python tests/parity/gguf_golden.py          # writes crates/rlt-gguf/tests/golden/kinds.{gguf,f32}
    python tests/parity/gguf_golden.py FILE.gguf VALUES.f32          # compares another file's values (see examples/values.rs)

The first writes a file with one tensor of two rows of 512 numbers of every format (random blocks with finite scales, and
the extremes), a metadata key of every type, and the dequantised values, one tensor after the other,
as little-endian f32.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGUFReader, GGUFValueType as V, GGUFWriter, quants
from gguf.constants import GGML_QUANT_SIZES

ROWS, COLUMNS = 2, 512
# Where the half-precision scales of a block lie.
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208]}
KINDS = [T.F32, T.F16, T.BF16, *SCALES]


def blocks(kind, rng):
    per_block, size = GGML_QUANT_SIZES[kind]
    n = ROWS * COLUMNS // per_block
    raw = rng.integers(0, 256, (n, size), dtype=np.uint8)
    if kind == T.F32:
        return rng.standard_normal(n, dtype=np.float32).view(np.uint8).reshape(ROWS, -1)
    if kind == T.BF16:
        return quants.quantize(rng.standard_normal((ROWS, COLUMNS), dtype=np.float32), kind)
    finite = (rng.standard_normal(2 * n) * 0.1).astype(np.float16)
    finite[:4] = [6e-8, -65504, 0, -0.0]  # the smallest, the largest, both zeros
    if kind == T.F16:
        return finite[:n].view(np.uint8).reshape(ROWS, -1)
    for i, at in enumerate(SCALES[kind]):
        raw[:, at : at + 2] = finite[i * n : (i + 1) * n].view(np.uint8).reshape(n, 2)
    raw[0, 4:] = 255  # every bit
    if at := SCALES[kind][0]:
        raw[0, at : at + 2] = finite[4:5].view(np.uint8)
    return raw.reshape(ROWS, -1)


def main():
    if len(sys.argv) == 3:
        ours, at = np.memmap(sys.argv[2], "<u4"), 0
        for tensor in GGUFReader(sys.argv[1]).tensors:
            theirs = quants.dequantize(tensor.data, tensor.tensor_type).astype("<f4").reshape(-1).view("<u4")
            assert np.array_equal(ours[at : at + theirs.size], theirs), tensor.name
            at += theirs.size
        assert at == ours.size
        print(f"{at} values are equal bit for bit")
        return
    out = Path(__file__).parents[2] / "crates/rlt-gguf/tests/golden"
    rng = np.random.default_rng(7)
    writer = GGUFWriter(str(out / "kinds.gguf"), "made-up")
    for kind, value in [(V.UINT8, 200), (V.INT8, -100), (V.UINT16, 60000), (V.INT16, -30000), (V.UINT32, 4_000_000_000),
                        (V.INT32, -2_000_000_000), (V.FLOAT32, 0.1), (V.BOOL, True), (V.STRING, "Ġ é"),
                        (V.UINT64, 2**53), (V.INT64, -2**53), (V.FLOAT64, 0.1)]:
        writer.add_key_value(f"made-up.{kind.name.lower()}", value, kind)
    writer.add_array("made-up.texts", ["a", "", "Ġb"])
    writer.add_array("made-up.numbers", [1, -2, 3])
    values = []
    for kind in KINDS:
        raw = blocks(kind, rng)
        writer.add_tensor(kind.name, raw, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    reader = GGUFReader(out / "kinds.gguf")
    for tensor in reader.tensors:
        values.append(quants.dequantize(tensor.data, tensor.tensor_type).astype("<f4").reshape(-1))
        assert np.isfinite(values[-1]).all(), tensor.name
    np.concatenate(values).tofile(out / "kinds.f32")
    print(f"{len(values)} formats, {sum(v.size for v in values)} values")


main()
