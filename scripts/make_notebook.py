"""Write and execute the notebook of examples/notebook, with the embedded model, in a minute on a CPU.

    python scripts/make_notebook.py

Needs nbclient, nbformat and ipykernel. tests/api/test_python_page.py executes the notebook again and compares the shape of the outputs.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import nbclient
import nbformat

ROOT = Path(__file__).parent.parent
NOTEBOOK = ROOT / "examples" / "notebook" / "tickets.ipynb"

CELLS = (
    (
        "markdown",
        "# Did it learn my task?\n\nFifteen support tickets and four labels: measure a model, look at its mistakes, fine-tune it on a few dozen other "
        "tickets, and compare. The model is the embedded one with six million parameters, so everything runs in a minute on a CPU. "
        "[docs/python.md](../../docs/python.md) explains the functions.",
    ),
    (
        "code",
        'import sftchat\n\nLABELS = ["billing", "hardware", "account", "other"]\n'
        'SYSTEM = "Which team handles this ticket: billing, hardware, account or other?"\n'
        'settings = {"scorer": {"name": "choice", "labels": LABELS}, "system": SYSTEM, "sampling": {"max_new_tokens": 8}}\n'
        'sftchat.evaluate("sftchat:nano", "tickets.csv", **settings, progress=False)',
    ),
    ("markdown", "It has never seen a ticket. A function can be the scorer too, for example one that asks only for brevity:"),
    (
        "code",
        "def is_short(example: sftchat.Example, reply: sftchat.Reply) -> bool:\n    return len(reply.text.split()) <= 3\n\n\n"
        'sftchat.evaluate("sftchat:nano", "tickets.csv", scorer=is_short, system=SYSTEM, sampling={"max_new_tokens": 8}, progress=False)',
    ),
    ("markdown", "## Train on other tickets"),
    (
        "code",
        "subjects = {\n"
        '    "billing": ["the invoice", "a payment", "my refund", "the price", "a charge", "my discount", "the receipt", "my credit card"],\n'
        '    "hardware": ["my laptop", "the keyboard", "a monitor", "the printer", "my mouse", "the battery", "my headset", "the screen"],\n'
        '    "account": ["my password", "my login", "my profile", "the reset mail", "my user name", "my e-mail address", "my account", "the sign-in"],\n'
        '    "other": ["your opening hours", "a job in your team", "your office", "thank you", "your newsletter", "a visit", "your address", "good work"],\n'
        "}\n"
        'templates = ["I have a question about {}.", "Please help me with {}.", "There is a problem with {}.", "I write about {}."]\n'
        "rows = [\n"
        '    {"messages": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": template.format(subject)},\n'
        '                  {"role": "assistant", "content": label}]}\n'
        "    for label, of_label in subjects.items() for subject in of_label for template in templates\n"
        "]\n"
        'run = sftchat.train(data=rows, model="sftchat:nano", output="run", epochs=15, learning_rate=1e-3, progress=False)\n'
        'print(len(rows), "rows,", run.manifest.steps, "steps")',
    ),
    ("markdown", "## Compare"),
    (
        "code",
        'report = sftchat.evaluate(run, "tickets.csv", baseline="sftchat:nano", **settings, progress=False)\nreport',
    ),
    ("markdown", "Which tickets are still wrong?"),
    (
        "code",
        'frame = report.items.to_pandas()\nframe.loc[frame["right"] == False, ["prompt", "gold", "answer", "change"]]  # noqa: E712',
    ),
    (
        "markdown",
        "The interval is wide: fifteen tickets say little. `report.to_html()` is the whole report as a page, and `report.verdict` is what "
        "`sftchat eval` would decide in CI.",
    ),
    ("code", "report.verdict.outcome, report.passed"),
)


def main() -> None:
    """Execute the notebook in a temporary folder and store it with its outputs."""
    notebook = nbformat.v4.new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}})
    for number, (kind, text) in enumerate(CELLS):
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        notebook.cells.append(make(text, id=f"cell-{number}"))
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(ROOT / "examples" / "tickets" / "tickets.csv", folder)
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": folder}}).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of this run
    notebook.metadata.pop("language_info", None)
    NOTEBOOK.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
