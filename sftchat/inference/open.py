"""Opens the engine for a MODEL argument; options and files are checked before weights are loaded."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.util import find_spec
from typing import Any, cast

from sftchat._util.fallback import report_fallback
from sftchat.engine import OFF, Adapts, Chunk, Engine, EngineType, Renders, Request
from sftchat.errors import EngineError, MissingExtraError, UsageError, in_one_line
from sftchat.inference.guarded import open_guarded
from sftchat.models.reference import ModelReference, resolve
from sftchat.types import Message


def require_endpoint(what: str) -> None:
    """Check that the HTTP client is installed.

    Args:
        what: What needs it, for the message.

    Raises:
        MissingExtraError: When the extra ``endpoint`` is missing; the message has the install command.
    """
    if any(find_spec(name) is None for name in ("httpx2", "anyio")):
        raise MissingExtraError(what, "endpoint")


def load_engine(
    model: str, engine_types: Mapping[str, EngineType], *, base: str | None = None, allow_pickle: bool = False, template: str | None = None,
    template_name: str | None = None, template_arguments: Mapping[str, Any] | None = None, concurrency: int = 16, timeout: float = 120.0, request_timeout: float = 600.0,
    extra_body: Mapping[str, Any] | None = None, quantize: str | None = None, interactive: bool = False,
    importing: Callable[[], AbstractContextManager[None]] = nullcontext, **options: Any,
) -> Engine:  # fmt: skip
    """Open the engine for a MODEL argument.

    Args:
        model: MODEL argument, see ``sftchat.models.reference.resolve``.
        engine_types: Engine types of plugins, by scheme.
        base: Base model of an adapter.
        allow_pickle: Whether pickled weights may be loaded.
        template: Chat template name or file, instead of the model's own.
        template_name: Name of the model's own template to use for every conversation.
        template_arguments: Arguments of the template, overriding those of training; a server receives them as ``chat_template_kwargs``.
        concurrency: Maximum number of simultaneous requests to a server, at least 1.
        timeout: Maximum time without data from a server, in seconds.
        request_timeout: Maximum total time of one request to a server, in seconds.
        extra_body: Additional fields of the JSON body of every request to a server.
        quantize: ``int8`` rounds the linear layers of a model on a CPU to eight bits, ``nf4`` to four bits with bitsandbytes; None for no
            quantization.
        interactive: Whether the replies are read and not compared: then ``dtype`` ``auto`` keeps a checkpoint in bfloat16 on a CPU that multiplies
            bfloat16, which halves the bytes read per token; in float32 a reply does not depend on the batch.
        importing: Returns a context manager for the import of model libraries and the loading of a local model; ``deferred_imports`` for programs
            that only do inference.
        options: ``dtype``, ``device``, ``trust_remote_code``, ``preferred`` (the task's template).

    Raises:
        UsageError: When MODEL is not a valid reference, or an option does not apply to its kind of model.
        ModelError: When the model cannot be loaded.
        MissingExtraError: When a package needed for this kind of model is not installed.
    """
    reference = resolve(model, base=base, schemes=engine_types, allow_pickle=allow_pickle)
    if reference.served:
        if template or template_name:
            option = "--template" if template else "--template-name"
            raise UsageError(f"{option} is for local models; the server of '{model}' renders prompts with its own")
        if quantize:
            raise UsageError(f"--quantize is for local models; '{model}' is behind a server")
        require_endpoint(f"model '{model}'")
        from sftchat.inference.openai.engine import open_endpoint

        return open_endpoint(
            reference.source, concurrency=concurrency, timeout=timeout, request_timeout=request_timeout,
            extra_body=extra_body, template_arguments=template_arguments,
        )  # fmt: skip
    if extra_body:
        raise UsageError(f"--extra-body is for models behind a server; '{model}' is a local model")
    if reference.is_gguf:
        if quantize:
            raise UsageError(f"--quantize is for checkpoint folders; '{model}' is a GGUF file, whose weights are rounded already")
        from sftchat.inference.llama_cpp import open_gguf

        return open_gguf(
            model, reference, template=template or "", template_name=template_name or "", template_arguments=template_arguments,
            preferred=options.get("preferred", "chatml"), device=str(options.get("device", "auto")),
        )  # fmt: skip
    if reference.scheme:
        return open_guarded(engine_types[reference.scheme], reference.source, options)
    from sftchat.models.loading import LOADING, load, require_local

    require_local(f"model '{model}'")
    if quantize:
        _check_quantization(quantize, options)
        options |= {"dtype": "bfloat16", "four_bit": quantize == "nf4"}
        if quantize == "nf4":
            importing = nullcontext  # bitsandbytes needs the modules that ``deferred_imports`` would not import

    def open_local() -> Engine:
        with LOADING, importing():
            import torch

            from sftchat.inference.cpu import optimize_for_inference
            from sftchat.inference.linears import can_pack
            from sftchat.inference.local import TransformersEngine

            loaded = load(
                reference, template=template or "", template_name=template_name or "", template_arguments=template_arguments,
                allow_pickle=allow_pickle, keep_bfloat16=interactive and can_pack(torch.bfloat16), **options,
            )  # fmt: skip
        merges = optimize_for_inference(loaded.model, int8=quantize == "int8")
        return TransformersEngine(model, loaded, merges=merges, quantized=quantize or "")

    try:
        return open_local()
    except Exception as error:
        if importing is nullcontext or not _is_missing_import(error):
            raise
        report_fallback("importing the model libraries in parts", in_one_line(error))
        importing = nullcontext  # for open_local, which now imports everything
        return open_local()


def _is_missing_import(error: BaseException | None) -> bool:
    """Whether an error, or one that caused it, is about a missing module or a missing name in a module."""
    while error is not None:
        if isinstance(error, ImportError | AttributeError | NameError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _check_quantization(quantize: str, options: Mapping[str, Any]) -> None:
    """Validate ``quantize`` against device and dtype before weights are loaded; raises ``UsageError`` or ``MissingExtraError``."""
    from sftchat.models.loading import choose_device

    device, dtype = choose_device(str(options.get("device", "auto"))), options.get("dtype", "auto")
    if quantize == "int8" and device != "cpu":
        raise UsageError(f"--quantize int8 is for decoding on a CPU and the device is '{device}'; add --device cpu or take --quantize nf4")
    if dtype not in ("auto", "bfloat16"):
        raise UsageError(f"--quantize {quantize} computes in bfloat16 and --dtype is '{dtype}'; leave one of them out")
    if quantize == "nf4" and find_spec("bitsandbytes") is None:
        raise MissingExtraError("--quantize nf4", "quant")
    if quantize == "nf4" and device.startswith("mps"):
        raise UsageError("--quantize nf4 needs 4-bit matrix products, which this device does not support; use --device cpu")


Load = Callable[..., Engine]
"""Opens a model, given MODEL and the options of ``load_engine``: ``Session.load_engine``."""


class AdapterEngine:
    """An ``Engine`` for one of the models that share an engine.

    Args:
        name: Name of the model, as the user gave it.
        engine: Engine with the base model.
        adapter: Name of the adapter, ``OFF`` for the base model.

    Attributes:
        engine: The shared engine.
        adapter: Adapter of all requests.
    """

    def __init__(self, name: str, engine: Engine, adapter: str) -> None:
        self.name = name
        self.engine = engine
        self.adapter = adapter

    @property
    def context_length(self) -> int:
        """Maximum number of tokens, prompt and reply together."""
        return cast(Renders, self.engine).context_length

    def render(self, messages: Sequence[Message]) -> str:
        """Return the templated text of a conversation, ready for the reply."""
        return cast(Renders, self.engine).render(messages)

    def generate(self, requests: Iterable[Request]) -> Iterator[Chunk]:
        """Generate replies with the model's adapter.

        Raises:
            EngineError: When the engine as a whole fails.
        """
        return self.engine.generate(replace(request, adapter=self.adapter) for request in requests)

    def close(self) -> None:
        """Do nothing; the shared engine is closed by its owner."""


def load_with_adapters(load: Load, base: ModelReference, adapters: Sequence[ModelReference], options: Mapping[str, Any]) -> Engine:
    """Open a base model and add adapters to it, each under its MODEL argument.

    Args:
        load: Opens the base model.
        base: The base model.
        adapters: The adapters; may be empty.
        options: Further arguments of ``load``.

    Raises:
        ModelError: When a model cannot be loaded.
        EngineError: When the engine does not support adapters.
    """
    engine = load(base.argument, **{**options, "base": None})
    try:
        if adapters and not isinstance(engine, Adapts):
            raise EngineError(f"the engine of '{base.argument}' takes no adapters")
        for adapter in adapters:
            cast(Any, engine).add_adapter(adapter.text, adapter)  # a reference, since its text alone would lose the option --base
    except BaseException:
        engine.close()
        raise
    return engine


class EnginePool:
    """Opens models; loads the base model of several adapters only once.

    Args:
        load: Opens a base model, or a model with the scheme of a server or a plugin.
        schemes: Schemes of the engine types of plugins.
        max_open: Maximum number of open base models; the oldest is closed before the next one is loaded.
    """

    def __init__(self, load: Load, schemes: Collection[str] = (), max_open: int = 1) -> None:
        self._load = load
        self._schemes = schemes
        self._max_open = max_open
        self._open: dict[tuple[Any, ...], Engine] = {}

    def __call__(self, model: str, *, base: str | None = None, **options: Any) -> Engine:
        """Open a model; options as in ``sftchat.inference.open.load_engine``.

        Raises:
            UsageError: When MODEL is not a valid reference.
            ModelError: When the model cannot be loaded.
        """
        reference = resolve(model, base=base, schemes=self._schemes, allow_pickle=bool(options.get("allow_pickle")))
        if reference.scheme:
            return self._load(model, base=base, **options)
        base_model = reference.base or reference
        given_options = sorted((name, repr(value)) for name, value in options.items() if value is not None)
        key = (base_model.source, base_model.revision, *given_options)
        if key not in self._open:
            while len(self._open) >= self._max_open:
                oldest = next(iter(self._open))
                self._open.pop(oldest).close()
            self._open[key] = self._load(base_model.argument, base=None, **options)
        engine = self._open[key]
        if not isinstance(engine, Adapts):  # only an engine from a test; it is not shared
            del self._open[key]
            return engine
        if reference.base is None:
            return AdapterEngine(model, engine, OFF)
        if model not in engine.adapters:
            try:
                cast(Any, engine).add_adapter(model, reference)  # a reference, since its text alone would lose the option --base
            except BaseException:
                del self._open[key]  # a failed load may leave the engine inconsistent
                raise
        return AdapterEngine(model, engine, model)

    def close(self) -> None:
        """Close all open engines."""
        while self._open:
            self._open.popitem()[1].close()
