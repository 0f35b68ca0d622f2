"""Pretrain the embedded model ``sftchat:nano``: tokenizer, weights and the figures of its model card.

    python scripts/pretrain_nano.py --corpora DIR --output DIR --minutes 90

The folder ``--corpora`` holds plain UTF-8 text files, one per book. The result is a base model that continues prose and has learned the patterns of
scripts/nano_patterns.py. Its data contains no row of a task that sftchat ships.
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
from nano_patterns import COMMON_HAN, ENGLISH, PATTERNS, PROSE_SENTENCES
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
SEQUENCE_TOKENS = 512


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE that never merges a Chinese character or punctuation mark with its neighbour.

    So a name has the same tokens everywhere, and the model can copy it character by character.
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
        vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    common_characters = ["".join(COMMON_HAN)] * 60  # so that no common character is split into bytes, even a rare one of the corpora
    words = [" " + " ".join(random.Random(i).sample(ENGLISH, len(ENGLISH))) for i in range(60)]
    tokenizer.train_from_iterator([*texts, *common_characters, *words], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", model_max_length=2048)


def build_model(tokenizer: PreTrainedTokenizerFast, width: int, layers: int) -> Qwen3ForCausalLM:
    """Build a Qwen3 decoder with tied embeddings, which ``AutoModelForCausalLM`` loads without custom code."""
    config = Qwen3Config(
        vocab_size=len(tokenizer), hidden_size=width, num_hidden_layers=layers, intermediate_size=3 * width, num_attention_heads=width // 64,
        num_key_value_heads=width // 128, head_dim=64, tie_word_embeddings=True, max_position_embeddings=2048, rope_theta=10000.0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return Qwen3ForCausalLM(config)


def pattern_document(rng: random.Random) -> tuple[str, str]:
    """Write a pattern as a ChatML turn or in another shape; return the prompt, and the answer with its ending."""
    functions, weights = zip(*PATTERNS, strict=True)
    prompt, answer = rng.choices(functions, weights)[0](rng)
    if rng.random() < 0.6:
        return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n", f"{answer}<|im_end|>\n"
    return rng.choice((f"{prompt}\n答：", f"问：{prompt}\n答：", f"Q: {prompt}\nA: ", f"{prompt}\n")), f"{answer}\n"


def make_batches(
    books: list[np.ndarray], tokenizer: PreTrainedTokenizerFast, rows: int, prose: float, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield ``(ids, weights)``, each of shape ``(rows, SEQUENCE_TOKENS)``; a target with weight 0 has no loss.

    Every token of prose and of answers has a loss. Prompts of patterns are random and cannot be predicted, so only one in eight of their tokens has one.
    """
    rng = random.Random(seed)
    sizes = [len(book) for book in books]
    end_id = tokenizer.eos_token_id
    encode = tokenizer.backend_tokenizer.encode_batch_fast
    while True:
        ids = np.full((rows, SEQUENCE_TOKENS), end_id, dtype=np.int64)
        weights = np.zeros((rows, SEQUENCE_TOKENS), dtype=np.float32)
        for row in range(rows):
            if rng.random() < prose:
                book = rng.choices(books, sizes)[0]
                start = rng.randrange(len(book) - SEQUENCE_TOKENS)
                ids[row], weights[row] = book[start : start + SEQUENCE_TOKENS], 1.0
                continue
            position = 0
            while position < SEQUENCE_TOKENS:
                prompt, answer = (item.ids for item in encode(list(pattern_document(rng)), add_special_tokens=False))
                document = [*prompt, *answer, end_id]
                document_weights = [float(rng.random() < 0.125) for _ in prompt] + [1.0] * len(answer) + [0.125]
                count = min(SEQUENCE_TOKENS - position, len(document))
                ids[row, position : position + count], weights[row, position : position + count] = (
                    document[:count],
                    document_weights[:count],
                )
                position += count
        yield ids, weights


def counted_targets(ids: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the targets with a loss and their positions, padded with ignored targets to a multiple of 512.

    The padding limits the number of shapes: oneDNN compiles and keeps a matrix product for every shape, which costs time and, in an hour, gigabytes.
    """
    positions = (weights[:, 1:].reshape(-1) > 0).nonzero()[:, 0]
    padding = -len(positions) % 512
    targets = torch.nn.functional.pad(ids[:, 1:].reshape(-1)[positions], (0, padding), value=-100)
    return targets, torch.nn.functional.pad(positions, (0, padding))


def optimizers(model: Qwen3ForCausalLM, rate: float) -> list[torch.optim.Optimizer]:
    """Return Muon (Jordan et al. 2024) for the hidden matrices and AdamW for embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    other_parameters = [p for n, p in model.named_parameters() if p.ndim < 2 or "embed" in n]
    muon = torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(other_parameters, lr=rate * 4 / 3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    return [muon, adamw]


def schedule_factor(progress: float) -> float:
    """Return the factor of the learning rate at a progress from 0 to 1: short warm-up, constant, then linear to zero over the last 45 %."""
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
    parser.add_argument("--start", type=Path, help="continue the pretraining of the model in this folder")
    parser.add_argument("--minutes", type=float, default=90.0)
    parser.add_argument("--steps", type=int, default=0, help="train exactly this many steps instead of minutes")
    parser.add_argument("--rows", type=int, default=16, help="sequences of 512 tokens per step")
    parser.add_argument("--prose", type=float, default=0.25, help="share of sequences that are prose")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocab", type=int, default=6400)
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="peak learning rate of Muon; that of AdamW is a third higher")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    texts = [path.read_text(encoding="utf-8").replace("．", "。").replace("\r", "") for path in sorted(args.corpora.glob("*.txt"))]
    PROSE_SENTENCES.extend(sentence for text in texts for sentence in re.findall(r"[^。！？\n“”]{6,24}[。！？]", text))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(args.start) if args.start else train_tokenizer(texts, args.vocab)
    books = [np.array(tokenizer.encode(text, add_special_tokens=False), dtype=np.int64) for text in texts]
    held_out_books = [book[-8 * SEQUENCE_TOKENS :] for book in books]
    books = [book[: -8 * SEQUENCE_TOKENS] for book in books]
    held_out_batch = next(make_batches(held_out_books, tokenizer, 32, 0.5, seed=10_000))
    model = (
        Qwen3ForCausalLM.from_pretrained(args.start, dtype=torch.float32) if args.start else build_model(tokenizer, args.width, args.layers)
    )
    model = model.to(device).train()
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{parameters / 1e6:.2f} M parameters, {len(tokenizer)} tokens, {sum(map(len, books)) / 1e6:.2f} M tokens of prose", flush=True)
    forward = torch.compile(model.model)
    all_optimizers = optimizers(model, args.learning_rate)
    base_rates = [group["lr"] for optimizer in all_optimizers for group in optimizer.param_groups]
    training_batches = make_batches(books, tokenizer, args.rows, args.prose, args.seed)
    started, step, smoothed_loss, last_save = time.monotonic(), 0, float("nan"), 0.0
    while True:
        elapsed = time.monotonic() - started
        progress = step / args.steps if args.steps else elapsed / (60 * args.minutes)
        if progress >= 1.0:
            break
        ids, weights = (torch.from_numpy(part).to(device) for part in next(training_batches))
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = forward(input_ids=ids, use_cache=False).last_hidden_state
            targets, positions = counted_targets(ids, weights)
            logits = model.lm_head(hidden[:, :-1].reshape(-1, hidden.shape[-1])[positions])
        loss = torch.nn.functional.cross_entropy(logits.float(), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        groups = [group for optimizer in all_optimizers for group in optimizer.param_groups]
        for group, base_rate in zip(groups, base_rates, strict=True):
            group["lr"] = base_rate * schedule_factor(progress)
        for optimizer in all_optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        step += 1
        smoothed_loss = loss.item() if math.isnan(smoothed_loss) else 0.98 * smoothed_loss + 0.02 * loss.item()
        if step % 50 == 0:
            print(
                f"step {step}  {elapsed / 60:.1f} min  {step * args.rows * SEQUENCE_TOKENS / elapsed:.0f} tokens/s  loss {smoothed_loss:.3f}",
                flush=True,
            )
        if elapsed - last_save > 600:
            last_save = elapsed
            model.eval()
            prose_loss, accuracy = held_out_loss(model, held_out_batch)
            model.train()
            print(f"held out: prose loss {prose_loss:.3f}, pattern answers {accuracy:.3f}", flush=True)
            save(model, tokenizer, args.output / "latest", {"step": step})
    model.eval()
    prose_loss, accuracy = held_out_loss(model, held_out_batch)
    card = {
        "parameters": parameters, "vocabulary": len(tokenizer), "steps": step, "tokens": step * args.rows * SEQUENCE_TOKENS, "rows": args.rows,
        "sequence": SEQUENCE_TOKENS, "prose_share": args.prose, "minutes": round((time.monotonic() - started) / 60, 1), "device": device, "seed": args.seed,
        "held_out_prose_loss": round(prose_loss, 3), "held_out_pattern_accuracy": round(accuracy, 3), "torch": torch.__version__,
    }  # fmt: skip
    save(model.to("cpu"), tokenizer, args.output, card)
    print(json.dumps(card, indent=1))


if __name__ == "__main__":
    main()
