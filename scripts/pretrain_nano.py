"""Pretrain the embedded model ``sftchat:nano``: tokenizer, weights and the figures of its model card.

    python scripts/pretrain_nano.py --corpora DIR --output DIR --minutes 90

DIR holds plain UTF-8 text files, one per book. The result is a base model: it continues prose and has the skills of scripts/nano_patterns.py.
Its data contains no row of a task that sftchat ships.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from nano_patterns import ENGLISH, HAN, PATTERNS, PROSE
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SEQUENCE = 512


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE in which a Han character or a CJK punctuation mark is never merged with its neighbour.

    A name has the same tokens everywhere, so copying it takes one induction step per character.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{Han}|[，。！？；：、“”‘’（）《》…—\n:\-]|\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    everyday = ["".join(HAN)] * 60  # so that no common character is split into bytes, even if it is rare in the corpora
    words = [" " + " ".join(random.Random(i).sample(ENGLISH, len(ENGLISH))) for i in range(60)]
    tokenizer.train_from_iterator([*texts, *everyday, *words], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=2048)


def build_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> Qwen3ForCausalLM:
    """A Qwen3 decoder with tied embeddings; plain AutoModelForCausalLM loads it."""
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, intermediate_size=3 * width, num_attention_heads=width // 64,
        num_key_value_heads=width // 128, head_dim=64, tie_word_embeddings=True, max_position_embeddings=2048, rope_theta=10000.0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def pattern_document(rng: random.Random) -> tuple[str, str]:
    """Render a pattern in one of the shapes of prompts; returns (prompt, answer with its ending)."""
    functions, weights = zip(*PATTERNS, strict=True)
    prompt, answer = rng.choices(functions, weights)[0](rng)
    if rng.random() < 0.6:
        return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", f"{answer}<|im_end|>\n"
    return rng.choice((f"{prompt}\n答：", f"问：{prompt}\n答：", f"Q: {prompt}\nA: ", f"{prompt}\n")), f"{answer}\n"


def batches(
    books: list[np.ndarray], tokenizer: PreTrainedTokenizerFast, rows: int, prose: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(ids, weights)``, each ``(rows, SEQUENCE)``; weight 0 marks a target without loss.

    Prompts of patterns are random strings that cannot be predicted: one target in eight of theirs counts, every answer does.
    """
    rng = random.Random(seed)
    sizes = [len(book) for book in books]
    end = tokenizer.eos_token_id
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    while True:
        ids = np.full((rows, SEQUENCE), end, dtype=np.int64)
        weights = np.zeros((rows, SEQUENCE), dtype=np.float32)
        for row in range(rows):
            if rng.random() < prose:
                book = rng.choices(books, sizes)[0]
                start = rng.randrange(len(book) - SEQUENCE)
                ids[row], weights[row] = book[start : start + SEQUENCE], 1.0
                continue
            at = 0
            while at < SEQUENCE:
                prompt, answer = (item.ids for item in encode(list(pattern_document(rng)), add_special_tokens=False))
                document = [*prompt, *answer, end]
                counted = [float(rng.random() < 0.125) for _ in prompt] + [1.0] * len(answer) + [0.125]
                room = min(SEQUENCE - at, len(document))
                ids[row, at : at + room], weights[row, at : at + room] = document[:room], counted[:room]
                at += room
        yield ids, weights


def counted_targets(ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the counted targets and their positions, padded with ignored targets to a multiple of 512.

    oneDNN compiles and keeps a matrix product for every shape: a new shape per step costs time and, in an hour, gigabytes.
    """
    positions = (weights[:, 1:].reshape(-1) > 0).nonzero()[:, 0]
    padding = -len(positions) % 512
    targets = torch.nn.functional.pad(ids[:, 1:].reshape(-1)[positions], (0, padding), value=-100)
    return targets, torch.nn.functional.pad(positions, (0, padding))


def optimizers(model: Qwen3ForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the hidden matrices, AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=rate * 4 / 3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [muon, adamw]


def schedule(progress: float) -> float:
    """Learning rate schedule: short warm-up, constant, then linear to zero over the last 45 %."""
    return min(1.0, progress / 0.02 + 0.05, max(0.0, (1.0 - progress) / 0.45))


def held_out_loss(model: Qwen3ForCausalLM, data: tuple[np.ndarray, np.ndarray]) -> tuple[float, float]:
    """Return the mean loss on held-out prose, and the share of answer tokens of patterns that greedy decoding gets right."""
    ids = torch.from_numpy(data[0])
    with torch.no_grad():
        logits = model(input_ids=ids).logits[:, :-1].float()
    targets, weights = ids[:, 1:], torch.from_numpy(data[1])[:, 1:]
    losses = torch.nn.functional.cross_entropy(logits.transpose(1, 2), targets, reduction="none")
    prose = weights.mean(1) == 1.0
    answers = (weights == 1.0) & ~prose[:, None]
    return losses[prose].mean().item(), (logits.argmax(-1) == targets)[answers].float().mean().item()


def save(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, output: Path, card: dict[str, object]) -> None:
    """Save weights in bf16, tokenizer, generation settings and the figures of the run."""
    copy = Qwen3ForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.generation_config = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")], pad_token_id=tokenizer.pad_token_id
    )
    copy.save_pretrained(output)
    tokenizer.save_pretrained(output)
    (output / "pretraining.json").write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Train for the given minutes or steps, and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="continue from this folder instead of from nothing")
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--steps", type=int, default=0, help="train exactly this many steps instead of minutes")
    parser.add_argument("--rows", type=int, default=16, help="sequences of 512 tokens a step")
    parser.add_argument("--prose", type=float, default=0.25, help="share of sequences that are prose")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=6400)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak, of Muon; AdamW's is a third higher")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = [path.read_text(encoding="utf-8").replace("．", "。").replace("\r", "") for path in sorted(args.corpora.glob("*.txt"))]
    PROSE.extend(sentence for text in texts for sentence in re.findall(r"[^。！？\n“”]{6,24}[。！？]", text))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.start) if args.start else train_tokenizer(texts, args.vocab)
    books = [np.array(tokenizer.encode(text, add_special_tokens=False), dtype=np.int64) for text in texts]
    held = [book[-8 * SEQUENCE :] for book in books]
    books = [book[: -8 * SEQUENCE] for book in books]
    test = next(batches(held, tokenizer, 32, 0.5, seed=10_000))
    model = (
        Qwen3ForCausalLM.from_pretrained(args.start, dtype=torch.float32) if args.start else build_model(tokenizer, args.width, args.layers)
    )
    model = model.to(device).train()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(tokenizer)} tokens, {sum(map(len, books)) / 1e6:.2f} M tokens of prose", flush=True)
    forward = torch.compile(model.model)
    steppers = optimizers(model, args.learning_rate)
    bases = [group["lr"] for stepper in steppers for group in stepper.param_groups]
    source = batches(books, tokenizer, args.rows, args.prose, args.seed)
    started, step, average, saved = time.monotonic(), 0, float("nan"), 0.0
    while True:
        elapsed = time.monotonic() - started
        progress = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        if progress >= 1.0:
            break
        ids, weights = (torch.from_numpy(part).to(device) for part in next(source))
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = forward(input_ids=ids, use_cache=False).last_hidden_state
            targets, at = counted_targets(ids, weights)
            logits = model.lm_head(hidden[:, :-1].reshape(-1, hidden.shape[-1])[at])
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        groups = [group for stepper in steppers for group in stepper.param_groups]
        for group, base in zip(groups, bases, strict=True):
            group["lr"] = base * schedule(progress)
        for stepper in steppers:
            stepper.step()
            stepper.zero_grad(set_to_none=True)
        step += 1
        average = loss.item() if math.isnan(average) else 0.98 * average + 0.02 * loss.item()
        if step % 50 == 0:
            print(
                f"step {step}  {elapsed / 60:.1f} min  {step * args.rows * SEQUENCE / elapsed:.0f} tokens/s  loss {average:.3f}", flush=True
            )
        if elapsed - saved > 600:
            saved = elapsed
            model.eval()
            prose_loss, accuracy = held_out_loss(model, test)
            model.train()
            print(f"held out: prose loss {prose_loss:.3f}, pattern answers {accuracy:.3f}", flush=True)
            save(model, tokenizer, args.output / "latest", {"step": step})
    model.eval()
    prose_loss, accuracy = held_out_loss(model, test)
    card = {
        "parameters": parameters, "vocabulary": len(tokenizer), "steps": step, "tokens": step * args.rows * SEQUENCE, "rows": args.rows,
        "sequence": SEQUENCE, "prose_share": args.prose, "minutes": round((time.monotonic() - started) / 60, 1), "device": device, "seed": args.seed,
        "held_out_prose_loss": round(prose_loss, 3), "held_out_pattern_accuracy": round(accuracy, 3), "torch": torch.__version__,
    }  # fmt: skip
    save(model.to("cpu"), tokenizer, args.output, card)
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
