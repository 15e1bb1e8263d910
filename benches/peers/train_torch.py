"""One supervised training step in PyTorch with transformers' model: forward, backward, fused AdamW.

``--mode f32`` is eager f32 with sdpa attention; ``bf16`` runs the forward under autocast; ``compile`` and
``bf16-compile`` put ``torch.compile`` in front (they need a C++ compiler).
"""

import torch
import transformers
from transformers import AutoModelForCausalLM

import timing
import works


def main() -> None:
    arguments = works.parse_program_arguments(
        __doc__, mode={"default": "f32", "choices": ["f32", "bf16", "compile", "bf16-compile"]}
    )
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    program = "PyTorch" if arguments.mode == "f32" else f"PyTorch {arguments.mode}"

    model = AutoModelForCausalLM.from_pretrained(
        arguments.model, dtype=torch.float32, attn_implementation="sdpa"
    ).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    forward = torch.compile(model) if "compile" in arguments.mode else model

    for item in arguments.items:
        ids_BT = torch.randint(works.FIRST_PLAIN_TOKEN, model.config.vocab_size, item.dims)

        def step() -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled="bf16" in arguments.mode):
                loss = forward(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            assert torch.isfinite(loss), "the loss is not finite"

        timing.reset_peak_memory()
        measured = timing.repeat(step, arguments.runs or works.RUNS[item.name], warm_ups=2)
        works.print_result(
            item, program, measured, peak_rss_mb=timing.peak_memory_mb(), version=f"torch {torch.__version__}"
        )


if __name__ == "__main__":
    main()
