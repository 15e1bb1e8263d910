"""Compares `rlt grade` with Hugging Face's math-verify, pair by pair.

    python3 -m venv /tmp/mv && /tmp/mv/bin/pip install math-verify==0.9.0
    cargo build
    /tmp/mv/bin/python tests/parity/grading_pairs.py --rlt target/debug/rlt --data ../shared/data/eval

Pairs are made by rules, so that it is known whether they are equal: `truth`. Those made from nothing are
written to crates/rlt-grade/tests/golden/grading_pairs.jsonl with math-verify's verdicts, for tests without Python; those made of
benchmark answers stay in memory. Prints agreement, false accepts of both, and every disagreement.
"""

import argparse
import json
import logging
import pathlib
import random
import subprocess
import tempfile

logging.disable(logging.CRITICAL)
rng = random.Random(7)
pairs = []


def pair(form, gold, answer, truth, source="made"):
    pairs.append({"form": form, "gold": gold, "answer": answer, "truth": truth, "source": source})


def ri(a, b):
    return rng.randint(a, b)


def frac(a, b, style=0):
    if a < 0:
        return "-" + frac(-a, b, style)
    return [f"\\frac{{{a}}}{{{b}}}", f"\\dfrac{{{a}}}{{{b}}}", f"{a}/{b}", f"\\frac {{{a}}} {{{b}}}"][style]


def coprime():
    from math import gcd
    while True:
        a, b = ri(1, 40), ri(2, 40)
        if gcd(a, b) == 1:
            return a, b


def made():
    for _ in range(45):
        n = ri(-9999, 99999)
        pair("integer", str(n), rng.choice([f"{n}", f"{n}.0", f" {n} ", f"{n}."]), True)
        pair("integer", str(n), str(n + rng.choice([-10, -1, 1, 2, 100])), False)
    for _ in range(25):
        n = ri(1000, 9_999_999)
        pair("thousands", str(n), f"{n:,}", True)
        pair("thousands", f"{n:,}".replace(",", ",\\!"), str(n), True)
        pair("thousands", str(n), f"{n + 1000:,}", False)
    for _ in range(30):
        a, p = ri(1, 99999), ri(1, 4)
        d = f"{a / 10**p:.{p}f}"
        pair("decimal", d, frac(a, 10**p), True)
        pair("decimal", frac(a, 10**p), d, True)
        pair("decimal", d, f"{(a + 1) / 10**p:.{p}f}", False)
    for _ in range(40):
        a, b = coprime()
        k = ri(2, 5)
        pair("fraction", frac(a, b), frac(a, b, ri(1, 3)), True)
        pair("fraction", frac(a, b), frac(a * k, b * k), True)
        pair("fraction", "-" + frac(a, b), frac(-a, b, 2), True)
        pair("fraction", frac(a, b), frac(a + b + 1, b), False)
        pair("fraction", frac(a, b), frac(b, a) if a != b else "2", False)
    for _ in range(25):
        w, a, b = ri(1, 20), ri(1, 8), ri(9, 15)
        mixed = f"{w}\\frac{{{a}}}{{{b}}}"
        pair("mixed number", mixed, frac(w * b + a, b), True)
        pair("mixed number", frac(w * b + a, b), mixed, True)
        pair("mixed number", mixed, frac(w * a, b), False)
    for _ in range(25):
        n = ri(1, 99)
        pair("percentage", f"{n}\\%", f"{n}", True)
        pair("percentage", f"{n}\\%", frac(n, 100), True)
        pair("percentage", f"{n}\\%", f"{n + 1}\\%", False)
    units = ["cm", "meters", "degrees", "inches", "feet", "hours", "dollars"]
    for _ in range(25):
        n, u = ri(1, 500), rng.choice(units)
        pair("unit", f"{n} \\text{{ {u}}}", str(n), True)
        pair("unit", str(n), f"{n} \\text{{ {u}}}", True)
        pair("unit", f"{n}^\\circ", str(n), True)
        pair("unit", f"{n} \\text{{ {u}}}", f"{n + 1} \\text{{ {u}}}", False)
    for _ in range(35):
        a, b, c = ri(2, 9), ri(2, 30), ri(2, 9)
        pair("root", f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b}}}", True)
        pair("root", f"\\sqrt{{{b}}}", f"{b}^{{1/2}}", True)
        pair("root", f"\\frac{{{a}}}{{\\sqrt{{{b}}}}}", f"\\frac{{{a}\\sqrt{{{b}}}}}{{{b}}}", True)
        pair("root", f"{a}+{c}\\sqrt{{{b}}}", f"{c}\\sqrt{{{b}}}+{a}", True)
        pair("root", f"{a}\\sqrt{{{b}}}", f"\\sqrt{{{a * a * b + 1}}}", False)
        pair("root", f"{a}+{c}\\sqrt{{{b}}}", f"{a}-{c}\\sqrt{{{b}}}", False)
    for _ in range(25):
        a, k = ri(2, 9), ri(2, 200)
        pair("power", f"{a}^{{{k}}}", f"{a} \\cdot {a}^{{{k - 1}}}", True)
        pair("power", f"{a}^{{{k}}}", f"{a}^{{{k + 1}}}", False)
        small = ri(2, 6)
        pair("power", f"{a}^{{{small}}}", str(a**small), True)
        pair("power", f"{a}^{{-{small}}}", frac(1, a**small), True)
    for _ in range(30):
        a, b = coprime()
        pair("pi and e", f"\\frac{{{a}\\pi}}{{{b}}}", f"\\frac{{{a}}}{{{b}}}\\pi", True)
        pair("pi and e", f"{a}\\pi + {b}", f"{b} + {a} \\pi", True)
        pair("pi and e", f"{a}e^{{{b}}}", f"e^{{{b}}} \\cdot {a}", True)
        pair("pi and e", f"{a}\\pi", f"{a + 1}\\pi", False)
        pair("pi and e", f"{a}\\pi", f"{a}", False)
    for _ in range(25):
        a, b, c = ri(-9, 9), ri(-9, 9), ri(10, 19)
        p, q = coprime()
        pair("tuple", f"({a},{b})", f"\\left( {a}, {b} \\right)", True)
        pair("tuple", f"({a},{frac(p, q)})", f"({a}, {frac(p, q, 2)})", True)
        pair("tuple", f"({a},{b},{c})", f"({a}, {b}, {c})", True)
        pair("tuple", f"({a},{b},{c})", f"({c}, {b}, {a})", False)
        pair("tuple", f"({a},{b})", f"({a},{b + 1})", False)
    for _ in range(25):
        a = ri(-20, 10)
        b = a + ri(1, 20)
        for o, c in [("(", "]"), ("[", ")"), ("[", "]")]:
            pair("interval", f"{o}{a},{b}{c}", f"\\left{o} {a}, {b} \\right{c}", True)
        pair("interval", f"({a},{b}]", f"({a},{b})", False)
        pair("interval", f"[{a},{b}]", f"[{a},{b + 1}]", False)
        pair("interval", f"({a},\\infty)", f"({a}, +\\infty)", True)
        pair("union", f"(-\\infty,{a})\\cup({b},\\infty)", f"({b},\\infty) \\cup (-\\infty,{a})", True)
        pair("union", f"(-\\infty,{a})\\cup({b},\\infty)", f"(-\\infty,{a}] \\cup ({b},\\infty)", False)
        pair("inequality", f"x > {a}", f"{a} < x", True)
        pair("inequality", f"x > {a}", f"({a},\\infty)", True)
        pair("inequality", f"x \\le {a}", f"x \\leq {a}", True)
        pair("inequality", f"x > {a}", f"x \\ge {a}", False)
        pair("inequality", f"x > {a}", f"x > {a + 1}", False)
    for _ in range(25):
        items = rng.sample(range(-30, 60), 3)
        shuffled = items[::-1]
        text = ",".join(map(str, items))
        pair("set", f"\\{{{text}\\}}", f"\\{{{', '.join(map(str, shuffled))}\\}}", True)
        pair("set", text, ", ".join(map(str, shuffled)), True)
        pair("set", f"\\{{{text}\\}}", f"\\{{{items[0]}, {items[1]}\\}}", False)
        pair("set", text, ", ".join(map(str, [items[0], items[1], 77])), False)
        a, b = ri(1, 20), ri(2, 20)
        pair("plus minus", f"{a} \\pm \\sqrt{{{b}}}", f"{a}+\\sqrt{{{b}}}, {a}-\\sqrt{{{b}}}", True)
    for _ in range(25):
        v = [ri(-9, 9) for _ in range(4)]
        m = f"\\begin{{pmatrix}} {v[0]} & {v[1]} \\\\ {v[2]} & {v[3]} \\end{{pmatrix}}"
        pair("matrix", m, m.replace("pmatrix", "bmatrix").replace(" & ", "&"), True)
        w = v[:3] + [v[3] + 1]
        pair("matrix", m, f"\\begin{{pmatrix}} {w[0]} & {w[1]} \\\\ {w[2]} & {w[3]} \\end{{pmatrix}}", False)
    for _ in range(25):
        a, b, c = ri(2, 9), ri(2, 9), ri(1, 30)
        k = ri(2, 4)
        pair("equation", f"x={c}", str(c), True)
        pair("equation", f"y={a}x+{b}", f"y = {b} + {a}x", True)
        pair("equation", f"{a}x+{b}y={c}", f"{a * k}x+{b * k}y={c * k}", True)
        pair("equation", f"{a}x+{b}y={c}", f"{a}x+{b}y={c + 1}", False)
        pair("equation", f"x={c}", f"x={c + 1}", False)
    for _ in range(30):
        a, b, c = ri(1, 9), ri(1, 9), ri(2, 6)
        pair("expression", f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b}", True)
        pair("expression", f"{c}x^2-{b}", f"-{b}+{c} x^{{2}}", True)
        pair("expression", f"\\frac{{x+{a}}}{{{c}}}", f"\\frac{{x}}{{{c}}}+\\frac{{{a}}}{{{c}}}", True)
        pair("expression", f"(x+{a})(x+{b})", f"x^2+{a + b}x+{a * b + 1}", False)
        pair("expression", f"{c}x^2-{b}", f"{c}x^3-{b}", False)
        pair("expression", f"{c}n+{a}", f"{c}n-{a}", False)
        pair("complex number", f"{a}+{b}i", f"{b}i+{a}", True)
        pair("complex number", f"{a}+{b}i", f"{a}-{b}i", False)
    for letter in "ABCDE":
        pair("choice", f"\\text{{({letter})}}", letter, True)
        pair("choice", f"\\text{{({letter})}}", f"\\text{{({letter})}}", True)
        other = "ABCDE"["EABCD".index(letter)]
        pair("choice", f"\\text{{({letter})}}", f"\\text{{({other})}}", letter == other)
    names = ["Alice", "Bernard", "north", "odd", "ellipse", "hyperbola", "Thursday", "green"]
    for i, name in enumerate(names):
        pair("words", f"\\text{{{name}}}", name, True)
        pair("words", f"\\text{{{name}}}", f"\\text{{{name}}}", True)
        pair("words", f"\\text{{{name}}}", f"\\text{{{names[i - 1]}}}", False)


def golds(folder):
    """Each benchmark's answers, in its order."""
    def rows(name):
        return [json.loads(line) for line in (folder / name).open()]

    yield "aime24", [str(r["answer"]) for r in rows("aime24.jsonl")]
    yield "amc23", [str(r["answer"]) for r in rows("amc23.jsonl")]
    yield "math500", [r["answer"] for r in rows("math500.jsonl")]
    yield "gsm8k", [r["answer"].split("####")[1].strip() for r in rows("gsm8k_test.first200.jsonl")]
    yield "olymmath_easy", [r["answer"] for r in rows("olymmath_en_easy.jsonl")]
    yield "olymmath_hard", [r["answer"] for r in rows("olymmath_en_hard.jsonl")]
    yield "olympiadbench", [",".join(a.strip().strip("$") for a in r["final_answer"]) for r in rows("olympiadbench.first100.jsonl")]


def from_benchmarks(folder):
    for name, answers in golds(folder):
        for i, gold in enumerate(answers):
            rewrites = [gold.replace("dfrac", "frac").replace("\\frac{", "\\dfrac{"), gold.replace(" ", ""), f" {gold} "]
            # Without its spaces a command may swallow the letter behind it.
            usable = [r for r in rewrites if r != gold and "\\text" not in r and "\\cup" not in r] or [gold]
            pair("benchmark", gold, usable[i % len(usable)] if " " not in gold else usable[0], True, name)
            other = answers[(i + 1) % len(answers)]
            if i % 2 == 0 and other != gold:
                pair("benchmark", gold, other, None, name)


def from_outputs(path):
    """Answers that a model gave to MATH problems, right and wrong ones."""
    for line in path.open():
        row = json.loads(line)
        for answer in sorted(set(row["pred"])):
            if answer:
                pair("model output", row["gt"], answer, None, "eval_outputs")


def math_verify():
    from math_verify import parse, verify
    for p in pairs:
        try:
            gold = parse(f"${p['gold']}$", parsing_timeout=None)
            answer = parse(f"The answer is $\\boxed{{{p['answer']}}}$.", parsing_timeout=None)
            p["math_verify"] = bool(verify(gold, answer, timeout_seconds=None))
        except Exception:
            p["math_verify"] = False


def grade(rlt):
    with tempfile.TemporaryDirectory() as folder:
        data, out = pathlib.Path(folder, "pairs.jsonl"), pathlib.Path(folder, "verdicts.jsonl")
        with data.open("w") as file:
            for p in pairs:
                row = {"gold": p["gold"], "prediction": f"The answer is $\\boxed{{{p['answer']}}}$."}
                file.write(json.dumps(row) + "\n")
        subprocess.run([rlt, "grade", "--data", data, "--out", out, "-q"], check=True)
        for p, line in zip(pairs, out.open()):
            verdict = json.loads(line)
            p["rlt"], p["reason"] = verdict["correct"], verdict["reason"]


HARD = [
    ("\\frac{1}{3}", "0.333333", True), ("\\frac{1}{3}", "0.3333", False), ("\\frac{1}{3}", "0.33", False),
    ("\\sqrt{2}", "1.414214", True), ("\\sqrt{2}", "1.4142", False), ("\\pi", "3.14", False),
    ("0.5", "0.5\\%", False), ("0.0000672", "0.0000671", False), ("6.72 \\times 10^{-5}", "0.0000672", True),
    ("5.4 \\text{ cents}", "5.4 \\text{ dollars}", False), ("15\\text{ cm}^2", "15\\text{ cm}", False),
    ("(1,2)", "\\{1,2\\}", False), ("\\{1,2\\}", "(1,2)", False), ("1,2", "(1,2)", False), ("(1,2)", "[1,2]", False),
    ("(1,2)", "1<x<2", True), ("[-2,7]", "-2 \\le x \\le 7", True), ("x \\in [-2,7]", "[-2,7]", True),
    ("x=5", "y=5", False), ("f(x)=2x", "2x", True), ("f(x)=2x", "y=2x", False), ("x^2=4", "x=2", False),
    ("\\sqrt{x^2}", "x", False), ("\\frac{x^2-1}{x-1}", "x+1", True), ("\\sin^2 x", "1-\\cos^2 x", True),
    ("\\tan x", "\\frac{\\sin x}{\\cos x}", True), ("\\sin 2x", "2\\sin x\\cos x", True),
    ("\\ln 8", "3\\ln 2", True), ("\\log_2 8", "3", True), ("\\log x", "\\ln x", False), ("|x|", "x", False),
    ("\\binom{5}{2}", "10", True), ("5!", "120", True), ("\\frac{100!}{2^{50}}", "100!/2^{50}", True),
    ("\\binom{2n}{n}", "\\frac{(2n)!}{(n!)^2}", True), ("\\lfloor 7/2 \\rfloor", "3", True),
    ("\\sqrt[3]{-8}", "-2", True), ("\\sqrt[3]{54}", "3\\sqrt[3]{2}", True), ("(-8)^{1/3}", "-2", False),
    ("52_8", "52_{8}", True), ("52_8", "52_7", False), ("52_8", "42", False),
    ("\\frac{1}{2}\\pi r^2", "\\frac{\\pi r^2}{2}", True), ("2\\pi r", "\\pi r^2", False),
    ("x=1 \\text{ or } x=2", "1,2", True), ("x=1,x=2", "\\{1,2\\}", True), ("1,2,2", "1,2", None),
    ("(-\\infty,0)\\cup(0,\\infty)", "\\mathbb{R} \\setminus \\{0\\}", True),
    ("(0,9)\\cup(9,36)", "(0,36)\\setminus\\{9\\}", True), ("[1,3]\\cap[2,4]", "[2,3]", True),
    ("[0,\\infty)", "[0,\\infty]", None), ("-1<x<1", "1>x>-1", True), ("x \\ne 3", "x=3", False), ("2x>6", "x>3", True),
    ("-2x>6", "x>-3", False), ("-2x>6", "x<-3", True), ("y=2x+3", "2x-y+3=0", True), ("y=2x+3", "y-2x=3", True),
    ("3x+4y=12", "y = 3-\\frac{3}{4}x", True), ("x^2+y^2=4", "x^2+y^2=2", False), ("(x-1)^2+y^2=4", "x^2-2x+y^2=3", True),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "(1,2)", None),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\begin{pmatrix} 1 & 2 \\end{pmatrix}", False),
    ("2+3i", "3i+2", True), ("i", "-i", False), ("e^{i\\pi}", "-1", True), ("1+\\sqrt{-4}", "1+2i", True),
    ("2^{2020}", "4^{1010}", True), ("2^{2020}+1", "2^{2020}", False), ("10^{100}", "10^{100}+1", False),
    ("1,234", "1234", True), ("12,34", "1234", False), ("3:4", "\\frac{3}{4}", None), ("10\\%", "\\frac{1}{10}", True),
    ("\\text{Monday}", "Tuesday", False), ("\\text{yes}", "\\text{Yes}", True), ("\\text{(A)}", "A", True), ("A", "a", None),
    ("a+b", "b+a", True), ("ab", "ba", True), ("a^b", "b^a", False), ("\\alpha+1", "1+\\alpha", True), ("a_1+a_2", "a_2+a_1", True),
    ("12", "12.", True), ("12", "twelve", None), ("\\$12", "12", True), ("12", "012", None), ("0.1", ".1", True),
    ("1.20", "1.2", True), ("-0", "0", True), ("\\frac{0}{5}", "0", True), ("2\\frac{1}{3}", "\\frac{7}{3}", True),
    ("3 1/2", "3.5", True), ("\\sqrt{\\sqrt{16}}", "2", True), ("\\sqrt{3+2\\sqrt{2}}", "1+\\sqrt{2}", True),
    ("\\frac{1+\\sqrt5}{2}", "1.618", False), ("\\arctan 1", "\\frac{\\pi}{4}", True), ("\\cos\\frac{\\pi}{3}", "\\frac12", True),
    ("90^\\circ", "\\frac{\\pi}{2}", False), ("\\infty", "-\\infty", False), ("\\emptyset", "\\{\\}", True),
    ("n(n-1)", "n^2-n", True), ("2^{n+1}-2", "2(2^n-1)", True), ("\\frac{n(n+1)}{2}", "\\binom{n+1}{2}", True),
    ("(n-2)2^n+1", "1 + n 2^n - 2^{n+1}", True), ("\\sqrt{ab}", "\\sqrt{a}\\sqrt{b}", None),
]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rlt", required=True)
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--golden", type=pathlib.Path, default=pathlib.Path("crates/rlt-grade/tests/golden/grading_pairs.jsonl"))
    args = parser.parse_args()
    made()
    for gold, answer, truth in HARD:
        pair("by hand", gold, answer, truth)
    seen, unique = set(), []
    for p in pairs:
        if (p["gold"], p["answer"]) not in seen:
            seen.add((p["gold"], p["answer"]))
            unique.append(p)
    pairs[:] = unique
    n_made = len(pairs)
    if args.data:
        from_benchmarks(args.data)
        from_outputs(args.data.parent / "eval_outputs/math_cot_100x8.jsonl")
    math_verify()
    with args.golden.open("w") as file:
        for p in pairs[:n_made]:
            file.write(json.dumps({k: p[k] for k in ("form", "gold", "answer", "truth", "math_verify")}) + "\n")
    grade(args.rlt)

    n = len(pairs)
    agree = sum(p["rlt"] == p["math_verify"] for p in pairs)
    print(f"{n} pairs, {n_made} of them made, {n - n_made} of benchmark answers")
    print(f"agreement {agree}/{n} = {100 * agree / n:.2f} %")
    accepts = [p for p in pairs if p["rlt"] and not p["math_verify"]]
    print(f"right here only: {len(accepts)}, right there only: {n - agree - len(accepts)}")
    known = [p for p in pairs if p["truth"] is not None]
    unequal = [p for p in known if not p["truth"]]
    for who in ("rlt", "math_verify"):
        print(f"{who}: false accepts {sum(p[who] for p in unequal)} of {len(unequal)} unequal pairs, "
              f"false rejects {sum(not p[who] for p in known if p['truth'])} of {len(known) - len(unequal)} equal ones")
    shown = set()
    for p in pairs:
        wrong = p["truth"] is not None and p["rlt"] != p["truth"]
        if p["rlt"] == p["math_verify"] and not wrong:
            continue
        # Fourteen whole numbers with a full stop are one case.
        case = (p["form"], p["reason"]) if p["form"] == "integer" else (p["gold"], p["answer"])
        if case in shown:
            continue
        shown.add(case)
        right = {None: "a matter of taste", p["rlt"]: "rlt", p["math_verify"]: "math-verify"}
        who = right.get(p["truth"], "neither") if p["rlt"] != p["math_verify"] else "neither"
        word = {True: "equal", False: "different"}
        cells = [f"`{p['gold']}`".replace("|", "\\|"), f"`{p['answer']}`".replace("|", "\\|"), word[p["rlt"]], word[p["math_verify"]], who]
        print("| " + " | ".join(cells) + " |")


main()
