"""The example plugins: separate distributions, installed, checked against the contract, trained, scored and used in a chat."""

from __future__ import annotations

import ast
import importlib.util
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

from sftchat import Example, Message, Reply
from sftchat.testing import check_task, plugin_manager_with
from tests.distributions import ROOT, install, sftchat
from tests.test_import_layers import PUBLIC, imports

EXAMPLES = ("sentiment", "sql", "translation")


def source(name: str) -> Path:
    return ROOT / "examples" / name / f"sftchat_example_{name}.py"


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(source(name).stem, source(name))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module", params=EXAMPLES)
def installed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    return request.param, install(ROOT / "examples" / request.param, tmp_path_factory.mktemp(request.param))


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in (ROOT / "examples").iterdir() if path.is_dir()) == sorted(
        [*EXAMPLES, "configs", "notebook", "tickets"]
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_is_short_and_imports_only_public_names(name: str) -> None:
    text = source(name).read_text(encoding="utf-8")
    ours = [imported.split(".")[1] for imported in imports(ast.parse(text)) if imported.startswith("sftchat.")]

    assert len(text.splitlines()) < 150
    assert [imported for imported in ours if imported not in PUBLIC] == []


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_keeps_the_contract(name: str) -> None:
    check_task(plugin_manager_with(module(name)).task(name))


@pytest.mark.slow
def test_an_installed_example_is_trained_scored_and_used_in_a_chat(installed: tuple[str, Path], tmp_path: Path) -> None:
    name, site = installed
    gold, run = tmp_path / "gold.jsonl", tmp_path / "run"

    made = sftchat(site, "data", "generate", name, "-n", "12", "--seed", "9", "--format", "evalset", "-o", gold, "--quiet")
    trained = sftchat(site, "train", name, "-n", "48", "--max-steps", "3", "-o", run, "--quiet")
    scored = sftchat(site, "eval", run, "--baseline", "sftchat:nano", "--evalset", gold, "--json", "--quiet")
    talked = sftchat(site, "chat", run, input="hello\n/exit\n")

    assert [(made.returncode, made.stderr), (trained.returncode, trained.stderr)] == [(0, ""), (0, "")]
    assert scored.returncode in (0, 1), scored.stderr  # three steps teach nothing; the test is that the result is scored
    report = json.loads(scored.stdout)
    assert [(result["task"], result["n"]) for result in (*report["results"], *report["baselines"])] == [(name, 12)] * 2
    assert talked.returncode == 0, talked.stderr
    assert talked.stdout.strip() != ""


def ask(name: str, gold: str, reply: str, **metadata: str) -> tuple[str, ...]:
    return module(name).score(Example((Message(role="user", content="?"),), gold, metadata=metadata), Reply(reply)).errors


@pytest.mark.parametrize(
    ("reply", "faults"),
    [
        ("positive", ()),
        ("Positive.", ()),
        ("it is positive", ()),
        ("negative", ("positive taken for negative",)),
        ("positive or negative", ("no label",)),
        ("", ("no label",)),
    ],
)
def test_sentiment_is_the_single_named_label(reply: str, faults: tuple[str, ...]) -> None:
    assert ask("sentiment", "positive", reply) == faults


SETUP = "CREATE TABLE t (a TEXT, b INTEGER); INSERT INTO t VALUES ('x', 1), ('y', 2);"


@pytest.mark.parametrize(
    ("reply", "faults", "exact"),
    [
        ("SELECT a FROM t", (), 1),
        ("```sql\nselect a from t order by b desc\n```", (), 0),
        ("SELECT b FROM t", ("wrong_result",), 0),
        ("DROP TABLE t", ("forbidden",), 0),
        ("", ("empty",), 0),
    ],
)
def test_sql_is_right_when_it_returns_the_same_rows_and_counts_equal_queries(reply: str, faults: tuple[str, ...], exact: int) -> None:
    example = Example((Message(role="user", content="?"),), "SELECT a FROM t", metadata={"database": SETUP})
    score = module("sql").score(example, Reply(reply))

    assert (score.errors, score.stats["exact"]) == (faults, exact)


def test_bleu_is_the_corpus_bleu_of_sacrebleu() -> None:
    from sacrebleu.metrics import BLEU

    translation = module("translation")
    rng = random.Random(0)
    golds = [example.gold for example in translation.generate(30, 0)]
    replies = [gold if rng.random() < 0.4 else rng.choice(golds) for gold in golds]
    scores = [translation.score(Example((), gold), Reply(reply)) for gold, reply in zip(golds, replies, strict=True)]
    sums = {key: sum(score.stats[key] for score in scores) for key in scores[0].stats}

    assert float(translation.bleu(sums)) == pytest.approx(BLEU(tokenize="zh").corpus_score(replies, [golds]).score / 100)
