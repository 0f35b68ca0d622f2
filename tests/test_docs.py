"""README and docs agree with the program."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from sftchat.cli import VERBS, program
from sftchat.data.check import PROBLEM_CLASSES
from sftchat.data.formats import FORMATS
from tests.pages import Command, blocks
from tests.pages import commands as shell

ROOT = Path(__file__).parent.parent
README, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))


def commands(text: str) -> list[str]:
    """Every ``sftchat …`` line of the code blocks, without its comment."""
    blocks = re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL)
    lines = [line.split("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line.split("| ")[-1] for line in lines if re.match(r"(echo .*\| )?sftchat ", line)]


def script(name: str) -> Any:
    """A module of ``scripts/``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_plugin_in_both_readmes_is_the_one_that_is_tested() -> None:
    source = (ROOT / "tests" / "example_plugin" / "sftchat_example_plugin.py").read_text(encoding="utf-8")

    assert source.strip() in README
    assert source.strip() in CHINESE


PAGES = [README, *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md")))]


FOLLOWING = sorted(
    {command for page in PAGES for block in blocks(page) if not block.language for command in shell(block) if command.sftchat},
    key=lambda one: one.line,
)


@pytest.fixture
def beside_the_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder with the config files that pages name."""
    (toml,) = re.findall(r"```toml\n(.*?)```", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    (tmp_path / "run.toml").write_text(toml, encoding="utf-8")
    (tmp_path / "run.yaml").write_text(json.dumps(tomllib.loads(toml)), encoding="utf-8")
    (tmp_path / "mine.jinja").touch()
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("shown", FOLLOWING, ids=lambda command: command.line)
@pytest.mark.usefixtures("beside_the_configs")
def test_the_program_parses_every_command_shown(shown: Command) -> None:
    """The parser accepts every option with its value; nothing is run."""
    assert shown.sftchat is not None
    verb, *rest = (word.replace("…", "x") for word in shown.sftchat)
    top = click.Context(program, **program.context_settings)
    command = program.get_command(top, verb)
    assert command is not None, f"{verb} is no command"
    while isinstance(command, click.Group) and (rest or not command.invoke_without_command):
        command = command.commands[rest.pop(0)]
    assert command.make_context(verb, rest, parent=top).args == []


def test_every_code_block_has_a_fence_that_the_site_renders() -> None:
    """mkdocs-material accepts a language and a title; after anything else a block does not end."""
    fences = {
        (path.name, line)
        for path in (ROOT / "docs").glob("*.md")
        for line in re.findall(r"^```.*", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
    }

    assert {fence for fence in fences if not re.fullmatch(r'```(\w+( title="[^"]+")?)?', fence[1])} == set()


def test_every_launcher_parses_its_options() -> None:
    """Including commands that need machines without tests."""
    launchers = {"torchrun": get_args_parser(), "accelerate": launch_command_parser()}
    lines = [shlex.split(command.line) for command in FOLLOWING if command.line.split()[0] in launchers]

    for launcher, *words in lines:
        found = launchers[launcher].parse_args(words[words.index("launch") + 1 :] if launcher == "accelerate" else words)
        assert (found.module, found.training_script) == (True, "sftchat")
    assert {launcher for launcher, *_ in lines} == set(launchers)


@pytest.mark.parametrize(("name", "kind"), [("fsdp2.yaml", "FSDP"), ("zero3.yaml", "DEEPSPEED")])
def test_accelerate_reads_the_files_of_the_page_on_several_gpus(name: str, kind: str, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "several-gpus.md").read_text(encoding="utf-8")
    (tmp_path / name).write_text(next(block.text for block in blocks(page) if block.title == name), encoding="utf-8")

    found = load_config_from_file(str(tmp_path / name))

    assert (found.distributed_type, found.num_processes, found.mixed_precision) == (kind, 4, "bf16")
    settings = found.fsdp_config if kind == "FSDP" else found.deepspeed_config
    known = vars(launch_command_parser().parse_args(["x"]))
    assert settings
    assert [key for key in settings if key not in known] == []


def test_every_verb_is_in_the_readme_or_its_table() -> None:
    shown = {line.split()[1] for line in commands(README)}

    assert set(VERBS) - shown <= {"demo", "plugins"}


def test_the_chinese_readme_has_the_sections_commands_exit_codes_figures_and_links_of_the_english_one() -> None:
    assert [line.split(" #")[0] for line in commands(CHINESE)] == [line.split(" #")[0] for line in commands(README)]
    assert len(re.findall(r"^## ", CHINESE, flags=re.MULTILINE)) == len(re.findall(r"^## ", README, flags=re.MULTILINE))
    for pattern in (r"^\| (\d+) \|", r"\| ([\d.–]+ [×%]) \| (.*) \|$"):
        assert re.findall(pattern, CHINESE, flags=re.MULTILINE) == re.findall(pattern, README, flags=re.MULTILINE)
    assert links(CHINESE) ^ links(README) == {"README.md", "README.zh.md"}


def links(page: str) -> set[str]:
    """Return the link targets of a page."""
    return set(re.findall(r"\]\(([^)\s#]+)\)", page))


def test_every_page_of_the_documentation_is_in_the_table_of_the_readme() -> None:
    assert {path.name for path in (ROOT / "docs").glob("*.md")} == {
        link.removeprefix("docs/") for link in links(README) if link.startswith("docs/") and link.endswith(".md")
    }


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    listed = re.findall(r": ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), flags=re.MULTILINE)

    assert sorted(listed) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_page_on_data_lists_every_class_of_problems_with_its_policy() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\| `([\w-]+)` \| .* \| (fail|drop|keep) \|$", page, flags=re.MULTILINE)

    assert listed == list(PROBLEM_CLASSES.items())


def test_the_page_on_data_lists_every_format() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")

    assert sorted(re.findall(r"^\| `([\w-]+)` \| `\{", page, flags=re.MULTILINE)) == sorted(FORMATS)


def test_every_hook_has_its_signature_as_a_heading() -> None:
    tree = ast.parse((ROOT / "sftchat" / "plugins" / "spec.py").read_text(encoding="utf-8"))
    hooks = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    signatures = [f"{node.name}({ast.unparse(node.args)}) -> {ast.unparse(node.returns)}" for node in hooks if node.returns is not None]
    page = (ROOT / "docs" / "hooks.md").read_text(encoding="utf-8")

    assert signatures == re.findall(r"^## (sftchat_\w+\(.*)$", page, flags=re.MULTILINE)


def test_the_command_reference_equals_the_output_of_the_program() -> None:
    page = script("update_docs").page()

    assert (ROOT / "docs" / "commands.md").read_text(encoding="utf-8") == page, "run scripts/update-docs"


def test_the_reference_of_values_equals_the_docstrings() -> None:
    page = script("update_docs").values()

    assert (ROOT / "docs" / "values.md").read_text(encoding="utf-8") == page, "run scripts/update-docs"
    assert not re.findall(r"^\| `.*` \| .* \| .* \|  \|$", page, flags=re.MULTILINE)  # every field is explained


def test_the_site_shows_a_bar_within_code_in_a_table_without_its_backslash() -> None:
    shown = script("site_hooks").on_page_markdown("| `a\\|b` | <\\|c |\n`d\\|e`")

    assert shown == "| `a|b` | <\\|c |\n`d\\|e`"


def test_every_name_under_where_to_add_what_is_in_the_source() -> None:
    (section,) = re.findall(
        r"^## Where to add what\n(.*?)^## ", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    names = set(re.findall(r"`(_?[A-Za-z]*_[A-Za-z_]+|[A-Z]\w+)`", section))
    paths = [path for folder in ("sftchat", "plugins") for path in (ROOT / folder).rglob("*.py")]
    source_words = {word for path in paths for word in re.findall(r"\w+", path.read_text("utf-8"))}

    assert {"_KEYS", "SamplingParams"} <= names
    assert names - source_words == set()


def test_every_link_within_the_repository_has_a_target() -> None:
    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("evalsets/*.md")]:
        text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")

    assert broken == []
