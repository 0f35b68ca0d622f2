"""Identity of the assistant: its name, its maker, and that it is not a person.

A row: ``你好！你叫什么名字？`` → ``我是 sftchat 的小助手。``
"""

from __future__ import annotations

from typing import Any

from sftchat_general.draft import Draft, RowBuilder

FORMS = ("who", "name", "maker", "nature")

_GOLDS = {
    "zh": {
        "who": "我是{name}。",
        "name": "我是{name}。",
        "maker": "开发我的是{maker}。",
        "nature": "我不是人，我是{name}，一个 AI 程序。",
    },
    "en": {
        "who": "I am {name}.",
        "name": "I am {name}.",
        "maker": "I was made by {maker}.",
        "nature": "I am not a human. I am {name}, an AI program.",
    },
}

OTHERS = (
    "ChatGPT", "GPT", "OpenAI", "Claude", "Anthropic", "Gemini", "Qwen", "通义千问", "阿里", "Llama", "DeepSeek", "文心一言", "豆包", "Kimi",
)  # fmt: skip
"""Other assistants and makers, with which a model may confuse itself."""

MACHINE = (
    "AI", "人工智能", "语言模型", "助手", "我是程序", "我是机器", "我不是人", "我不是真人", "我不是活人",
    "language model", "assistant", "chatbot", "not human", "not a human", "not a person", "not a real person",
)  # fmt: skip
"""Accepted self-descriptions; none occurs in a question."""

PERSON = (
    "我是人类", "我是真人", "我是活人", "我是一个人",
    "I am human", "I am a human", "I am a person", "I am a real person", "I'm human", "I'm a human",
)  # fmt: skip
"""Rejected self-descriptions."""


def compose(builder: RowBuilder) -> Draft:
    """Create a question about the persona."""
    topic = builder.rng.choice(FORMS)
    opener, question, closer = builder.phrase("opener").text, builder.phrase(topic), builder.phrase("closer").text
    name, maker = builder.persona.name[builder.language], builder.persona.maker[builder.language]
    gold = _GOLDS[builder.language][topic]
    if builder.language == "en":
        gold = gold.format(name=name, maker=maker)
    else:
        gold = gold.format(name=_space_before_latin(name), maker=_space_before_latin(maker))
    facts = {"topic": topic, "name": name, "maker": maker}
    return Draft((opener + question.text + closer,), gold, question.form, (_make_constraint(topic, name, maker),), facts)


def _make_constraint(topic: str, name: str, maker: str) -> dict[str, Any]:
    if topic == "nature":
        return {"check": "mentions", "any": list(MACHINE), "none": list(PERSON)}
    answer = (maker if topic == "maker" else name).removeprefix("the ")
    denied = [f"不是{answer}", f"不叫{answer}", f"not {answer}", f"not the {answer}"]
    wrong_names = [other for other in OTHERS if other.casefold() not in answer.casefold()]
    return {"check": "mentions", "any": [answer], "none": [*denied, *wrong_names]}


def _space_before_latin(value: str) -> str:
    """Add a space before a value that starts with a Latin letter, as usual in a Chinese sentence."""
    return f" {value}" if value[0].isascii() else value
