"""A chat template that needs too much time or memory is refused soon; ordinary ones render as before."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sftchat.errors import ModelError
from sftchat.models.loading import load_tokenizer
from sftchat.models.reference import resolve
from sftchat.templates import limits as template_limits
from sftchat.templates.limits import TooMuchError, check_size, run_bounded
from sftchat.templates.renderer import choose_renderer

TURNS = [{"role": "user", "content": "hi"}]
GROWING = "{%% set ns = namespace(x=%s) %%}{%% for i in range(200) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ ns.x }}"
AT_ONCE = (
    "{{ 'a' * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{{ [1] * 10**9 }}",
    "{{ 10 ** (10 ** 9) }}",
    "{{ 'x'|center(10**9) }}",
    "{{ 'x'.center(1000000000) }}",
    "{{ 'x'.zfill(1000000000) }}",
    "{{ (1).to_bytes(10**9, 'big') }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '%0999999999d'|format(1) }}",
    "{{ '{:>999999999}'.format(1) }}",
    "{{ '{:>{w}}'.format(1, w=999999999) }}",
    "{{ 'a'|indent(10**9, true) }}",
    "{{ messages|tojson(indent=10**9) }}",
    "{{ [1]|batch(10**9, 'z')|list }}",
    "{{ ('a' * 4000000)|replace('a', 'b' * 4000000) }}",
    "{{ ('a' * 4000000).replace('a', 'b' * 4000000) }}",
    "{{ range(99999)|join('a' * 100000) }}",
    GROWING % ("'aa'", "ns.x ~ ns.x"),
    GROWING % ("'aa'", "ns.x + ns.x"),
    GROWING % ("['a']", "[ns.x, ns.x]"),
    GROWING % ("['a']", "(ns.x, ns.x)"),
    GROWING % ("['a']", "{'a': ns.x, 'b': ns.x}"),
    GROWING % ("['a']", "dict(a=ns.x, b=ns.x)"),
    GROWING % ("3", "ns.x * ns.x"),
    "{% set s = 'a' * 1000000 %}{% for i in range(10000) %}{{ s }}{% endfor %}",
)
ENDLESS = (
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(90) }}",
    "{{ lipsum(n=100000000) }}",
)


def render(source: str, turns: Any = None) -> str:
    """A conversation under a template, as transformers renders it."""
    from transformers.utils.chat_template_utils import render_jinja_template

    texts, _ = run_bounded(source, lambda: render_jinja_template([turns or TURNS], chat_template=source))
    return str(texts[0])


@pytest.mark.parametrize("source", AT_ONCE)
def test_no_single_operation_exceeds_its_limit(source: str) -> None:
    before = time.thread_time()

    with pytest.raises(TooMuchError):
        render(source)

    assert time.thread_time() - before < 3


@pytest.mark.parametrize("source", ENDLESS)
def test_an_endless_rendering_is_stopped_and_not_repeated(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.3)

    with pytest.raises(TooMuchError, match="runs for more than 0.3 seconds"):
        render(source)

    before = time.thread_time()
    with pytest.raises(TooMuchError, match="runs for more than 0.3 seconds"):
        render(source)
    assert time.thread_time() - before < 0.1


def test_memory_of_many_small_operations_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_MEMORY_GROWTH", 64 << 20)
    monkeypatch.setattr(template_limits, "SECONDS_BEFORE_WATCHING", 0.05)

    with pytest.raises(TooMuchError, match="takes more than 64 MiB of memory"):
        render("{{ range(99999)|map('center', 50000)|list|length }}")


def test_a_rendering_in_another_thread_is_stopped_and_its_thread_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_limits, "MAX_SECONDS", 0.3)
    said: list[str] = []

    def work() -> None:
        for source in ("{% for i in range(99998) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "{{ messages[0].content }}"):
            try:
                said.append(render(source))
            except TooMuchError:
                said.append("stopped")

    thread = threading.Thread(target=work)
    thread.start()
    mine = [render("{{ messages[0].content }} " + str(number)) for number in range(50)]
    thread.join(60)

    assert said == ["stopped", "hi"]
    assert mine == [f"hi {number}" for number in range(50)]


@pytest.mark.parametrize("step", ["clear", "wait"])
def test_a_rendering_that_starts_while_the_watchdog_goes_to_sleep_wakes_it(step: str) -> None:
    watchdog = template_limits._Watchdog(thread=threading.current_thread())  # no thread of its own

    class StartingEvent(threading.Event):
        """Starts a rendering directly before one of the watchdog's steps."""

        def clear(self) -> None:
            if step == "clear":
                watchdog.start()
            super().clear()

        def wait(self, timeout: float | None = None) -> bool:
            if step == "wait":
                watchdog.start()
            assert self.is_set(), "the watchdog would sleep although a rendering has started"
            return True

    watchdog.is_needed = StartingEvent()
    watchdog.last_start = time.monotonic() - 2 * template_limits.IDLE_SECONDS
    watchdog._sleep_while_idle()


def test_usual_operations_work_as_before() -> None:
    source = (
        "{{ 3 * 4 }} {{ 2 ** 10 }} {{ 7 % 2 }} {{ '-' * 3 }} {{ '%s-%d'|format('a', 3) }} {{ '%5.2f' % 1.5 }} {{ '{}:{}'.format(1, 'b') }} "
        "{{ ['a', 'b']|join(', ') }} {{ 'abc'|replace('b', 'x') }} {{ 1732000000|tojson }} {{ 'a' ~ 1 ~ none }} {{ [1, (2, 3), {'a': 4}] }} "
        "{% for key, value in {'k': 'v'}.items() %}{{ key + value }}{% endfor %} {{ 'a,b'.split(',')|length }} {{ messages|tojson }}"
    )

    assert render(source) == (
        '12 1024 1 --- a-3  1.50 1:b a, b axc 1732000000 a1None [1, (2, 3), {\'a\': 4}] kv 2 [{"role": "user", "content": "hi"}]'
    )


VALUES = st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_the_size_of_plain_values_is_estimated_without_changing_them(value: Any) -> None:
    assert check_size(value) is value


def test_a_template_of_a_model_that_asks_for_too_much_is_a_model_error() -> None:
    tokenizer = load_tokenizer(resolve("sftchat:nano"))
    tokenizer.chat_template = "{% for message in messages %}{{ message.content * 10**10 }}{% endfor %}"

    with pytest.raises(
        ModelError, match="chat template 'model's own' asks for too much: operator .* would make .*; give another with --template"
    ):
        choose_renderer(tokenizer).prompt_ids([{"role": "user", "content": "hi"}])
