"""Writes the model that every program is measured on: ``make_model.py OUT_DIR VOCABULARY TEXT [TEXT ..]``.

A Qwen2-style decoder with random weights (width 256, 6 layers, 8 query and 4 key/value heads, feed-forward
704, tied embeddings) and a byte-level BPE tokenizer of exactly VOCABULARY tokens trained on the text files.
Speed depends on neither the text nor the weights; the tokenizer is real because TRL wants prompts as text.
"""

import argparse
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train_tokenizer(texts: list[Path], vocabulary: int) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((path.read_text(errors="ignore") for path in texts), trainer)
    if bpe.get_vocab_size() != vocabulary:
        raise SystemExit(f"the text gives {bpe.get_vocab_size()} of {vocabulary} tokens: name more files")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("vocabulary", type=int)
    parser.add_argument("texts", type=Path, nargs="+")
    arguments = parser.parse_args()

    tokenizer = train_tokenizer(arguments.texts, arguments.vocabulary)
    tokenizer.save_pretrained(arguments.out)
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=arguments.vocabulary,
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=8,
            num_key_value_heads=4,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(arguments.out)
    print(f"{arguments.out}: {model.num_parameters():,} parameters")


if __name__ == "__main__":
    main()
