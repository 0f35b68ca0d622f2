"""The flags of ``sftchat eval`` that demand something, and the two deeds that come of them: planning, and writing a baseline."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from sftchat.cli.shared import json_text
from sftchat.errors import SftchatError, UsageError

if TYPE_CHECKING:
    from sftchat.evaluation.gate import GateOptions, Verdict
    from sftchat.evaluation.plan import Plan, Selection
    from sftchat.evaluation.report.view import Report
    from sftchat.plugins.manager import Registry

F = TypeVar("F", bound=Callable[..., Any])
FILE = click.Path(path_type=Path)

_DEMANDS = (
    click.option("--gate", "gated", multiple=True, metavar="METRIC[=MARGIN]", help="Metric to compare, margin in points; repeatable."),
    click.option(
        "--min-drop", type=click.FloatRange(min=0), default=0.5, show_default=True, metavar="X", help="Points; less is no regression."
    ),
    click.option("--min", "floors", multiple=True, metavar="METRIC=X", help="Smallest acceptable value, repeatable; exit 1 when missed."),
    click.option("--min-lower", "lower_floors", multiple=True, metavar="METRIC=X", help="The same for the lower bound of the interval."),
    click.option("--must-pass", multiple=True, metavar="FILE|ID", help="Items that must be right, repeatable; exit 1 when one is not."),
    click.option("--strict", is_flag=True, help="Exit 4 where a drop beyond the margin cannot be excluded, or items differ."),
    click.option("--require-baseline", is_flag=True, help="Exit 4 where the baseline file is missing: the default, stated."),
    click.option("--allow-missing-baseline", is_flag=True, help="Go on where the baseline file is missing: for the first run."),
)
_OTHERS = (
    click.option("--update-baseline", multiple=True, metavar="[TASK=]FILE", help="Write the model's replies as the new baseline."),
    click.option("--plan", "planning", is_flag=True, help="Load no model; say how small a drop the evalset can show."),
    click.option("--cluster", default="", metavar="KEY", help="Metadata key of items that belong together, such as one document's."),
    click.option("--ids", multiple=True, metavar="FILE|ID", help="Evaluate these items alone, without a gate; repeatable."),
    click.option("--only", type=click.Choice(["newly-broken", "failing"]), help="Evaluate what went wrong the last time, without a gate."),
    click.option("--from", "past", type=FILE, metavar="DIR", help="The last time: an output folder; else the baseline file."),
)
DEMANDS = ("gated", "min_drop", "floors", "lower_floors", "must_pass", "strict", "require_baseline", "allow_missing_baseline")


def gate_options(command: F) -> F:
    """Add the flags."""
    for option in reversed((*_DEMANDS, *_OTHERS)):
        command = option(command)
    return command


def chosen_demands(options: dict[str, Any]) -> GateOptions:
    """Take the demands out of a command's options.

    Raises:
        UsageError: When they contradict each other.
    """
    from sftchat.evaluation.gate import GateOptions

    demands = GateOptions(**{name: options.pop(name) for name in DEMANDS})
    demands.check()
    return demands


def chosen_selection(options: dict[str, Any], demands: GateOptions) -> Selection | None:
    """Take the selection out of a command's options; None where everything is evaluated.

    Raises:
        UsageError: With a demand on the result, because no gate is computed on a selection.
    """
    from sftchat.evaluation.plan import Selection

    ids, only, past = (options.pop(name) for name in ("ids", "only", "past"))
    if past is not None and only is None:
        raise UsageError("--from says where --only looks; add --only newly-broken or --only failing")
    if (ids or only) and demands.in_use:
        raise UsageError(
            f"{'--ids' if ids else '--only'} evaluates a selection without a gate, and {demands.in_use[0]} demands one; leave one of them out"
        )
    return Selection(ids, only, past) if ids or only else None


def check_updates(files: Mapping[str, str | None], plans: Sequence[Plan], limit: int | None) -> None:
    """Refuse, while it is cheap, to write a baseline that would be partial, ambiguous or in the place of something else.

    Raises:
        UsageError: When one would be.
    """
    from sftchat.evaluation.baseline import SCHEMA_VERSION, version_of

    taken: dict[Path, str] = {}
    for plan in plans:
        file = files[plan.task.name]
        if file is None:
            continue
        path = Path(file)
        if plan.selected or limit is not None:
            raise UsageError("--update-baseline needs every item; leave out --limit, --ids and --only")
        if len(plan.sources) > 1:
            raise UsageError(f"--update-baseline takes one MODEL, not {len(plan.sources)}")
        version = version_of(path)
        if path.exists() and version is None:
            raise UsageError(f"'{path}' is no baseline, and is not overwritten; give another file")
        if type(version) is int and version > SCHEMA_VERSION:
            raise UsageError(f"'{path}' is a baseline of schema version {version}; this sftchat writes {SCHEMA_VERSION}; give another file")
        if (other := taken.setdefault(path.resolve(), plan.task.name)) != plan.task.name:
            raise UsageError(f"--update-baseline: '{path}' cannot hold both {other} and {plan.task.name}; give each a file of its own")
        if not path.parent.is_dir():
            raise UsageError(f"no folder '{path.parent}' for the baseline")
        if not os.access(path.resolve().parent, os.W_OK):
            raise UsageError(f"baseline '{path}' may not be written; give another file")


def update_baselines(
    files: Mapping[str, str | None], plans: Sequence[Plan], report: Report, verdict: Verdict, registry: Registry, options: dict[str, Any]
) -> Iterator[str]:
    """Write what the model said as the new baselines, unless the gate refuses it; yields what changed, in lines for the user."""
    from sftchat.evaluation.baseline import Header, known_sampling, write_baseline
    from sftchat.evaluation.scored import scored_items

    for plan in plans:
        file = files[plan.task.name]
        if file is None:
            continue
        results = [result for result in report.results if result.task == plan.task.name]
        if any(result.failures for result in results):
            yield f"baseline {file}: not written, because some items were not answered"
            continue
        if verdict.outcome == "fail":
            yield f"baseline {file}: not written, because the verdict is fail; without --baseline and --min it is"
            continue
        source = plan.sources[0]
        asked = source.stored is None
        weights, template = _identity(source.name, registry, options) if asked else ("", "")
        header = Header(
            plan.task.name,
            tuple(metric.name for metric in plan.task.metrics),
            source.name,
            weights,
            template,
            tuple(result.evalset for result in results),
            known_sampling(plan.sampling) if asked else None,
        )
        items = results[0].items if len(results) == 1 else scored_items(item for result in results for item in result.items)
        yield from write_baseline(Path(file), header, items)


def show_plan(plans: Sequence[Plan], as_json: bool) -> None:
    """Print the smallest drops that the evalsets can show, from the baselines' items.

    Raises:
        UsageError: When there are no stored items to plan from.
    """
    from sftchat.evaluation.power import lines, planned

    found = planned(plans)
    if as_json:
        click.echo(json_text([vars(one) for one in found], sort_keys=True))
        return
    for one in found:
        for line in lines(one):
            click.echo(line)


def _identity(model: str, registry: Registry, options: dict[str, Any]) -> tuple[str, str]:
    """Hashes of a model's weights and of its chat template; empty where nobody knows."""
    from sftchat.models.fingerprint import identity
    from sftchat.models.manifest import read_manifest
    from sftchat.models.reference import resolve

    reference = resolve(model, base=options.get("base"), schemes=registry.engines, allow_pickle=options.get("allow_pickle", False))
    if reference.scheme:
        return "", ""
    try:
        manifest = read_manifest(reference.folder) if reference.folder else None
    except SftchatError:
        manifest = None
    return identity(reference), manifest.template_hash if manifest else ""
