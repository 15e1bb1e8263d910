//! Every tensor of a GGUF file as f32, one after the other, little-endian: `values FILE.gguf OUT.f32`.
//! `tests/parity/gguf_golden.py FILE.gguf OUT.f32` compares them with the `gguf` Python package's.

use std::io::Write;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(out)) = (args.next(), args.next()) else {
        return Err("usage: values FILE.gguf OUT.f32".into());
    };
    let file = rlt_gguf::Gguf::open(file.as_ref())?;
    let mut out = std::io::BufWriter::new(std::fs::File::create(out)?);
    for tensor in file.tensors() {
        let mut row = vec![0.0; tensor.columns()];
        for i in 0..tensor.len() / tensor.columns() {
            file.read_rows(tensor, i, &mut row)?;
            for x in &row {
                out.write_all(&x.to_le_bytes())?;
            }
        }
    }
    Ok(out.flush()?)
}
