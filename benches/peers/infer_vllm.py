"""Generation and log-probabilities of given tokens with vLLM's CPU build.

Run it with libtcmalloc_minimal and the environment's libiomp5 preloaded, as run.sh does: vLLM is several times
slower without. One process serves all items, because it takes one to two minutes to start. Its peak memory is
the sum over its processes and covers loading, the key/value cache (``--cache-gib``) and all items.
"""

import os
import random

import timing
import works


def process_tree(root: int) -> list[int]:
    """``root`` and its living descendants."""
    found = [root]
    for pid in found:
        try:
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children") as file:
                    found.extend(int(child) for child in file.read().split())
        except OSError:
            continue
    return found


def random_prompts(generator: random.Random, sequences: int, length: int, vocabulary: int) -> list[dict]:
    return [
        {"prompt_token_ids": [generator.randrange(works.FIRST_PLAIN_TOKEN, vocabulary) for _ in range(length)]}
        for _ in range(sequences)
    ]


def main() -> None:
    arguments = works.parse_program_arguments(
        __doc__,
        **works.DTYPE_OPTION,
        **{"cache-gib": {"type": int, "default": 2, "help": "key/value cache in GiB (default 2)"}},
    )
    # vLLM reads these while it is imported.
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(arguments.cache_gib))
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{arguments.threads - 1}")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import vllm

    engine = vllm.LLM(
        model=str(arguments.model),
        dtype=arguments.dtype,
        max_model_len=1024,
        max_num_seqs=64,
        enforce_eager=True,
        # Off, as every run repeats the same prompts: with it only the first run would compute them.
        enable_prefix_caching=False,
        seed=0,
    )
    generator = random.Random(0)
    vocabulary = works.LARGE_VOCABULARY
    program = works.at_precision("vLLM", arguments.dtype)

    for item in arguments.items:
        if item.name == "generate":
            prompts = random_prompts(generator, item.dims[0], works.PROMPT_TOKENS, vocabulary)
            sampling = vllm.SamplingParams(
                temperature=works.TEMPERATURE,
                max_tokens=works.NEW_TOKENS,
                min_tokens=works.NEW_TOKENS,
                ignore_eos=True,
                detokenize=False,
            )

            def work() -> None:
                outputs = engine.generate(prompts, sampling, use_tqdm=False)
                assert all(len(output.outputs[0].token_ids) == works.NEW_TOKENS for output in outputs)
        else:
            prompts = random_prompts(generator, *item.dims, vocabulary)
            sampling = vllm.SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)

            def work() -> None:
                outputs = engine.generate(prompts, sampling, use_tqdm=False)
                assert all(len(output.prompt_logprobs) == item.dims[1] for output in outputs)

        measured = timing.repeat(work, arguments.runs or works.RUNS[item.name], warm_ups=1)
        peak_mb = sum(timing.peak_memory_mb(pid) for pid in process_tree(os.getpid()))
        works.print_result(item, program, measured, peak_rss_mb=peak_mb, version=f"vllm {vllm.__version__}")


if __name__ == "__main__":
    main()
