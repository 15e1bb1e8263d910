"""How fast this machine multiplies the model's matrices, with nothing in between: PyTorch and NumPy, f32.

For ``gemm:BxT`` the matrices are those of a training step over B x T tokens: each weight matrix of
``works.step_matmuls`` once forward (x W^T) and twice backward (dy W, dy^T x). ``gflops`` is the rate over all
of them, each at the speed of its fastest run; ``square_gflops`` is that of one 2048-cubed product.
"""

import json
import time
from collections.abc import Callable

import numpy
import torch

import timing
import works


def products(rows: int, config: dict) -> list[tuple[int, int, int, int]]:
    """(m, k, n, count) of each product in one training step over ``rows`` tokens."""
    listed = []
    for _name, inputs, outputs, count in works.step_matmuls(config):
        listed.append((rows, inputs, outputs, count))
        listed.append((rows, outputs, inputs, count))
        listed.append((outputs, rows, inputs, count))
    return listed


def torch_product(m: int, k: int, n: int) -> Callable[[], None]:
    a, b, out = torch.rand(m, k), torch.rand(k, n), torch.empty(m, n)
    return lambda: torch.mm(a, b, out=out)


def numpy_product(m: int, k: int, n: int) -> Callable[[], None]:
    generator = numpy.random.default_rng(0)
    a, b = (generator.random(shape, dtype=numpy.float32) for shape in ((m, k), (k, n)))
    out = numpy.empty((m, n), dtype=numpy.float32)
    return lambda: numpy.matmul(a, b, out=out)


def fastest_s(product: Callable[[], None], repeats: int) -> float:
    product()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main() -> None:
    arguments = works.parse_program_arguments(__doc__)
    torch.set_num_threads(arguments.threads)
    config = json.loads((arguments.model / "config.json").read_text())
    for item in arguments.items:
        repeats = 3 * (arguments.runs or works.RUNS[item.name])
        shapes = products(item.tokens, config)
        flops = sum(2 * m * k * n * count for m, k, n, count in shapes)
        for program, make in (("torch", torch_product), ("numpy", numpy_product)):
            seconds = sum(count * fastest_s(make(m, k, n), repeats) for m, k, n, count in shapes)
            square_s = fastest_s(make(2048, 2048, 2048), repeats)
            measured = {"gflops": flops / seconds / 1e9, "square_gflops": 2 * 2048**3 / square_s / 1e9}
            works.print_result(item, program, measured, peak_rss_mb=timing.peak_memory_mb())


if __name__ == "__main__":
    main()
