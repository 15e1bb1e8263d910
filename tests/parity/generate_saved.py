"""Whether what ``rlt sft`` saves stops in transformers where training taught it to: ``generate_saved.py RLT [FAMILY ..]``.

For each family a small base model of random weights is made, with a chat template and a ``generation_config.json`` of its own
(another end of text, temperature, top_p, pad and bos ids ..), and fine-tuned by the program RLT (``target/debug/rlt``) on a few
conversations until it knows them. The saved folder is then loaded by transformers alone: every weight has to be found and none
left over; the chat template renders a question as a prompt, ``model.generate`` writes greedily by the folder's own settings, and
the answer has to end where the taught ones do, with the turn's end; the base's settings must still be there. Exit code 0 means all
of that.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

SHAPE = dict(
    hidden_size=64,
    intermediate_size=128,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
    tie_word_embeddings=True,
)
WINDOW = dict(sliding_window=12)
FAMILIES = {
    "llama": ("LlamaForCausalLM", {}),
    "mistral": ("MistralForCausalLM", WINDOW),
    "qwen2": ("Qwen2ForCausalLM", {}),
    "qwen3": ("Qwen3ForCausalLM", {}),
    "gemma3_text": (
        "Gemma3ForCausalLM",
        WINDOW | dict(query_pre_attn_scalar=16, layer_types=["sliding_attention", "full_attention"], num_hidden_layers=2),
    ),
}
SPECIAL = ["<pad>", "<s>", "<eot>", "<turn>", "<end_turn>"]
TEMPLATE = (
    "{% for message in messages %}{{ '<turn>' + message['role'] + '\n' + message['content'] + '<end_turn>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}"
)
ROWS = [
    {"question": f"{a} and {b}?", "reasoning_trace": f"From {a} up {b}.", "solution": f"It is {a + b}."}
    for a, b in [(1, 2), (3, 5), (7, 4), (2, 6)]
]


def make_base(folder: Path, model_type: str, architecture: str, own: dict) -> dict:
    """A folder without weights. Returns its generation settings."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    folder.mkdir(parents=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    settings = dict(
        bos_token_id=ids["<s>"],
        pad_token_id=ids["<pad>"],
        eos_token_id=ids["<eot>"],
        do_sample=True,
        temperature=0.6,
        top_p=0.95,
        top_k=20,
        transformers_version="4.50.0",
    )
    config = dict(architectures=[architecture], model_type=model_type, vocab_size=tokenizer.get_vocab_size()) | SHAPE | own
    config |= {key: settings[key] for key in ("bos_token_id", "pad_token_id", "eos_token_id")}
    of_tokenizer = dict(
        tokenizer_class="PreTrainedTokenizerFast", bos_token="<s>", eos_token="<eot>", pad_token="<pad>", chat_template=TEMPLATE
    )
    for name, content in [("config", config), ("generation_config", settings), ("tokenizer_config", of_tokenizer)]:
        (folder / f"{name}.json").write_text(json.dumps(content, indent=2))
    return settings


def train(rlt: str, work: Path, base: Path, run: Path) -> Path:
    data = work / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    config = Path(__file__).parents[2] / "configs/tests/sft.toml"
    command = [rlt, "sft", "--config", str(config), f"run_dir={run}", f"model.path={base}", f"data.path={data}"]
    command += ["checkpoint.every=0", "sft.batch_rows=4", "sft.epochs=150"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}:\n{done.stderr}")
    return run / "model"


@torch.inference_mode()
def check(what: str, folder: Path, settings: dict) -> None:
    model, info = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    problems = {key: value for key, value in info.items() if value}
    assert not problems, f"{what}: {problems}"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    turn_end = tokenizer.convert_tokens_to_ids("<end_turn>")

    saved = json.loads((folder / "generation_config.json").read_text())
    assert saved.pop("eos_token_id") == [turn_end, settings["eos_token_id"]], f"{what}: {saved}"
    kept = {key: value for key, value in settings.items() if key != "eos_token_id"}
    assert saved == kept, f"{what}: {saved} instead of {kept}"
    generation = model.generation_config
    assert generation.eos_token_id == [turn_end, settings["eos_token_id"]], f"{what}: {generation}"
    for key in ("temperature", "top_p", "top_k", "do_sample", "bos_token_id", "pad_token_id"):
        assert getattr(generation, key) == settings[key], f"{what}: {key} = {getattr(generation, key)}"

    stopped = 0
    for row in ROWS:
        messages = [{"role": "user", "content": row["question"]}]
        prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
        written = model.generate(ids, do_sample=False, max_new_tokens=200)[0, ids.shape[1] :].tolist()
        text = tokenizer.decode(written)
        assert written[-1] == turn_end and turn_end not in written[:-1], f"{what}: {text!r} does not stop"
        assert text.endswith("<|end_of_solution|><end_turn>"), f"{what}: {text!r}"
        stopped += len(written) < 200
    print(f"{what}: eos {generation.eos_token_id}, {stopped} of {len(ROWS)} answers stop at the turn's end, e.g. {text!r}")


def main() -> None:
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    rlt, only = sys.argv[1], sys.argv[2:]
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        for model_type, (architecture, own) in FAMILIES.items():
            if only and model_type not in only:
                continue
            base = work / model_type / "base"
            settings = make_base(base, model_type, architecture, own)
            check(model_type, train(rlt, work, base, work / model_type / "run"), settings)


if __name__ == "__main__":
    main()
