"""The RLT reward by the method of the official scorer: PyTorch, one sequence at a time, in f32 or bf16.

For every completion the teacher reads prompt, solution and thought, the student prompt, thought and solution; each
forward gives the logits of all positions, of which a log-softmax over the whole vocabulary is taken before the
tokens' own values are picked. No prompt is shared. The official code recomputes the teacher even where sampling
gave its log-probabilities, so ``score_recorded`` is the same work here; it also decodes, encodes and searches texts,
which is left out.
"""

import torch
import transformers
from transformers import AutoModelForCausalLM

import timing
import works

ALPHA, LAMBDA = 0.01, 3.0


def token_logprobs(model, ids_T: torch.Tensor, first: int, last: int) -> torch.Tensor:
    """Log-probabilities of the tokens ``first`` to ``last`` (exclusive) of one sequence."""
    logits_TV = model(input_ids=ids_T[None], use_cache=False).logits[0].float() / works.TEMPERATURE
    logprobs_TV = torch.log_softmax(logits_TV, dim=-1)
    return logprobs_TV[first - 1 : last - 1].gather(-1, ids_T[first:last, None]).squeeze(-1)


def rewards(teacher, student, completions: int, think: int):
    """A function that gives the rewards of the completions of one question."""

    def ids(n: int) -> torch.Tensor:
        return torch.randint(works.FIRST_PLAIN_TOKEN, teacher.config.vocab_size, (n,))

    question = ids(works.SCORED_QUESTION_TOKENS)
    suffix = ids(works.SCORED_SOLUTION_TOKENS + works.SCORED_TAG_TOKENS)
    thoughts = [ids(think) for _ in range(completions)]

    def run(n: int = completions) -> None:
        for thought in thoughts[:n]:
            before = len(question) + len(suffix)
            taught = torch.cat([question, suffix, thought])
            of_teacher = token_logprobs(teacher, taught, before, before + think)
            learnt = torch.cat([question, thought, suffix])
            after = len(question) + think + works.SCORED_TAG_TOKENS // 2
            # The official code takes the student's log-probabilities of the sequence once, for both spans.
            of_student = token_logprobs(student, learnt, len(question), after + works.SCORED_SOLUTION_TOKENS)
            solution = of_student[-works.SCORED_SOLUTION_TOKENS :]
            divergence = of_teacher - of_student[:think]
            r_ss = solution.mean() + ALPHA * solution.min()
            r_kl = divergence.mean() + ALPHA * divergence.max()
            assert torch.isfinite(r_ss - LAMBDA * r_kl)

    return run


@torch.inference_mode()
def main() -> None:
    arguments = works.parse_program_arguments(__doc__, **works.DTYPE_OPTION)
    program = works.at_precision("official method", arguments.dtype)
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    teacher, student = (
        AutoModelForCausalLM.from_pretrained(
            arguments.model, dtype=getattr(torch, arguments.dtype), attn_implementation="sdpa"
        ).eval()
        for _ in range(2)
    )
    for item in arguments.items:
        work = rewards(teacher, student, *item.dims)
        work(4)
        timing.reset_peak_memory()
        measured = timing.repeat(work, arguments.runs or works.RUNS[item.name], warm_ups=0)
        works.print_result(
            item,
            program,
            measured,
            peak_rss_mb=timing.peak_memory_mb(),
            completion_s=round(measured["median_s"] / item.dims[0], 4),
        )


if __name__ == "__main__":
    main()
