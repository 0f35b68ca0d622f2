"""Generate replies with lm-evaluation-harness; run by ``bench_real.py`` with the Python of the harness's own environment.

    python harness_driver.py MODEL WORKLOAD BATCH_SIZE

WORKLOAD is a JSON file with ``prompts`` (texts), ``ids`` (their token ids) and ``lengths`` (tokens of each reply). For every line on standard input the
program generates all replies once and prints the seconds. The stop token is forced at the length of each row and forbidden before, so that the
harness generates the same lengths as all others, and ends a batch when its last row has ended.
"""

import json
import sys
import time
from pathlib import Path

import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import LogitsProcessor, LogitsProcessorList


class ForcedLengths(LogitsProcessor):
    """Forces the stop token of each row at its length, and forbids it before.

    Args:
        lengths: Reply length of each row.
        prompt_width: Number of columns of the padded prompts.
        stop: Id of the stop token.
    """

    def __init__(self, lengths, prompt_width, stop):
        self.lengths, self.prompt_width, self.stop = torch.tensor(lengths), prompt_width, stop

    def __call__(self, input_ids, scores):
        """Return the scores with those of the stop token replaced."""
        ended = input_ids.shape[1] - self.prompt_width >= self.lengths
        scores = scores.clone()
        scores[:, self.stop] = torch.where(ended, torch.inf, -torch.inf)
        return scores


def main(model_name, workload_file, batch_size):
    """Load the model, then generate once for every line of standard input."""
    workload = json.loads(Path(workload_file).read_text(encoding="utf-8"))
    length_by_prompt = {tuple(ids): length for ids, length in zip(workload["ids"], workload["lengths"], strict=True)}
    model = HFLM(pretrained=model_name, dtype="float32", device="cpu", batch_size=int(batch_size))
    generate = model.model.generate
    generated = 0

    def generate_lengths(input_ids, attention_mask, **options):
        nonlocal generated
        prompts = [tuple(row[mask.bool()].tolist()) for row, mask in zip(input_ids, attention_mask, strict=True)]
        lengths = [length_by_prompt[prompt] for prompt in prompts]
        generated += sum(lengths)
        forced = ForcedLengths(lengths, input_ids.shape[1], model.eot_token_id)
        return generate(input_ids=input_ids, attention_mask=attention_mask, logits_processor=LogitsProcessorList([forced]), **options)

    model.model.generate = generate_lengths
    limit = {"until": [], "do_sample": False, "max_gen_toks": max(workload["lengths"]) + 1}
    requests = [Instance("generate_until", {}, (prompt, limit), index) for index, prompt in enumerate(workload["prompts"])]
    model.generate_until(requests[:4], disable_tqdm=True)  # allocates memory and starts threads
    print("ready", flush=True)
    for _ in sys.stdin:
        generated, before = 0, time.perf_counter()
        model.generate_until(requests, disable_tqdm=True)
        seconds = time.perf_counter() - before
        if generated != sum(workload["lengths"]):
            raise SystemExit(f"generated {generated} tokens instead of {sum(workload['lengths'])}")
        print(seconds, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
