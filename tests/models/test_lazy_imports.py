"""Models imported without compiler and sharding: fewer modules are loaded, and everything works."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sftchat.models.lazy_imports import _replace_attribute

HEAVY = "torch._dynamo", "torch.distributed.tensor", "sympy", "accelerate", "scipy.optimize"


def run(program: str, *arguments: str) -> list[str]:
    """Return the lines that a program prints in a separate Python."""
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


ASK = f"""
import sys
from sftchat.cli.session import Session
from sftchat.engine import Request, collect
from sftchat.types import SamplingParams
engine = Session(imports_in_parts=True).load_engine(sys.argv[1])
request = Request("r", ({{"role": "user", "content": "你好"}},), sampling=SamplingParams(max_new_tokens=8))
[(_, reply)] = collect(engine, [request])
print([name for name in {HEAVY} if name in sys.modules])
print(ascii(reply))
"""


@pytest.mark.slow
def test_a_reply_needs_neither_compiler_nor_sharding(tiny_checkpoint: Path) -> None:
    loaded, reply = run(ASK, str(tiny_checkpoint))
    everything, same = run("import torch._dynamo\n" + ASK, str(tiny_checkpoint))

    assert loaded == "[]"
    assert "torch._dynamo" in everything
    assert reply == same
    assert "finish_reason='length'" in reply


AFTERWARDS = """
import sys
from sftchat.models.lazy_imports import deferred_imports
with deferred_imports():
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
import torch
from transformers.utils import is_accelerate_available, is_torch_distributed_available
print(is_accelerate_available(), is_torch_distributed_available())
from torch._dynamo.utils import counters
from torch.fx.experimental.symbolic_shapes import ShapeEnv
import sympy
print(torch._dynamo.disable.__module__, sympy.Symbol("x") + 1, torch.compiler.disable.__module__)
logits = torch.compile(model, backend="eager")(input_ids=torch.tensor([[1, 2, 3]])).logits
print(tuple(logits.shape), torch.equal(logits, model(input_ids=torch.tensor([[1, 2, 3]])).logits))
"""


@pytest.mark.slow
def test_the_libraries_are_complete_again_afterwards(tiny_checkpoint: Path) -> None:
    assert run(AFTERWARDS, str(tiny_checkpoint)) == [
        "True True",
        "torch._dynamo.decorators x + 1 torch.compiler",
        "(1, 3, 298) True",
    ]


ASKED_WITHIN = """
import sys
import torch
from sftchat.models.lazy_imports import deferred_imports
with deferred_imports():
    import torch._dynamo.utils
    from torch.fx.experimental.symbolic_shapes import ShapeEnv
    import sympy
    print(sympy.Integer(2) + 1, ShapeEnv.__name__, torch._dynamo.utils.__name__)
print(issubclass(sympy.Integer, sympy.Basic))
"""


@pytest.mark.slow
def test_access_to_more_of_a_library_imports_the_real_one() -> None:
    assert run(ASKED_WITHIN) == ["3 ShapeEnv torch._dynamo.utils", "True"]


TRAINED_AFTERWARDS = """
import sys
from sftchat.cli import main
assert main(["ask", sys.argv[1], "hi"]) == 0
assert main(["train", "general", "--model", sys.argv[1], "-n", "8", "--max-steps", "2", "-o", sys.argv[2], "-q"]) == 0
assert main(["ask", sys.argv[2], "hi"]) == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_process_that_generated_can_train_too(tiny_checkpoint: Path, tmp_path: Path, method: str) -> None:
    program = TRAINED_AFTERWARDS.replace('"-q"', f'"-q", "--method", "{method}"')

    run(program, str(tiny_checkpoint), str(tmp_path / "run"))


@pytest.mark.slow
def test_an_adapter_replies_without_them_too(tiny_checkpoint: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny_checkpoint), LoraConfig(target_modules="all-linear", init_lora_weights=False)
    )
    model.save_pretrained(tmp_path)

    loaded, reply = run(ASK, str(tmp_path))

    assert "torch._dynamo" not in loaded
    assert "sympy" not in loaded
    assert reply == run("import torch._dynamo\n" + ASK, str(tmp_path))[1]


def test_a_name_that_another_version_of_the_library_lacks_is_ignored() -> None:
    with _replace_attribute(sys, "no_such_name", None):
        assert not hasattr(sys, "no_such_name")

    assert not hasattr(sys, "no_such_name")
