"""The works that are measured, and the command line every measured program shares.

A program is called as ``PROGRAM MODEL_DIR ITEM [ITEM ..] --runs N``. An item is ``NAME:SHAPE``, for
example ``train_step:16x256``; a program prints one JSON object a line, one for each item (see README.md).
Only the standard library is used: the driver imports this file outside any virtual environment.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

PROMPT_TOKENS = 256
NEW_TOKENS = 256
QUESTIONS = 8
COMPLETIONS_PER_QUESTION = 8
TEMPERATURE = 0.7
KL_BETA = 0.04
SMALL_VOCABULARY = 512
LARGE_VOCABULARY = 2048
# Ids 0..2 are the special tokens of both tokenizers; made-up prompts keep clear of them.
FIRST_PLAIN_TOKEN = 3


@dataclass(frozen=True)
class Item:
    """One work at one shape."""

    name: str
    shape: str

    @classmethod
    def parse(cls, text: str) -> "Item":
        name, _, shape = text.partition(":")
        if name not in RUNS or not shape:
            raise argparse.ArgumentTypeError(f"{text!r}: expected NAME:SHAPE with NAME one of {', '.join(RUNS)}")
        return cls(name, shape)

    def __str__(self) -> str:
        return f"{self.name}:{self.shape}"

    @property
    def vocabulary(self) -> int:
        """Vocabulary of the model that this item runs on; a suffix ``v512`` in the shape asks for the small one."""
        return SMALL_VOCABULARY if self.shape.endswith(f"v{SMALL_VOCABULARY}") else LARGE_VOCABULARY

    @property
    def dims(self) -> tuple[int, ...]:
        """The numbers of the shape, without the vocabulary suffix: ``32x128v512`` is (32, 128)."""
        return tuple(int(part) for part in self.shape.partition("v")[0].split("x"))

    @property
    def tokens(self) -> int:
        """Tokens that one run is credited with.

        Training and log-probabilities count every token of the batch, generation and GRPO the new tokens, the
        reward the think tokens.
        """
        match self.name:
            case "train_step" | "gemm" | "logprobs" | "score" | "score_recorded":
                batch, length = self.dims
                return batch * length
            case "generate":
                return self.dims[0] * NEW_TOKENS
            case _:
                questions, completions, length = self.dims
                return questions * completions * length


# The scoring works: a student's prompt, a solution and the tags about it. With 512 think tokens both models read
# sequences of 1,100.
SCORED_QUESTION_TOKENS = 300
SCORED_SOLUTION_TOKENS = 256
SCORED_TAG_TOKENS = 32
# Timed runs of each work in one round; the number of rounds multiplies them.
RUNS = {"gemm": 3, "train_step": 5, "generate": 3, "logprobs": 3, "score": 1, "score_recorded": 1, "grpo_step": 2}

ITEMS = [
    Item("gemm", "32x128v512"),
    Item("gemm", "16x256"),
    Item("train_step", "32x128v512"),
    Item("train_step", "16x256"),
    Item("train_step", "4x1024"),
    Item("generate", "1"),
    Item("generate", "16"),
    Item("generate", "64"),
    Item("logprobs", "64x512"),
    Item("score", "64x512"),
    Item("score_recorded", "64x512"),
    Item("grpo_step", "8x8x256"),
]


def parse_program_arguments(description: str, **extra) -> argparse.Namespace:
    """Parses the common command line; ``extra`` maps further option names to add_argument keywords."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("model", type=Path, help="model folder in Hugging Face layout")
    parser.add_argument("items", nargs="+", type=Item.parse, metavar="NAME:SHAPE")
    parser.add_argument("--runs", type=int, help="timed runs of each item (default: by work)")
    parser.add_argument("--threads", type=int, default=2, help="worker threads (default 2)")
    for name, keywords in extra.items():
        parser.add_argument(f"--{name}", **keywords)
    return parser.parse_args()


# The option of programs that know two precisions.
DTYPES = ("float32", "bfloat16")
DTYPE_OPTION = {"dtype": {"default": DTYPES[0], "choices": DTYPES}}


def at_precision(program: str, dtype: str) -> str:
    """The name of ``program`` at a precision; f32 goes without saying."""
    return program if dtype == DTYPES[0] else f"{program} {dtype}"


def print_result(item: Item, program: str, measured: dict, **fields) -> None:
    """Prints the JSON line of one item; ``measured`` comes from ``timing.repeat``."""
    line = {"name": item.name, "shape": item.shape, "program": program}
    if "median_s" in measured:
        line["tokens_per_s"] = item.tokens / measured["median_s"]
    print(json.dumps({**line, **measured, **fields}), flush=True)


def step_matmuls(config: dict) -> list[tuple[str, int, int, int]]:
    """Weight matrices that one token passes through: (name, inputs, outputs, count), from a config.json.

    Projections that read the same input are counted as one matrix (QKV, gate and up), as a fused
    implementation would multiply them. Attention scores are left out, and so is the embedding lookup;
    the output head is in, tied or not.
    """
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    head = config.get("head_dim") or width // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    hidden = config["intermediate_size"]
    return [
        ("qkv", width, queries + 2 * keys, layers),
        ("attention output", queries, width, layers),
        ("gate and up", width, 2 * hidden, layers),
        ("down", hidden, width, layers),
        ("head", width, config["vocab_size"], 1),
    ]


def train_flops_per_token(config: dict) -> int:
    """Useful floating-point operations of forward and backward per token: 6 for each weight of ``step_matmuls``."""
    return 6 * sum(inputs * outputs * count for _, inputs, outputs, count in step_matmuls(config))
