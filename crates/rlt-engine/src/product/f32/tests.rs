//! Products of every layout and size, and what their bits depend on.

use super::{Right, View, multiply};
use crate::made_up::{numbers, transposed};
use crate::output::Output;
use crate::packed::PackedWeight;
use crate::tensor::Tensor;

/// Every layout of both factors against sums in f64, to twice what f32 can lose in as many additions.
#[test]
fn products_of_every_layout_are_right() {
    for (m, n, depth) in [
        (1, 1, 1),
        (3, 40, 0),
        (7, 33, 17),
        (29, 96, 300),
        (131, 64, 256),
        (70, 330, 600),
        (300, 200, 257),
        (500, 40, 300),
    ] {
        let (a, b, before) = (numbers(m, depth, 1), numbers(depth, n, 2), numbers(m, n, 3));
        let (a_columns, b_columns) = (transposed(&a), transposed(&b));
        let packed = (depth > 0).then(|| PackedWeight::new(&b_columns));
        for mode in [Output::Replace, Output::Accumulate] {
            let check = |what: &str, out: &Tensor| {
                for (i, value) in out.data().iter().enumerate() {
                    let (row, col) = (i / n, i % n);
                    let mut exact = match mode {
                        Output::Replace => 0.0,
                        Output::Accumulate => f64::from(before.row(row)[col]),
                    };
                    let mut size = f64::from(f32::MIN_POSITIVE) + exact.abs();
                    for k in 0..depth {
                        let term = f64::from(a.row(row)[k]) * f64::from(b.row(k)[col]);
                        exact += term;
                        size += term.abs();
                    }
                    let limit = size * f64::from(f32::EPSILON) * 2.0 * (1.0 + (depth as f64).sqrt());
                    let off = (f64::from(*value) - exact).abs();
                    assert!(off <= limit, "{what} {m} x {n} x {depth} at {row}, {col}: off by {off:e}");
                }
            };
            let lefts = [("rows", View::of(&a)), ("columns", View::of(&a_columns).transposed())];
            for (what, left) in lefts {
                let mut out = before.clone();
                multiply(&mut out, mode, left, Right::Rows(View::of(&b)), depth);
                check(what, &out);
            }
            if let Some(packed) = &packed {
                let mut out = before.clone();
                crate::packed::matmul_packed(&a, packed, &mut out, mode);
                check("panels", &out);
            }
        }
    }
}

#[test]
fn a_row_s_bits_depend_on_it_alone() {
    let (n, depth) = (200, 700);
    let (a, b) = (numbers(517, depth, 1), numbers(depth, n, 2));
    let product = |a: &Tensor, left: View, threads: usize| {
        let mut out = Tensor::zeros(a.rows(), n);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| multiply(&mut out, Output::Replace, left, Right::Rows(View::of(&b)), depth));
        out
    };
    let all = product(&a, View::of(&a), 2);
    let columns = transposed(&a);
    for threads in [1, 3, 8] {
        assert!(
            product(&a, View::of(&columns).transposed(), threads).data() == all.data(),
            "{threads} threads"
        );
    }
    for rows in [1, 2, 5, 12, 13, 64, 65, 250] {
        let some = a.gather_rows(&(517 - rows..517).collect::<Vec<_>>());
        assert!(product(&some, View::of(&some), 2).data() == &all.data()[(517 - rows) * n..], "{rows} rows");
    }
}

/// Narrower vectors take other tiles of rows and columns, but add in the same order.
#[test]
#[cfg(target_arch = "x86_64")]
fn narrower_vectors_give_the_same_bits() {
    use super::factors::Product;
    use super::part::Part;
    use crate::device::Device;
    use crate::instructions::InstructionSet;
    use crate::parallel::SharedMut;
    use crate::tile::{PANEL, Tiled};

    let Some(narrow) = pulp::x86::V3::try_new() else { return };
    if InstructionSet::in_use() < InstructionSet::Avx2 {
        return;
    }
    for (m, n, depth) in [(7, 33, 17), (131, 300, 513)] {
        let (a, b) = (numbers(m, depth, 1), numbers(depth, n, 2));
        let columns = transposed(&a);
        for left in [View::of(&a), View::of(&columns).transposed()] {
            let mut outs = [(); 2].map(|()| numbers(m, n, 3));
            let [this, other] = &mut outs;
            multiply(this, Output::Accumulate, left, Right::Rows(View::of(&b)), depth);
            let out = SharedMut(other.data_mut().as_mut_ptr());
            let product = Product::new(
                (m, n, depth),
                left,
                Right::Rows(View::of(&b)),
                out,
                n,
                Output::Accumulate,
                &Device::Cpu,
            );
            let part = Part { product: &product, rows: 0..m, panels: 0..n.div_ceil(PANEL), most_rows: m };
            pulp::Simd::vectorize(narrow, Tiled(part));
            assert!(outs[0].data() == outs[1].data(), "{m} x {n} x {depth}");
        }
    }
}
