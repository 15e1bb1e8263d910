"""One GRPO step with TRL's GRPOTrainer on the CPU, f32: 8 questions, 8 completions each, KL to a reference model.

A step is one optimizer step: generate 64 completions of 256 tokens (none ends early), log-probabilities of the
policy and of the reference model, forward and backward, AdamW. The reward is a trivial function, so that the
step is the trainer's own work. ``--micro-batch`` is the number of completions in one forward.
"""

import random
import tempfile

import torch
import trl
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback

import timing
import works

WORDS = "the price of five apples is added to what was left in the box so each child gets three more".split()


def prompts_of_length(tokenizer, count: int, tokens: int) -> list[str]:
    """Random word salad, each text at least ``tokens`` tokens long and at most a word more."""
    generator, texts = random.Random(0), []
    for _ in range(count):
        text = generator.choice(WORDS)
        while len(tokenizer(text)["input_ids"]) < tokens:
            text += " " + generator.choice(WORDS)
        texts.append(text)
    return texts


class StepTimer(TrainerCallback):
    """Watches every optimizer step; the first, which warms up, is dropped. Stops after ``runs`` quiet steps."""

    def __init__(self, runs: int) -> None:
        self.runs, self.kept, self.discarded, self.warm = runs, [], 0, False

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        timing.reset_peak_memory()
        self.watch = timing.Watch().__enter__()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.watch.__exit__()
        if not self.warm:
            self.warm = True
        elif self.watch.disturbed and self.discarded < 2 * self.runs:
            self.discarded += 1
        else:
            self.kept.append(self.watch)
        control.should_training_stop = len(self.kept) == self.runs
        self.watch = timing.Watch().__enter__()


def main() -> None:
    arguments = works.parse_program_arguments(__doc__, **{"micro-batch": {"type": int, "default": 16}})
    torch.set_num_threads(arguments.threads)
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)

    for item in arguments.items:
        questions, completions, new_tokens = item.dims
        lengths = set()

        def reward(completions, completion_ids, **kwargs):
            lengths.update(map(len, completion_ids))
            return [completion.count("e") / 100 for completion in completions]

        runs = arguments.runs or works.RUNS[item.name]
        timer = StepTimer(runs)
        micro_batch = min(arguments.micro_batch, questions * completions)
        micro_batches = questions * completions // micro_batch
        with tempfile.TemporaryDirectory() as output:
            trainer = trl.GRPOTrainer(
                model=str(arguments.model),
                reward_funcs=reward,
                args=trl.GRPOConfig(
                    output_dir=output,
                    per_device_train_batch_size=micro_batch,
                    gradient_accumulation_steps=micro_batches,
                    steps_per_generation=micro_batches,
                    num_generations=completions,
                    max_completion_length=new_tokens,
                    generation_kwargs={"min_new_tokens": new_tokens},
                    temperature=works.TEMPERATURE,
                    top_k=0,
                    top_p=1.0,
                    beta=works.KL_BETA,
                    learning_rate=1e-6,
                    lr_scheduler_type="constant",
                    optim="adamw_torch_fused",
                    max_steps=1 + 3 * runs,  # one to warm up, and room for every disturbed one
                    bf16=False,
                    gradient_checkpointing=False,
                    model_init_kwargs={"dtype": "float32"},
                    use_cpu=True,
                    use_vllm=False,
                    report_to="none",
                    save_strategy="no",
                    logging_strategy="no",
                    disable_tqdm=True,
                    seed=0,
                ),
                train_dataset=Dataset.from_dict(
                    {"prompt": prompts_of_length(tokenizer, questions, works.PROMPT_TOKENS)}
                ),
                processing_class=tokenizer,
                callbacks=[timer],
            )
            trainer.train()
        assert lengths == {new_tokens}, f"completions of {sorted(lengths)} tokens"
        works.print_result(
            item,
            "TRL",
            timing.summary(timer.kept, timer.discarded),
            peak_rss_mb=timing.peak_memory_mb(),
            version=f"trl {trl.__version__}",
        )


if __name__ == "__main__":
    main()
