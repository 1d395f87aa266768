"""The report of a run: gathered from its directory, its model and its text, and written as a page."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax import continuing, materials
from llm_jax.config import Config, MovedConfig
from llm_jax.data.compact import CompactTokenizer
from llm_jax.data.facts import label_facts, store_facts
from llm_jax.data.tokenizers import Tokenizer, decode, fingerprint
from llm_jax.errors import CheckpointError, UserError
from llm_jax.materials import Materials
from llm_jax.model.decoder import abstract_params
from llm_jax.settings import config_from_dict, differences
from llm_jax.trained import Trained, load
from llm_jax.training.checkpoint import verify_steps
from llm_jax.training.record import read_lines
from llm_jax.tree import Tree, count_parameters
from llm_jax.walkthrough.curves import Picture
from llm_jax.walkthrough.figures import write_png
from llm_jax.walkthrough.page import write_page
from llm_jax.walkthrough.passages import build_index, longest_overlap
from llm_jax.walkthrough.report import RunFacts, run_page, run_pictures

PASSAGE_TOKENS = 200
# Training tokens up to which a report looks for verbatim overlaps: beyond, the index takes too long.
INDEXED_TOKENS = 2_000_000


class Opened(NamedTuple):
    """As much of a run as can be had."""

    config: Config
    model: Trained | None
    material: Materials | None
    missing: list[str]  # what is not there, and why


def open_run(run: Path, report: Callable[[str], None], moved: MovedConfig = MovedConfig()) -> Opened:
    """Reads a run's model and text, which may be elsewhere now.

    Raises:
        CheckpointError: it is no run directory.
        UserError: its configuration is not one that this version knows.
    """
    missing, model = [], None
    try:
        model = load(run)
        config = config_from_dict(model.about["config"], str(run))
    except CheckpointError as error:
        config = _recorded_config(run, error)
        missing.append(f"what needs the model: {error}")
    if model is None:
        return Opened(config, None, None, missing)
    try:
        if model.about["data_fingerprint"] is None:
            raise CheckpointError(f"{run} was imported and names no text")
        material = materials.gather_again(model.about, str(run), report, moved)
        return Opened(config, model, material, missing)
    except UserError as error:
        return Opened(config, model, None, [*missing, f"what needs the text: {error}"])


def _recorded_config(run: Path, error: CheckpointError) -> Config:
    try:
        return config_from_dict(json.loads((run / "config.json").read_text()), str(run / "config.json"))
    except (OSError, ValueError):
        raise CheckpointError(
            f"{run} must be a run directory: config.json is not there, and {error}"
        ) from None


def gather_facts(run: Path, opened: Opened) -> RunFacts:
    """The facts of a run's report; every checkpoint is read back and verified."""
    config, model, material, missing = opened
    recorded = _environment(run)
    default = Config() if model is None else materials.with_vocabulary(Config(), model.tokenizer)
    return RunFacts(
        name=str(run),
        steps=config.train.steps,
        parameters=count_parameters(abstract_params(config.model)),
        entries=read_lines(run / "metrics.jsonl"),
        samples=samples(run),
        floors=material.floors() if material else {},
        passage=_passage(model, material) if model and material else [],
        tokenizer=_tokenizer_facts(model.tokenizer, config.train.prompt) if model else [],
        data=_data_facts(material) if material else [],
        machine=_machine_facts(recorded),
        versions=list(recorded.get("versions", {}).items()),
        command=_command(recorded.get("command", [])),
        changes=[line for line in differences(default, config) if not line.startswith("train.run:")],
        history=continuing.told(read_lines(run / continuing.CHANGES)),
        checkpoints=verify_steps(materials.checkpoint_directory(run)),
        missing=missing,
        memorisation=_memorisation(material, samples(run)) if material else [],
    )


def write_report(run: Path, opened: Opened, out: Path, png: Path | None = None) -> RunFacts:
    """Writes a run's page, and its pictures into the folder `png`; gives what they say.

    Raises:
        UserError: a file cannot be written.
    """
    facts = gather_facts(run, opened)
    pictures = run_pictures(facts)
    write_page(out, run_page(facts, pictures))
    write_pictures(pictures, png)
    return facts


def leave_report(material: Materials, params: Tree, warn: Callable[[str], None]) -> str | None:
    """The report of a run that has just ended, with what is loaded already; gives the page's path. One that
    cannot be made is a warning: the run itself is well.
    """
    run = material.config.train.run
    model = Trained(material.config.model, params, material.store.tokenizer, {})
    try:
        write_report(run, Opened(material.config, model, material, []), run / "report.html")
    except Exception as error:  # noqa: BLE001 - nothing that a page can do may fail a finished run
        warn(f"the report could not be written: {' '.join(str(error).split())[:300]}")
        return None
    return str(run / "report.html")


def samples(run: Path) -> list[tuple[int, str]]:
    """(step, text) of each of a run's samples."""
    return [(line["step"], line["text"]) for line in read_lines(run / "samples.jsonl")]


def write_pictures(pictures: Sequence[Picture], folder: Path | None) -> None:
    """Each picture as NAME.png in a folder, which is made; nothing without one.

    Raises:
        UserError: a file cannot be written.
    """
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error}") from None
    for picture in pictures:
        write_png(picture.figure, folder / f"{picture.name}.png")


def _passage(model: Trained, material: Materials) -> list[tuple[str, float]]:
    """The first targets of the validation split as texts, each with its nats."""
    text = material.held_out()
    text = text._replace(tokens=text.tokens[: text.given + PASSAGE_TOKENS])
    pieces = [decode(model.tokenizer, [int(token)]) for token in text.tokens[text.given :]]
    return list(zip(pieces, material.nats(model.params, text).tolist(), strict=True))


def _memorisation(material: Materials, texts: list[tuple[int, str]]) -> list[tuple[int, int, int, str]]:
    """(step, tokens of the longest part that stands verbatim in training, tokens in all, that part) of each
    sample.
    """
    tokens = material.store.tokens("train")
    if not texts or len(tokens) > INDEXED_TOKENS:
        return []
    index, found = build_index(tokens), []
    for step, text in texts:
        ids = material.store.tokenizer.encode(text)
        span = longest_overlap(index, ids)
        copied = decode(material.store.tokenizer, ids[span.start : span.start + span.length])
        found.append((step, span.length, len(ids), copied))
    return found


def _tokenizer_facts(tokenizer: Tokenizer, prompt: str) -> list[tuple[str, str]]:
    pieces = [decode(tokenizer, [int(token)]) for token in tokenizer.encode(prompt)]
    shared = tokenizer.shared_ids if isinstance(tokenizer, CompactTokenizer) else 0
    rows = [("name", tokenizer.name), ("token ids", f"{tokenizer.vocab_size:,}")]
    rows += [("rare ids that share one row", f"{shared:,}")] if shared else []
    return [
        *rows,
        ("the prompt in tokens", " | ".join(pieces)),
        ("SHA-256", fingerprint(tokenizer)[:12]),
    ]


def _data_facts(material: Materials) -> list[tuple[str, str]]:
    store = material.store
    return [
        ("corpus", store.manifest["corpus"]),
        *label_facts(store_facts(store)),
        ("SHA-256 of the text", store.manifest["settings"]["text_sha256"][:12]),
    ]


def _environment(run: Path) -> dict[str, Any]:
    try:
        return json.loads((run / "environment.json").read_text())
    except (OSError, ValueError):
        return {}


def _command(words: Sequence[str]) -> str:
    """The command line of a process, our own doors as `python -m llm_jax.DOOR`; empty for none."""
    if not words:
        return ""
    program = Path(words[0])
    if program.parent.name == "llm_jax":
        return shlex.join(["python", "-m", f"llm_jax.{program.stem}", *words[1:]])
    return shlex.join(words)


def _machine_facts(recorded: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [(name, str(recorded[name])) for name in ("platform", "processors") if recorded.get(name)]
    if devices := recorded.get("devices"):
        rows.append(
            ("devices", ", ".join(f"{devices.count(kind)} x {kind}" for kind in sorted(set(devices))))
        )
    if git := recorded.get("git"):
        changed = len(git["modified"])
        rows.append(("git commit", git["commit"][:12] + (f", {changed} files modified" if changed else "")))
    return rows
