"""The report of a run: gathered from its directory, its model and its text, and written as a page."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeGuard

from llm_jax.base.errors import CheckpointError, UserError
from llm_jax.base.json_lines import read_history, read_lines, read_object
from llm_jax.base.tree import Tree, count_parameters, flatten
from llm_jax.checkpoints.reader import Step, read_about, verify_steps
from llm_jax.checkpoints.step_files import checkpoint_directory
from llm_jax.config.load import config_from_dict, to_dict
from llm_jax.config.run import Config, MovedConfig
from llm_jax.data.facts import label_facts, store_facts
from llm_jax.display.figures import write_png
from llm_jax.display.page import write_page
from llm_jax.display.words import Language
from llm_jax.evaluation.verbatim import build_index, longest_overlap
from llm_jax.model.decoder import abstract_params
from llm_jax.reports.chart import with_tokens
from llm_jax.reports.curves import Picture
from llm_jax.reports.run_page import RunFacts, Setting, run_page, run_pictures
from llm_jax.runs import continuing, data, label_record
from llm_jax.runs.data import Materials
from llm_jax.tasks.by_name import find_task
from llm_jax.tasks.language_modelling import held_out, target_nats
from llm_jax.tasks.saved import Saved, read_saved
from llm_jax.tokenization.compact import CompactTokenizer
from llm_jax.tokenization.from_dict import tokenizer_from_dict
from llm_jax.tokenization.protocol import Tokenizer, decode, fingerprint

PASSAGE_TOKENS = 200
# Training tokens up to which a report looks for verbatim overlaps: beyond, the index takes too long.
INDEXED_TOKENS = 2_000_000


class _GivenUp(Exception):
    """A signal came, and the rest of a report is not wanted."""


class Opened(NamedTuple):
    """As much of a run as can be had."""

    config: Config
    saved: Saved | None
    material: Materials | None
    missing: list[str]  # what is not there, and why


def open_run(
    run: Path, report: Callable[[str], None], moved: MovedConfig = MovedConfig(), step: Step = "best"
) -> Opened:
    """Read a run's newest configuration, its model as of a checkpoint, and its text, which may be elsewhere
    now.

    Raises:
        CheckpointError: it is no run directory.
        UserError: its configuration is not one that this version knows, or `step` names no checkpoint.
    """
    try:
        saved = read_saved(run, step, report)
        newest = read_about(checkpoint_directory(run))["config"]
    except CheckpointError as error:
        return Opened(_recorded_config(run, error), None, None, [f"what needs the model: {error}"])
    config = config_from_dict(newest, f"the checkpoint in {run}")
    try:
        if saved.about["data_fingerprint"] is None:
            raise CheckpointError(f"{run} was imported and names no text")
        material = data.gather_again(saved.about, str(run), report, moved)
        return Opened(config, saved, material, [])
    except UserError as error:
        return Opened(config, saved, None, [f"what needs the text: {error}"])


def _recorded_config(run: Path, error: CheckpointError) -> Config:
    recorded = read_object(run / "config.json")
    if not recorded:
        raise CheckpointError(
            f"{run} must be a run directory: config.json is not there or damaged, and {error}"
        ) from None
    return config_from_dict(recorded, str(run / "config.json"))


def gather_facts(run: Path, opened: Opened, go_on: Callable[[], None] = lambda: None) -> RunFacts:
    """Return the facts of a run's report; every checkpoint is read back and verified. For `go_on` see
    `write_report`.
    """
    config, saved, material = opened[:3]
    missing = list(opened.missing)
    recorded, texts = read_object(run / "environment.json"), samples(run, missing.append)
    tokenizer = (
        material.store.tokenizer if material else saved and tokenizer_from_dict(saved.about["tokenizer"])
    )
    task, history = find_task(config.task), read_history(run / continuing.CHANGES)
    go_on()
    checkpoints = verify_steps(checkpoint_directory(run))
    go_on()
    passage = _passage(saved.params, material) if saved and material and task.writes_text else []
    go_on()
    return RunFacts(
        name=str(run),
        steps=config.train.steps,
        parameters=count_parameters(saved.params if saved else abstract_params(config.model)),
        entries=with_tokens(read_lines(run / "metrics.jsonl", report=missing.append), config, history),
        samples=texts,
        baselines=material.baselines() if material else {},
        passage=passage,
        tokenizer=_tokenizer_facts(tokenizer, config.train.prompt) if tokenizer else [],
        data=_data_facts(material) if material else [],
        machine=_machine_facts(recorded),
        versions=_version_facts(recorded),
        command=_command(recorded.get("command")),
        settings=all_settings(config, tokenizer),
        history=continuing.told(history),
        checkpoints=checkpoints,
        missing=missing,
        memorisation=_memorisation(material, texts) if material else [],
        metrics=task.metrics,
        told=label_record.read_scores(run),
    )


def write_report(
    run: Path,
    opened: Opened,
    out: Path,
    png: Path | None = None,
    language: Language = "en",
    go_on: Callable[[], None] = lambda: None,
) -> RunFacts:
    """Write a run's page, and its pictures into the folder `png`; give what they say.

    Args:
        run: its directory.
        opened: what there is of it.
        out: the page.
        png: a folder, which is made; no pictures without one.
        language: of the page's sentences; pictures in files are in English, whose letters every font has.
        go_on: asked between the parts, and may raise where the rest is not wanted.

    Raises:
        UserError: a file cannot be written.
    """
    facts = gather_facts(run, opened, go_on)
    go_on()
    pictures = run_pictures(facts, language)
    go_on()
    write_page(out, run_page(facts, pictures, language))
    if png:
        write_pictures(pictures if language == "en" else run_pictures(facts), png)
    return facts


def all_settings(config: Config, tokenizer: Tokenizer | None) -> list[Setting]:
    """Return a run's settings, each beside its default; what follows from the tokenizer is a default, too."""
    default = Config() if tokenizer is None else data.with_vocabulary(Config(), tokenizer)
    usual = dict(flatten(to_dict(default)))
    return [
        Setting(path.replace("/", "."), str(usual[path]), str(value))
        for path, value in flatten(to_dict(config))
    ]


def leave_report(material: Materials, params: Tree, stop_requested: Callable[[], str]) -> str | None:
    """Return the report of a run that has just ended, with what is loaded already; give the page's path, None
    where a signal came before it was made.

    Raises whatever keeps it from being made: the run itself is well.
    """
    run = material.config.train.run
    saved = Saved(material.config, params, {})

    def go_on() -> None:
        if stop_requested():
            raise _GivenUp

    try:
        write_report(run, Opened(material.config, saved, material, []), run / "report.html", go_on=go_on)
    except _GivenUp:
        return None
    return str(run / "report.html")


def samples(run: Path, report: Callable[[str], None]) -> list[tuple[int, str]]:
    """Return (step, text) of each of a run's samples; `report` gets a line where there are damaged ones."""
    lines = read_lines(run / "samples.jsonl", needs="text", report=report)
    return [(line["step"], line["text"]) for line in lines]


def write_pictures(pictures: Sequence[Picture], folder: Path) -> None:
    """Write each picture as NAME.png into a folder, which is made.

    Raises:
        UserError: a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"the folder {folder} cannot be made: {error}") from None
    for picture in pictures:
        write_png(picture.figure, folder / f"{picture.name}.png")


def _passage(params: Tree, material: Materials) -> list[tuple[str, float]]:
    """The first targets of the validation split as texts, each with its nats."""
    text = held_out(material.store)
    text = text._replace(tokens=text.tokens[: text.given + PASSAGE_TOKENS])
    pieces = [decode(material.store.tokenizer, [int(token)]) for token in text.tokens[text.given :]]
    nats = target_nats(params, material.config, material.store, text)
    return list(zip(pieces, nats.tolist(), strict=True))


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


def _command(words: Any) -> str:
    """The command line of a process, our own commands as `llm-jax COMMAND`; empty for none."""
    if not _are_texts(words) or not words:
        return ""
    program = Path(words[0])
    if program.parent.name == "llm_jax":
        return shlex.join(["llm-jax", program.stem, *words[1:]])
    return shlex.join(words)


def _version_facts(recorded: Mapping[str, Any]) -> list[tuple[str, str]]:
    versions = recorded.get("versions")
    return [(name, str(version)) for name, version in versions.items()] if isinstance(versions, dict) else []


def _machine_facts(recorded: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a record of the environment says of the machine, as far as it is one."""
    rows = [(name, str(recorded[name])) for name in ("platform", "processors") if recorded.get(name)]
    if _are_texts(devices := recorded.get("devices")) and devices:
        rows.append(
            ("devices", ", ".join(f"{devices.count(kind)} x {kind}" for kind in sorted(set(devices))))
        )
    git = recorded.get("git")
    if isinstance(git, dict) and isinstance(commit := git.get("commit"), str):
        changed = len(modified) if _are_texts(modified := git.get("modified")) else 0
        rows.append(("git commit", commit[:12] + (f", {changed} files modified" if changed else "")))
    return rows


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
