"""Measures rlt and its peers by turns on one machine and prints the ratios. Started by run.sh.

Each round runs every work on every program, one process at a time, and every second round goes through the
programs backwards: whatever drifts (clock, temperature, neighbours) touches both sides of a ratio. A figure is
the median over the quiet runs of all rounds. Standard library only; the peers have their own environments.
"""

import argparse
import datetime
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import timing
import works

HERE = Path(__file__).resolve().parent
RLT = "rlt"
DOCS_BEGIN, DOCS_END = "<!-- peers:begin -->", "<!-- peers:end -->"
# A process that was disturbed as a whole is started again at most this often in a round.
RETRIES = 2
PROCESS_TIMEOUT_S = 3600


@dataclass
class Program:
    """Something that is measured: its command, the works it can do and how it is started."""

    name: str
    command: list[str]
    works: tuple[str, ...]
    # One process for all its items of a model; for programs that take minutes to start.
    shares_process: bool = False
    # Judges each of its runs itself (timing.repeat); otherwise the whole process is watched from here.
    watches_itself: bool = True
    environment: dict[str, str] = field(default_factory=dict)


def known_programs(arguments: argparse.Namespace) -> list[Program]:
    threads = str(arguments.threads)
    # Not for vLLM, which binds its threads itself and slows down when these are set.
    blas = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}

    def script(name: str, *options: str, python: str = arguments.python) -> list[str]:
        return [python, str(HERE / name), *options]

    rlt = [*shlex.split(arguments.rlt), "--arithmetic", arguments.arithmetic]
    programs = [
        Program(RLT, rlt, tuple(works.RUNS), False, False, {"RAYON_NUM_THREADS": threads}),
        Program("matrix products", script("gemm.py"), ("gemm",), environment=blas),
        Program("PyTorch", script("train_torch.py"), ("train_step",), environment=blas),
        Program("transformers", script("infer_transformers.py"), ("generate", "logprobs"), environment=blas),
        Program("TRL", script("grpo_trl.py"), ("grpo_step",), environment=blas),
    ]
    for dtype in works.DTYPES:
        name, command = works.at_precision("official method", dtype), script("score_official.py", "--dtype", dtype)
        programs.append(Program(name, command, ("score", "score_recorded"), environment=blas))
    for mode in ("bf16", "compile", "bf16-compile"):
        command = script("train_torch.py", "--mode", mode)
        programs.append(Program(f"PyTorch {mode}", command, ("train_step",), environment=blas))
    if arguments.vllm_python:
        preload = {"LD_PRELOAD": arguments.vllm_preload} if arguments.vllm_preload else {}
        for dtype in works.DTYPES:
            name = works.at_precision("vLLM", dtype)
            command = script("infer_vllm.py", "--dtype", dtype, python=arguments.vllm_python)
            programs.append(Program(name, command, ("generate", "logprobs"), True, True, preload))
    return programs


def model_of(item: works.Item, arguments: argparse.Namespace) -> Path:
    """The folder of the model that an item runs on: the one that was asked for, or the random one of its vocabulary."""
    return arguments.model or arguments.models / f"qwen2-v{item.vocabulary}"


def result_lines(output: str) -> list[dict]:
    """The JSON result lines among whatever else a program prints."""
    lines = []
    for line in output.splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict) and {"name", "shape"} <= value.keys():
            lines.append(value)
    return lines


def call(program: Program, items: list[works.Item], arguments: argparse.Namespace, log: Path) -> list[dict]:
    """Runs one process of ``program`` for ``items`` and returns its lines; raises RuntimeError with the reason."""
    command = [*program.command, str(model_of(items[0], arguments)), *map(str, items)]
    command += ["--threads", str(arguments.threads)]
    if arguments.runs:
        command += ["--runs", str(arguments.runs)]
    elif program.name == RLT:
        command += ["--runs", str(works.RUNS[items[0].name])]
    for attempt in range(RETRIES + 1):
        with timing.Watch() as watch, log.open("a") as errors:
            print("$", shlex.join(command), file=errors, flush=True)
            try:
                done = subprocess.run(
                    command,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    timeout=PROCESS_TIMEOUT_S,
                    env={**os.environ, **program.environment},
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RuntimeError(str(error)) from error
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}; see {log}")
        if program.watches_itself or not watch.disturbed or attempt == RETRIES:
            break
        say(f"    others used {watch.foreign_cores:.2f} of a core: again")
    lines = result_lines(done.stdout)
    missing = [str(i) for i in items if not any(line["name"] == i.name and line["shape"] == i.shape for line in lines)]
    if missing:
        raise RuntimeError(f"printed no result for {', '.join(missing)}; see {log}")
    for line in lines:
        line.setdefault("program", program.name)
        if not program.watches_itself:
            line["disturbed_runs"] = int(watch.disturbed)
            line["discarded_runs"] = attempt
    return lines


def one_round(number: int, programs: list[Program], arguments: argparse.Namespace, failures: list[str]) -> list[dict]:
    lines, served = [], set()
    for item in arguments.items:
        able = [program for program in programs if item.name in program.works]
        for program in able if number % 2 == 0 else reversed(able):
            if (program.name, item) in served:
                continue
            items = [item]
            if program.shares_process:
                items = [i for i in arguments.items if i.name in program.works and i.vocabulary == item.vocabulary]
            served.update((program.name, i) for i in items)
            say(f"  {program.name}: {' '.join(map(str, items))}")
            try:
                fresh = call(program, items, arguments, arguments.out / f"{program.name.replace(' ', '-')}.log")
            except RuntimeError as error:
                failures.append(f"{program.name}, {' '.join(map(str, items))}: {error}")
                say(f"    failed: {error}")
                continue
            lines += [{**line, "round": number} for line in fresh]
    return lines


@dataclass
class Figure:
    """What one program did on one item over all rounds."""

    seconds: float
    seconds_by_round: dict[int, float]
    peak_mb: float
    disturbed: bool


def figures(lines: list[dict], item: works.Item) -> dict[str, Figure]:
    """Figures of ``item`` by program, in the order of their first appearance."""
    found: dict[str, list[dict]] = {}
    for line in lines:
        if (line["name"], line["shape"]) == (item.name, item.shape) and "median_s" in line:
            found.setdefault(line["program"], []).append(line)
    return {
        program: Figure(
            seconds=statistics.median(s for line in own for s in line.get("all_s") or [line["median_s"]]),
            seconds_by_round={line["round"]: line["median_s"] for line in own},
            peak_mb=max(line["peak_rss_mb"] for line in own),
            disturbed=any(line.get("disturbed_runs") for line in own),
        )
        for program, own in found.items()
    }


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; the first two columns are words, the rest numbers."""
    ruler = ["---"] * 2 + ["---:"] * (len(header) - 2)
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ruler, *rows])


def ratio_table(lines: list[dict], items: list[works.Item]) -> str:
    """rlt against each peer. The bracket is the range of the ratio over rounds; ``*`` marks disturbed runs."""
    rows = []
    for item in items:
        by_program = figures(lines, item)
        ours = by_program.pop(RLT, None)
        for peer, theirs in by_program.items():
            row = [f"{item.name} {item.shape}", peer, rate(item, theirs)]
            if ours:
                common = ours.seconds_by_round.keys() & theirs.seconds_by_round.keys()
                ratios = [theirs.seconds_by_round[r] / ours.seconds_by_round[r] for r in common]
                spread = f" ({min(ratios):.2f}-{max(ratios):.2f})" if len(ratios) > 1 else ""
                row += [rate(item, ours), f"{theirs.seconds / ours.seconds:.2f}{spread}"]
                row += [f"{theirs.peak_mb:,.0f}", f"{ours.peak_mb:,.0f}", f"{ours.peak_mb / theirs.peak_mb:.2f}"]
            else:
                row += ["-", "-", f"{theirs.peak_mb:,.0f}", "-", "-"]
            rows.append(row)
        if ours and not by_program and item.name != "gemm":
            label = f"{item.name} {item.shape}"
            rows.append([label, "-", "-", rate(item, ours), "-", "-", f"{ours.peak_mb:,.0f}", "-"])
    header = ["work", "peer", "peer tokens/s", "rlt tokens/s", "rlt / peer"]
    return table([*header, "peer MiB", "rlt MiB", "MiB rlt / peer"], rows)


def rate(item: works.Item, figure: Figure) -> str:
    """``1,234 (0.56 s)``, starred when a disturbed run had to be kept."""
    return f"{item.tokens / figure.seconds:,.0f} ({figure.seconds:.3g} s){'*' if figure.disturbed else ''}"


def roof_table(lines: list[dict], arguments: argparse.Namespace) -> str:
    """GEMM rates of this machine, and how much of the fastest each training step reaches."""
    products: dict[tuple[int, str], list[dict]] = {}
    for line in lines:
        if line["name"] == "gemm":
            vocabulary = works.Item(line["name"], line["shape"]).vocabulary
            products.setdefault((vocabulary, line["program"]), []).append(line)
    if not products:
        return ""
    roof: dict[int, float] = {}
    rows = []
    for (vocabulary, program), own in sorted(products.items()):
        gflops = max(line["gflops"] for line in own)
        square = max((line.get("square_gflops", 0.0) for line in own), default=0.0)
        roof[vocabulary] = max(roof.get(vocabulary, 0.0), gflops)
        rows.append([f"matrix products alone, vocabulary {vocabulary}", program, f"{gflops:.0f}", "-"])
        if square:
            rows.append(["one 2048-cubed product", program, f"{square:.0f}", "-"])
    for item in arguments.items:
        if item.name != "train_step" or item.vocabulary not in roof:
            continue
        config = json.loads((model_of(item, arguments) / "config.json").read_text())
        for program, figure in figures(lines, item).items():
            gflops = works.train_flops_per_token(config) * item.tokens / figure.seconds / 1e9
            share = f"{100 * gflops / roof[item.vocabulary]:.0f} %"
            rows.append([f"{item.name} {item.shape}", program, f"{gflops:.0f}", share])
    return table(["work", "program", "useful GFLOP/s", "of the fastest products"], rows)


def machine() -> str:
    """One line about the machine."""
    cpu, flags = "unknown processor", set()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            cpu = value.strip()
        elif key.strip() == "flags":
            flags = set(value.split())
    extensions = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu}, {os.cpu_count()} cores ({', '.join(extensions)}), {memory_gib:.0f} GiB, Linux {platform.release()}"


# What limits the instructions that a program uses. A machine may set some of them of itself.
LIMITS = ("RLT_SIMD", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "OPENBLAS_CORETYPE")


def limits() -> str:
    """The limits that are set, since they decide about a comparison."""
    present = [f"{name}={os.environ[name]}" for name in LIMITS if os.environ.get(name)]
    return f"; {', '.join(present)}" if present else ""


def commit() -> str:
    done = subprocess.run(["git", "-C", str(HERE), "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def write_docs(path: Path, text: str) -> None:
    """Replaces what stands between the two marker lines of ``path``."""
    before, begin, rest = path.read_text().partition(DOCS_BEGIN)
    _, end, after = rest.partition(DOCS_END)
    if not begin or not end:
        raise SystemExit(f"{path} lacks the lines {DOCS_BEGIN} and {DOCS_END}")
    path.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder with qwen2-v512 and qwen2-v2048")
    parser.add_argument("--model", type=Path, metavar="DIR", help="measure all items on this model instead")
    parser.add_argument("--out", type=Path, required=True, help="folder for results.json and the programs' logs")
    parser.add_argument("--rlt", required=True, help="command that runs rlt's side")
    parser.add_argument("--python", required=True, help="Python with PyTorch, transformers and TRL")
    parser.add_argument("--vllm-python", help="Python with vLLM; left out when absent")
    parser.add_argument("--vllm-preload", help="LD_PRELOAD for vLLM")
    parser.add_argument("--rounds", type=int, default=3, help="(default 3)")
    parser.add_argument("--arithmetic", choices=["f32", "bf16"], default="f32", help="of rlt's products (default f32)")
    parser.add_argument("--runs", type=int, help="timed runs of an item in a round (default: by work)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="(default: all cores)")
    parser.add_argument("--items", nargs="+", type=works.Item.parse, default=works.ITEMS, metavar="NAME:SHAPE")
    names = "rlt,matrix products,PyTorch,transformers,TRL,vLLM"
    parser.add_argument("--programs", default=names, help=f"names with commas (default {names})")
    parser.add_argument("--write-docs", type=Path, metavar="FILE", help="put the tables into this Markdown file")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    available = {program.name: program for program in known_programs(arguments)}
    programs = []
    for name in arguments.programs.split(","):
        if name in available:
            programs.append(available[name])
        elif name.startswith("vLLM"):
            say(f"{name} is left out: no environment for it")
        else:
            raise SystemExit(f"unknown program {name!r}; there are: {', '.join(available)}")

    lines, failures = [], []
    for number in range(arguments.rounds):
        say(f"round {number + 1} of {arguments.rounds}")
        lines += one_round(number, programs, arguments, failures)

    versions = sorted({line["version"] for line in lines if "version" in line})
    about = (
        f"{datetime.date.today()}, rlt {commit()}, {', '.join(versions)}; {machine()}; "
        f"{arguments.threads} threads, {arguments.rounds} rounds; rlt's products in {arguments.arithmetic}{limits()}."
    )
    parts = [about, ratio_table(lines, arguments.items), roof_table(lines, arguments)]
    text = "\n\n".join(part for part in parts if part)
    results = {"about": about, "lines": lines, "failures": failures}
    (arguments.out / "results.json").write_text(json.dumps(results, indent=1))
    print(text, flush=True)
    if failures:
        raise SystemExit("failed:\n" + "\n".join(failures))
    if arguments.write_docs:
        write_docs(arguments.write_docs, text)


if __name__ == "__main__":
    main()
