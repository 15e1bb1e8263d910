use rlt_engine::{Tensor, matmul::*, packed::*};
use std::time::Instant;
fn main() {
    for (m, n, k) in [
        (4096, 512, 256),
        (4096, 256, 256),
        (4096, 1408, 256),
        (4096, 256, 704),
        (4096, 2048, 256),
        (64, 512, 256),
        (64, 1408, 256),
        (64, 256, 704),
        (64, 2048, 256),
        (1, 1408, 256),
    ] {
        let t = |r: usize, c: usize| {
            Tensor::from_vec(r, c, (0..r * c).map(|i| (i % 17) as f32 * 0.1 - 0.8).collect())
        };
        let (x, w, dy) = (t(m, k), t(n, k), t(m, n));
        let mut y = Tensor::zeros(m, n);
        let mut dx = Tensor::zeros(m, k);
        let mut dw = Tensor::zeros(n, k);
        let p = PackedWeight::new(&w);
        let f = 2.0 * (m * n * k) as f64 / 1e9;
        let bench = |g: &mut dyn FnMut()| {
            for _ in 0..3 {
                g()
            }
            let reps = ((4.0 / f) as usize).max(3);
            let s = Instant::now();
            for _ in 0..reps {
                g()
            }
            f * reps as f64 / s.elapsed().as_secs_f64()
        };
        println!(
            "{m}x{n}x{k}: nt {:.0} packed {:.0} nn {:.0} tn {:.0}",
            bench(&mut || matmul_nt(&x, &w, &mut y, Output::Replace)),
            bench(&mut || matmul_packed(&x, &p, &mut y, Output::Replace)),
            bench(&mut || matmul_nn(&dy, &w, &mut dx, Output::Replace)),
            bench(&mut || matmul_tn(&dy, &x, &mut dw, Output::Accumulate))
        );
    }
}
