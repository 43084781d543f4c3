"""What `--dry-run` prints: what would be computed, how, with how much memory and in about how long; as text, or as JSON.

Entries: `write_dry_run` for one problem, `write_batch_dry_run` for many.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from attncli.calibration import Calibrations
from attncli.cli.environment import Environment
from attncli.cli.messages import Messages
from attncli.cli.output import standard_output_writer
from attncli.cli.progress import load_engine_with_message
from attncli.errors import CannotError, ExitStatus
from attncli.output_formats import Format
from attncli.plan.estimate import TYPICAL_CALIBRATION, Calibration, describe_bytes, describe_seconds, estimate_run
from attncli.plan.memory import available_memory_bytes
from attncli.text import join_names, pluralize, printable

if TYPE_CHECKING:
    from attncli.batch.run import DryRunEntry
    from attncli.plan import Plan
    from attncli.select import Selection
    from attncli.types import Json


def find_calibration(environment: Environment) -> Calibration:
    """Return what was measured of this machine before; otherwise what is typical."""
    return Calibrations(environment.variables).read() or TYPICAL_CALIBRATION


def require_calibration(environment: Environment, messages: Messages) -> Calibration:
    """Return what was measured of this machine; where it was not, measure it, once. Without torch: what is typical."""
    calibrations = Calibrations(environment.variables)
    if (known := calibrations.read()) is not None:
        return known
    try:
        return calibrations.measure(lambda: load_engine_with_message(messages))
    except CannotError as error:
        messages.warning(f"not-measured: {error.message}, so times are those of a typical machine")
        return TYPICAL_CALIBRATION


# ── one problem ──────────────────────────────────────────────────────────────────────────────────
def write_dry_run(
    environment: Environment,
    messages: Messages,
    plan: Plan,
    selection: Selection,
    format: Format,
    *,
    read_bytes: int,
    streamed: bool,
    as_json: bool,
) -> None:
    """Write how a problem would be computed, and what that would take.

    Args:
        environment: its streams.
        messages: where notes go.
        plan: what would be computed.
        selection: which part of it would be shown.
        format: in which format.
        read_bytes: of the input, where it is text.
        streamed: whether matrices would go to a file as they are computed.
        as_json: whether it is written for a program.
    """
    from attncli.pipeline import count_written_numbers

    calibration = require_calibration(environment, messages)
    estimate = estimate_run(
        plan,
        calibration,
        read_bytes=read_bytes,
        written_numbers=count_written_numbers(plan, selection, format),
        streamed=streamed,
    )
    free_bytes = available_memory_bytes()
    write = standard_output_writer(environment, "attn.json" if as_json else "attn")
    steps = [name for name in plan.steps if name in plan.keep]
    if as_json:
        record: Json = {
            "source": plan.problem.source or None,
            "schedule": estimate.schedule,
            "scores": estimate.score_count,
            "scores_at_once": plan.tile_size or None,
            "steps": steps,
            "memory_bytes": estimate.memory_bytes,
            "free_bytes": free_bytes,
            "seconds": float(f"{estimate.seconds:.2g}"),
            "load_seconds": float(f"{calibration.load:.2g}"),
            "warnings": list(plan.warnings),
        }
        write(json.dumps({name: value for name, value in record.items() if value is not None}) + "\n")
        return
    at_once = f", about {plan.tile_size:,} at once" if estimate.schedule == "tiled" else ""
    free = "" if free_bytes is None else f", of {describe_bytes(free_bytes)} that are free"
    lines = {
        "computes": ", ".join(plan.summary),
        "schedule": f"{estimate.schedule}: {estimate.score_count:,} {'score' if estimate.score_count == 1 else 'scores'}{at_once}",
        "keeps": ", ".join(steps),
        "memory": f"about {describe_bytes(estimate.memory_bytes)} beside the input{free}",
        "time": f"{describe_seconds(estimate.seconds)} once torch is loaded",
    }
    for name, text in lines.items():
        write(f"{name:<9} {text}\n")
    for warning in plan.warnings:
        messages.warning(warning)


# ── many ─────────────────────────────────────────────────────────────────────────────────────────
def write_batch_dry_run(
    environment: Environment,
    messages: Messages,
    entries: Iterable[DryRunEntry],
    results_folder: Path,
    calibration: Calibration,
    *,
    process_count: int,
    as_json: bool,
) -> ExitStatus:
    """Write a line for each input: what would be done, or why it would fail; then what all of it would take."""
    status = ExitStatus.OK
    counts = {"compute": 0, "skip": 0, "fail": 0}
    seconds, memory_bytes, schedules = 0.0, 0, dict[str, None]()
    write = standard_output_writer(environment, "attn.json" if as_json else "attn")
    for entry in entries:
        input, action, error, estimate = entry
        counts[action] += 1
        if error is not None:
            status = ExitStatus.NO
        if estimate is not None:
            seconds += estimate.seconds
            memory_bytes = max(memory_bytes, estimate.memory_bytes)
            schedules[estimate.schedule] = None
        if as_json:
            write(json.dumps(_entry_record(entry, results_folder)) + "\n")
        elif error is None:
            write(printable(f"{action:<8}{input.display_name} → {results_folder / input.result_path}") + "\n")
        else:
            write(printable(f"fail    {input.display_name}: {error.code}: {error.message}") + "\n")
    elapsed = seconds / process_count + calibration.load * bool(counts["compute"])
    if as_json:
        summary = {
            "type": "summary",
            **counts,
            "processes": process_count,
            "seconds": float(f"{elapsed:.2g}"),
            "memory_bytes": memory_bytes * process_count,
        }
        write(json.dumps(summary) + "\n")
    elif counts["compute"] and not messages.quiet:
        how = join_names(schedules, "and")
        by = "" if process_count == 1 else f" by {process_count} processes"
        memory = f"{describe_bytes(memory_bytes)}{' each' if process_count > 1 else ''} beside the inputs"
        would = f"would compute {pluralize(counts['compute'], 'input')} ({how}){by}"
        messages.write(f"{would}: {describe_seconds(seconds / process_count)} once torch is loaded, {memory}")
    return status


def _entry_record(entry: DryRunEntry, results_folder: Path) -> Json:
    """What a program is told of one input."""
    record: Json = {"input": entry.input.display_name, "action": entry.action}
    if entry.error is not None:
        return record | {"error": entry.error.to_record()}
    record["result"] = str(results_folder / entry.input.result_path)
    if entry.estimate is not None:
        record |= {
            "schedule": entry.estimate.schedule,
            "scores": entry.estimate.score_count,
            "memory_bytes": entry.estimate.memory_bytes,
            "seconds": float(f"{entry.estimate.seconds:.2g}"),
        }
    return record
