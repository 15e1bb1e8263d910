"""Generation and log-probabilities of given tokens with transformers, f32 eager sdpa."""

import torch
import transformers
from transformers import AutoModelForCausalLM

import timing
import works

# Rows of one scoring forward: 64 x 512 x 2048 logits at once would only measure memory.
SCORING_ROWS = 8


def generation(model, sequences: int):
    """A function that samples the new tokens for each of ``sequences`` different prompts, none ending early."""
    shape = (sequences, works.PROMPT_TOKENS)
    prompts_BT = torch.randint(works.FIRST_PLAIN_TOKEN, model.config.vocab_size, shape)

    def run() -> None:
        output_BT = model.generate(
            prompts_BT,
            attention_mask=torch.ones_like(prompts_BT),
            do_sample=True,
            temperature=works.TEMPERATURE,
            top_k=0,
            top_p=1.0,
            min_new_tokens=works.NEW_TOKENS,
            max_new_tokens=works.NEW_TOKENS,
            pad_token_id=0,
        )
        assert output_BT.shape == (sequences, works.PROMPT_TOKENS + works.NEW_TOKENS)

    return run


def scoring(model, sequences: int, length: int):
    """A function that gives the log-probability of every token but the first of ``sequences`` sequences."""
    ids_BT = torch.randint(works.FIRST_PLAIN_TOKEN, model.config.vocab_size, (sequences, length))

    def run() -> None:
        for rows_BT in ids_BT.split(SCORING_ROWS):
            logits_BTV = model(input_ids=rows_BT, use_cache=False).logits[:, :-1]
            chosen_BT = logits_BTV.gather(-1, rows_BT[:, 1:, None]).squeeze(-1)
            logprobs_BT = chosen_BT - logits_BTV.logsumexp(-1)
            assert logprobs_BT.shape == (len(rows_BT), length - 1)

    return run


@torch.inference_mode()
def main() -> None:
    arguments = works.parse_program_arguments(__doc__)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="sdpa"
    ).eval()

    for item in arguments.items:
        work = generation(model, item.dims[0]) if item.name == "generate" else scoring(model, *item.dims)
        timing.reset_peak_memory()
        measured = timing.repeat(work, arguments.runs or works.RUNS[item.name], warm_ups=1)
        works.print_result(
            item,
            "transformers",
            measured,
            peak_rss_mb=timing.peak_memory_mb(),
            version=f"transformers {transformers.__version__}",
        )


if __name__ == "__main__":
    main()
