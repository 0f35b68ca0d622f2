"""The subset of Go's template language for Modelfiles: the same output as Go, and no guesses."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sftchat.models.gotemplate import GoTemplateError, evaluate, literal

DATA = {
    "System": "S",
    "Empty": "",
    "Messages": [{"Role": "user", "Content": "a"}, {"Role": "assistant", "Content": "b"}],
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("a {{ .System }} b", "a S b"),
        ("a \n{{- .System -}}\n b", "aSb"),
        ("a {{- /b", "no"),
        ("{{ if .System }}yes{{ else }}no{{ end }}", "yes"),
        ("{{ if .Empty }}yes{{ else if .System }}other{{ else }}no{{ end }}", "other"),
        ("{{ range .Messages }}{{ .Role }}:{{ .Content }};{{ end }}", "user:a;assistant:b;"),
        ("{{ range $i, $m := .Messages }}{{ $i }}{{ $m.Content }}{{ $.System }}{{ end }}", "0aS1bS"),
        ("{{ range .Empty }}x{{ else }}none{{ end }}", "none"),
        ('{{ range .Messages }}{{ if eq .Role "user" "tool" }}[{{ .Content }}]{{ end }}{{ end }}', "[a]"),
        ("{{ if and (gt (len .Messages) 1) (not .Empty) }}ok{{ end }}", "ok"),
        ("{{ or .Empty .System }}{{ and .System .Empty }}", "S"),
        ('{{ "{{" }} {{ "a\\nb" }} {{ 3 }} {{ not .Empty }}', "{{ a\nb 3 true"),
    ],
)
def test_a_template_renders_as_in_go(source: str, text: str) -> None:
    if text == "no":
        with pytest.raises(GoTemplateError, match="an action is not closed"):
            evaluate(source, DATA)
        return
    assert evaluate(source, DATA) == text


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("{{ .Tools }}", "no field 'Tools'"),
        ("{{ .System | upper }}", "cannot read '| upper'"),
        ("{{ upper .System }}", "unknown name 'upper'"),
        ("{{ if .System }}", "has no {{ end }}"),
        ("{{ end }}", "unexpected {{ end }}"),
        ("{{ }}", "an action is empty"),
        ("{{ .System .System }}", "cannot evaluate"),
    ],
)
def test_unknown_syntax_is_refused(source: str, words: str) -> None:
    with pytest.raises(GoTemplateError, match=words.replace("{", r"\{").replace("|", r"\|")):
        evaluate(source, DATA)


@settings(database=None)
@given(st.text(st.sampled_from('{} "\\\n-ac'), max_size=12))
@example('a {{ b }} {{{{ \\ " \n c')
def test_literal_text_comes_before_values_unchanged(text: str) -> None:
    assert evaluate(literal(text), {}) == text
    assert evaluate(f"{literal(text)}{{{{ if .A }}}}{literal(text)}{{{{ end }}}}", {"A": True}) == 2 * text
