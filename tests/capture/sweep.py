"""Capture a tiny model of every folder of transformers: `python -m tests.capture.sweep` writes the table of docs/models.md.

Each folder runs in a process of its own, with a limit of time, so that one that hangs or dies costs only itself.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import time
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch

from attncli.capture.problems import Labels, build_layer
from attncli.capture.recorder import Recorder
from attncli.capture.run import find_facts
from attncli.capture.sources import NotReadError
from tests.capture import folder_models

MAX_CALLS = 4  # of a class
MAX_MENDINGS = 12  # of the inputs of a model
TIME_LIMIT = 40.0  # seconds of the processor for a folder; six times as many of the clock, as a machine may be shared


def sweep_folder(folder: str, time_limit: float = TIME_LIMIT) -> dict[str, Any]:
    """Capture every class of attention of a folder, and return what was reached."""
    began = time.process_time()
    row: dict[str, Any] = {"folder": folder, "strategy": "", "classes": [], "layers": [], "problems": []}
    modules = folder_models.modeling_modules(folder)
    wanted = folder_models.attention_classes(modules)
    row["classes"] = sorted(wanted)
    reached: dict[str, list[Any]] = defaultdict(list)
    for strategy in folder_models.STRATEGIES:
        for cls in folder_models.candidate_models(modules):
            if time.process_time() - began > time_limit or (reached and wanted <= set(reached)):
                break
            try:
                model = folder_models.build_model(cls, strategy)
            except Exception as error:
                row["problems"].append(f"{cls.__name__} {strategy}: {type(error).__name__}: {str(error)[:100]}")
                continue
            ran = run_model(model, wanted, reached, row["problems"], began + time_limit)
            if ran and not row["strategy"]:
                row["strategy"] = strategy
        if reached and (wanted <= set(reached) or strategy == "kv=heads"):
            break
    row["layers"] = [layer for layers in reached.values() for layer in layers]
    row["seconds"] = round(time.process_time() - began, 1)
    return row


def run_model(
    model: torch.nn.Module, wanted: set[str], reached: dict[str, list[Any]], problems: list[str], deadline: float
) -> bool:
    """Run a model on the first input that it takes; fill in what each class of attention was read as."""
    facts = find_facts(model, "tiny")
    new: dict[str, list[Any]] = defaultdict(list)

    def take(call: Any) -> None:
        name = type(call.module).__name__
        if name in reached or len(new[name]) >= MAX_CALLS:
            return
        try:
            new[name].append({"class": name, **build_layer(call, facts, str(len(new)), Labels()).to_record()})
        except NotReadError as error:
            new[name].append({"class": name, "depth": "none", "unread": str(error), "line": "", "proven": []})
        except Exception as error:
            problem = f"BUG {name}: {type(error).__name__}: {str(error)[:150]}"
            new[name].append({"class": name, "depth": "bug", "unread": problem, "line": "", "proven": []})

    error_text = ""
    pending = folder_models.propose_inputs(model)
    mended: list[dict[str, Any]] = []
    attempts = 0
    while (inputs := mended.pop() if mended else next(pending, None)) is not None:
        if time.process_time() > deadline:
            break
        batch = next(x.shape[0] for x in inputs.values() if isinstance(x, torch.Tensor))
        try:
            recorder = Recorder(model, take)
            with torch.no_grad(), recorder.recording(batch_size=batch, traced=False):
                model(**inputs)
            if not wanted <= set(new) | set(reached):
                with torch.no_grad(), recorder.recording(batch_size=batch, traced=True):
                    model(**inputs)
        except Exception as error:
            new.clear()
            error_text = error_text or f"{type(model).__name__}: {type(error).__name__}: {str(error)[:100]}"
            better = folder_models.mend_inputs(inputs, error)
            if better is not None and attempts < MAX_MENDINGS:
                mended.append(better)
                attempts += 1
            continue
        for name, layers in new.items():
            if layers:
                reached.setdefault(name, layers)
        return True
    problems.append(error_text)
    return False


def sweep(folders: list[str], output: Path, jobs: int) -> None:
    """Sweep folders in forks of this process, and write a line of JSON for each."""
    pending, running = list(folders), {}
    with output.open("a") as file:
        while pending or running:
            while pending and len(running) < jobs:
                folder = pending.pop(0)
                reader, writer = os.pipe()
                pid = os.fork()
                if pid == 0:
                    os.close(reader)
                    with (
                        Path(os.devnull).open("w") as null,
                        contextlib.redirect_stdout(null),
                        contextlib.redirect_stderr(null),
                    ):
                        warnings.simplefilter("ignore")
                        try:
                            row = sweep_folder(folder)
                        except BaseException as error:
                            row = {"folder": folder, "crash": f"{type(error).__name__}: {str(error)[:200]}"}
                    with os.fdopen(writer, "w") as pipe:
                        json.dump(row, pipe)
                    os._exit(0)
                os.close(writer)
                running[pid] = (folder, reader, time.monotonic(), io.StringIO())
            for pid, (folder, reader, began, _) in list(running.items()):
                is_late = time.monotonic() - began > 6 * TIME_LIMIT
                if is_late:
                    os.kill(pid, 9)
                import select

                ready, _, _ = select.select([reader], [], [], 0.05)
                if ready or is_late:
                    with os.fdopen(reader) as pipe:
                        text = "" if is_late else pipe.read()
                    os.waitpid(pid, 0)
                    del running[pid]
                    file.write((text or json.dumps({"folder": folder, "crash": "time" if is_late else "died"})) + "\n")
                    file.flush()


# ── the table ────────────────────────────────────────────────────────────────────────────────────
def describe_depth(row: dict[str, Any]) -> str:
    """Return the depth that every class of attention of a folder reaches: hidden, hidden with bias, context, qkv, none or -."""
    layers = row.get("layers") or []
    if not layers:
        return "-"
    if any(layer["depth"] not in ("hidden", "qkv") for layer in layers):
        return "none"
    if any(layer["depth"] == "qkv" for layer in layers):
        return "qkv"
    if any("output" not in layer["proven"] for layer in layers):
        return "context"
    return "hidden with bias" if any(layer["bias_is_given"] for layer in layers) else "hidden"


def describe_verdict(row: dict[str, Any]) -> str:
    """Say in a few words what was proven, or why nothing was."""
    layers = row.get("layers") or []
    if layers:
        proven = ["weights and output", "weights and context", "output", "context"]
        worst = max(
            (proven.index(" and ".join(layer["proven"])) if layer["proven"] else len(proven) for layer in layers),
            default=0,
        )
        notes = list(dict.fromkeys(layer["unread"] for layer in layers if layer["unread"]))
        verdict = "not read" if worst == len(proven) else f"right: {proven[worst]}"
        return "; ".join([verdict, *notes[:2]])
    if row.get("strategy"):
        return "ran, and computed no softmax of scores"
    reason = next((text for text in row.get("problems", []) if text), row.get("crash", ""))
    return f"no tiny model ran: {reason}" if reason else "no softmax attention"


def _shorten(text: str) -> str:
    """Return a sentence that may quote an error, without what would be Markdown, and not endless."""
    plain = " ".join(
        text.replace("`", "").replace("<", "").replace(">", "").replace("[", "(").replace("]", ")").split()
    )
    return plain if len(plain) <= 160 else f"{plain[:160].rsplit(' ', 1)[0]} …"


def models_page(rows: list[dict[str, Any]]) -> str:
    """Return docs/models.md: what was reached in all, and a line for each folder."""
    import transformers

    depths = [describe_depth(row) for row in rows]
    count = {name: depths.count(name) for name in ("hidden", "hidden with bias", "context", "qkv", "none")}
    ran = sum(bool(row.get("strategy")) for row in rows)
    with_softmax = sum(count.values())
    proven = with_softmax - count["none"]
    lines = [
        "# Models",
        "",
        "<!-- generated: python -m tests.capture.sweep -->",
        "",
        f"`attn capture` has been tried on a tiny random model of every folder of transformers {transformers.__version__} that has",
        "attention. The models are built from their configurations, shrunk by the names of the fields; no folder has a rule of its own.",
        "A folder's depth is that of the worst class of attention that ran in it.",
        "",
        "| depth | folders | means |",
        "|---|---:|---|",
        f"| folders | {len(rows)} | |",
        f"| ran | {ran} | a tiny model was built and ran |",
        f"| with softmax attention | {with_softmax} | some class of attention that computes a softmax of scores ran |",
        f"| proven | {proven} | from `qkv` or deeper |",
        f"| `hidden` | {count['hidden']} | from the vectors that enter the projections to the output, in parts |",
        f"| `hidden` with bias | {count['hidden with bias']} | the same, and what is added to the scores is given as numbers |",
        f"| context | {count['context']} | from `hidden`; something stands between context and output |",
        f"| `qkv` | {count['qkv']} | from q, k and v as they enter the attention function |",
        "",
        "| folder | depth | read as | verdict |",
        "|---|---|---|---|",
    ]
    for row, depth in zip(rows, depths, strict=True):
        read = next((layer["line"] for layer in row.get("layers") or [] if layer["line"]), "")
        cells = [row["folder"], depth, f"`{read}`" if read else "", _shorten(describe_verdict(row))]
        lines.append("| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="a line of JSON for each folder; it is resumed"
    )
    parser.add_argument("-j", "--jobs", type=int, default=1)
    parser.add_argument("--page", type=Path, help="write docs/models.md of what is there, and sweep nothing")
    options = parser.parse_args()
    if options.page:
        rows = {row["folder"]: row for row in map(json.loads, options.output.open())}
        options.page.write_text(models_page([rows[name] for name in sorted(rows)]))
        return
    torch.set_num_threads(1)
    import transformers
    from transformers.utils import logging

    logging.set_verbosity(60)
    assert transformers.PreTrainedModel
    folders = options.folders or folder_models.list_folders()
    done = {json.loads(line)["folder"] for line in options.output.open()} if options.output.exists() else set()
    sweep([folder for folder in folders if folder not in done], options.output, options.jobs)


if __name__ == "__main__":
    sys.exit(main())
