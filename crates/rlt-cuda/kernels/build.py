#!/usr/bin/env python3
"""PTX of every kernel file, by the compiler that all use: build.py [--check] [--table] [--sass] [--cubin ARCHITECTURE DIR]

Needs Python 3 with pip, x86-64 Linux and no CUDA: the compiler (NVRTC) comes from PyPI, in the version below, into target/nvrtc.
With --check nothing is written, and a PTX file that is not what the compiler makes of its source is an error.
With --table ptxas assembles every file for every architecture, and the registers and spills of each kernel are printed as Markdown.
With --sass it assembles them for two, and the instructions that the machine gets of each kernel are counted; a kernel that asks for tensor
cores, their loads or copies that go on by themselves, and does not get them, is an error.
With --cubin the sources are compiled for one architecture, such as sm_90a, into files of a folder that RLT_CUDA_KERNELS may name."""
import ctypes
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# PTX 8.4 of this release is read by drivers from CUDA 12.4 (550) on.
COMPILER = ["nvidia-cuda-nvrtc-cu12==12.4.127"]
ASSEMBLER = ["nvidia-cuda-nvcc-cu12==12.9.86"]
DISASSEMBLER = ["nvidia-cuda-nvdisasm==13.5.37"]
OPTIONS = ["--std=c++17", "--device-as-default-execution-space"]
ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]
# What PTX asks for, and the machine's instruction that it must become.
ASKED = {"mma.sync": "HMMA", "ldmatrix": "LDSM", "cp.async": "LDGSTS"}
COUNTED = [*ASKED.values(), "FFMA", "LDG", "STG", "LDS", "STS", "SHFL", "BAR"]
SASS_ARCHITECTURES = ["sm_80", "sm_90"]

here = Path(__file__).resolve().parent
target = Path(os.environ.get("CARGO_TARGET_DIR", here.parents[2] / "target")) / "nvrtc"


def installed(packages):
    """A folder with these packages of PyPI, downloaded once."""
    folder = target / packages[0]
    if not (folder / "complete").exists():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", str(folder), *packages]
        subprocess.run(command, check=True)
        (folder / "complete").touch()
    return folder / "nvidia"


class Compiler:
    def __init__(self):
        folder = installed(COMPILER) / "cuda_nvrtc" / "lib"
        ctypes.CDLL(str(next(folder.glob("libnvrtc-builtins.so*"))), mode=ctypes.RTLD_GLOBAL)
        self.library = ctypes.CDLL(str(next(folder.glob("libnvrtc.so*"))))

    def call(self, name, *arguments):
        return getattr(self.library, "nvrtc" + name)(*arguments)

    def output(self, program, what):
        size = ctypes.c_size_t()
        self.call(f"Get{what}Size", program, ctypes.byref(size))
        output = ctypes.create_string_buffer(size.value)
        self.call(f"Get{what}", program, output)
        return output.raw

    def compiled(self, source, architecture):
        """The program of a source file for an architecture."""
        program = ctypes.c_void_p()
        # Headers by their names: the folder a file lies in must not show in what is compiled.
        headers = sorted(here.glob("*.cuh"))
        texts = (ctypes.c_char_p * len(headers))(*(header.read_bytes() for header in headers))
        names = (ctypes.c_char_p * len(headers))(*(header.name.encode() for header in headers))
        self.call("CreateProgram", ctypes.byref(program), source.read_bytes(), source.name.encode(), len(headers), texts, names)
        options = [f"--gpu-architecture={architecture}", *OPTIONS]
        given = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if self.call("CompileProgram", program, len(options), given):
            sys.exit(f"{source.name}: {self.output(program, 'ProgramLog').decode()}")
        return program

    def ptx(self, source):
        return self.output(self.compiled(source, "compute_80"), "PTX").rstrip(b"\0").decode()

    def cubin(self, source, architecture):
        return self.output(self.compiled(source, architecture), "CUBIN")


def program(packages, *path):
    found = installed(packages).joinpath(*path)
    found.chmod(0o755)
    return str(found)


def table(files):
    ptxas = program(ASSEMBLER, "cuda_nvcc", "bin", "ptxas")
    found = {}
    for file in files:
        for architecture in ARCHITECTURES:
            command = [ptxas, "-v", f"-arch={architecture}", "-o", os.devnull, str(file)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
            for kernel in re.split(r"Compiling entry function '", said)[1:]:
                name = kernel.split("'")[0]
                registers = re.search(r"Used (\d+) registers", kernel).group(1)
                spilled = re.search(r"(\d+) bytes spill stores", kernel).group(1)
                found.setdefault((file.stem, name), []).append(registers + (f" ({spilled} B)" if spilled != "0" else ""))
    print("| kernel | " + " | ".join(ARCHITECTURES) + " |\n|---|" + "---|" * len(ARCHITECTURES))
    for (file, name), cells in found.items():
        print(f"| `{file}.cu` {name} | " + " | ".join(cells) + " |")


def sass(files):
    ptxas, nvdisasm = program(ASSEMBLER, "cuda_nvcc", "bin", "ptxas"), program(DISASSEMBLER, "cu13", "bin", "nvdisasm")
    missing = []
    print("| kernel | architecture | " + " | ".join(COUNTED) + " |\n|---|---|" + "---|" * len(COUNTED))
    for file in files:
        entries = re.split(r"\.visible \.entry (\w+)", file.read_text())[1:]
        asked = dict(zip(entries[::2], entries[1::2]))
        for architecture in SASS_ARCHITECTURES:
            with tempfile.NamedTemporaryFile(suffix=".cubin") as cubin:
                subprocess.run([ptxas, f"-arch={architecture}", "-o", cubin.name, str(file)], check=True)
                said = subprocess.run([nvdisasm, "-c", cubin.name], check=True, capture_output=True, text=True).stdout
            for text in re.split(r"^\.text\.", said, flags=re.MULTILINE)[1:]:
                name = text.split(":")[0]
                words = re.findall(r"^\s+/\*\w+\*/\s+(?:@!?U?P\w+\s+)?(\w+)", text, flags=re.MULTILINE)
                counts = {instruction: words.count(instruction) for instruction in COUNTED}
                print(f"| `{file.stem}.cu` {name} | {architecture} | " + " | ".join(str(n) for n in counts.values()) + " |")
                missing += [
                    f"{name} on {architecture} has no {instruction}"
                    for word, instruction in ASKED.items()
                    if word in asked.get(name, "") and not counts[instruction]
                ]
    if missing:
        sys.exit("; ".join(missing))


def fingerprint(ptx):
    """What tells one version of the kernels from another (FNV-1a): src/catalogue.rs computes the same."""
    number = 0xCBF29CE484222325
    for byte in ptx.encode():
        number = (number ^ byte) * 0x100000001B3 % 2**64
    return f"{number:016x}"


def main():
    check = "--check" in sys.argv
    compiler, stale = Compiler(), []
    if "--cubin" in sys.argv:
        architecture, folder = sys.argv[sys.argv.index("--cubin") + 1 :][:2]
        Path(folder).mkdir(parents=True, exist_ok=True)
        for source in sorted(here.glob("*.cu")):
            name = f"{source.stem}-{fingerprint(source.with_suffix('.ptx').read_text())}.cubin"
            Path(folder, name).write_bytes(compiler.cubin(source, architecture))
        return
    for source in sorted(here.glob("*.cu")):
        made, file = compiler.ptx(source), source.with_suffix(".ptx")
        if check:
            stale += [file.name] * (not file.exists() or file.read_text() != made)
        else:
            file.write_text(made)
    if stale:
        sys.exit(f"not what the compiler makes of their sources: {', '.join(stale)}; run {Path(__file__).name}")
    if "--table" in sys.argv:
        table(sorted(here.glob("*.ptx")))
    if "--sass" in sys.argv:
        sass(sorted(here.glob("*.ptx")))


main()
