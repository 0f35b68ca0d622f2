"""``export --ollama`` over a GGUF file, and ``--create``, with a program in the place of ``ollama`` that records what it gets."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sftchat.cli import main
from tests.cli.test_export_gguf import evalset, export

__all__ = ["evalset"]  # a fixture

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the program in the place of ollama is a script with a first line #!")


@pytest.fixture
def ollama(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a program ``ollama`` on the PATH, which records its arguments, its folder and the file FROM; ``code`` there is its exit code."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "ollama"
    program.write_text(
        f"#!{sys.executable}\n"
        "import os, pathlib, sys\n"
        "place = pathlib.Path(__file__).parent\n"
        "source = next(line for line in open('Modelfile', encoding='utf-8') if line.startswith('FROM ')).split(' ', 1)[1].strip()\n"
        "(place / 'got').write_text('\\n'.join([*sys.argv[1:], os.getcwd(), source, str(pathlib.Path(source).exists())]))\n"
        "print('gathering model components')\n"
        "code = place / 'code'\n"
        "sys.exit(int(code.read_text()) if code.exists() else 0)\n",
        encoding="utf-8",
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


def got(ollama: Path) -> list[str]:
    return (ollama / "got").read_text(encoding="utf-8").splitlines()


def test_the_modelfile_names_the_file_and_ollama_gets_it(
    tiny_checkpoint: Path, tmp_path: Path, evalset: Path, ollama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny_checkpoint, tmp_path, evalset, "--gguf", "f32", "--ollama", "--create", "org/tiny:1") == 0

    out = tmp_path / "out"
    assert sorted(path.name for path in out.iterdir()) == ["Modelfile", "out-f32.gguf"]
    assert (out / "Modelfile").read_text(encoding="utf-8").splitlines()[:2] == [
        f"# {tiny_checkpoint}, template chatml: the template is that of the model, proved by sftchat",
        "FROM ./out-f32.gguf",
    ]
    assert got(ollama) == ["create", "org/tiny:1", "-f", "Modelfile", str(out), "./out-f32.gguf", "True"]
    output = capfd.readouterr()
    assert "proved that Ollama writes the model's prompts: one turn" in output.err
    assert "gathering model components\n" in output.err
    assert "gathering" not in output.out


def test_a_file_that_fails_gets_no_modelfile_and_ollama_is_not_run(
    tiny_checkpoint: Path, tmp_path: Path, evalset: Path, ollama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "sftchat.models.gguf_write._read_array", lambda architecture, name, weights, config: weights.float().cpu().numpy()[::-1].copy()
    )

    assert export(tiny_checkpoint, tmp_path, evalset, "--gguf", "f32", "--margin", "2", "--ollama", "--create", "tiny") == 1

    assert [path.name for path in (tmp_path / "out").iterdir()] == ["out-f32.failed.gguf"]
    assert not (ollama / "got").exists()


def test_a_failure_of_ollama_is_one_line_and_the_files_stay(
    tiny_checkpoint: Path, tmp_path: Path, ollama: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (ollama / "code").write_text("7", encoding="utf-8")
    out = tmp_path / "out"

    assert main(["export", str(tiny_checkpoint), "-o", str(out), "--ollama", "--create", "tiny", "-q"]) == 3

    assert got(ollama) == ["create", "tiny", "-f", "Modelfile", str(out), ".", "True"]
    assert (out / "model.safetensors").is_file()
    assert capfd.readouterr().err.splitlines()[-1] == (
        f"sftchat: error: 'ollama create tiny' failed with exit code 7; the files are in {out}, to try again: "
        f"cd {out} && ollama create tiny -f Modelfile"
    )


def test_without_ollama_the_command_is_printed_before_anything_is_written(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    out = tmp_path / "my out"

    assert main(["export", str(tiny_checkpoint), "-o", str(out), "--ollama", "--create", "tiny"]) == 2

    assert capsys.readouterr().err == (
        "sftchat: error: --create needs the program 'ollama', which is not on the PATH; leave it out, and where ollama is, type: "
        f"cd '{out}' && ollama create tiny -f Modelfile\n"
    )
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--ollama", "--create", "a b"], "--create is 'a b', must be a name for Ollama such as org/model:tag"),
        (["--ollama", "--create=-f"], "--create is '-f', must be a name for Ollama"),
        (["--gguf", "f16", "--create", "tiny"], "--create tiny needs the Modelfile of --ollama"),
        (["--gguf", "f16", "--smallest"], "--smallest tries all types; leave out --gguf f16"),
    ],
)
def test_wrong_options_are_one_line(
    words: list[str], reason: str, tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", str(tiny_checkpoint), "-o", str(tmp_path / "out"), *words]) == 2
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
