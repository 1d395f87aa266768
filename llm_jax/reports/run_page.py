"""The report of a run as a page, from plain values that somebody else has gathered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from llm_jax.display.figures import to_svg
from llm_jax.display.page import render
from llm_jax.evaluation.baselines import beaten
from llm_jax.reports import curves
from llm_jax.reports.curves import Picture, curve, loss_picture, norms_by_layer
from llm_jax.tasks.task import Metric

_TEMPLATES = Path(__file__).parent / "templates"

_SAMPLES_SHOWN = 8


class RunFacts(NamedTuple):
    """What a run's report says; an empty field leaves its section out."""

    name: str  # the run's directory
    steps: int  # that the configuration asks for
    parameters: int
    entries: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl
    samples: Sequence[tuple[int, str]]  # (step, text)
    baselines: Mapping[str, float]  # nats per token
    passage: Sequence[tuple[str, float]]  # (token's text, nats) of a held-out passage
    tokenizer: Sequence[tuple[str, str]]  # (label, value)
    data: Sequence[tuple[str, str]]
    machine: Sequence[tuple[str, str]]
    versions: Sequence[tuple[str, str]]
    command: str
    changes: Sequence[str]  # 'section.field: default -> value'
    checkpoints: Sequence[tuple[int, float | None, str]]  # (step, validation loss, fault or "")
    missing: Sequence[str]  # why a section is not there
    history: Sequence[tuple[int, str]] = ()  # (last step before it, what changed while the run went on)
    memorisation: Sequence[tuple[int, int, int, str]] = ()  # (step, overlap, sample's tokens, text)
    metrics: Sequence[Metric] = ()  # of the task


class Card(NamedTuple):
    """A headline number."""

    label: str
    number: str
    note: str = ""


def run_pictures(facts: RunFacts) -> list[Picture]:
    """All pictures of a run's report that it has the numbers for."""
    entries, run = facts.entries, {facts.name: facts.entries}
    measures = (curves.LEARNING_RATE, curves.GRADIENT, curves.UPDATE, curves.SPEED, curves.MFU)
    made = [
        loss_picture(entries, facts.baselines),
        *(curve(measure, run) for measure in measures),
        norms_by_layer(entries, "grad_norms", "Gradient norms by layer"),
        norms_by_layer(entries, "update_norms", "Update norms by layer"),
    ]
    return [picture for picture in made if picture is not None]


def run_page(facts: RunFacts, pictures: Sequence[Picture]) -> str:
    """The report as HTML; `pictures` are those of `run_pictures`."""
    drawn = {picture.name: draw(picture) for picture in pictures}
    return render(
        _TEMPLATES / "report.html.j2",
        language="en",
        title=f"Run report: {facts.name}",
        facts=facts,
        cards=run_cards(facts),
        loss=drawn.get("loss"),
        optimisation=[
            drawn[name]
            for name in ("grad_norm", "update_norm", "grad_norms", "update_norms", "learning_rate")
            if name in drawn
        ],
        speed=[drawn[name] for name in ("tokens_per_second", "mfu") if name in drawn],
        samples=_thin(facts.samples),
        changes=[_split_change(line) for line in facts.changes],
        passage_mean=sum(nats for _, nats in facts.passage) / max(1, len(facts.passage)),
    )


def draw(picture: Picture) -> dict[str, Any]:
    """A picture as values for the macro `picture`."""
    label = f"{picture.title}. {picture.caption}"
    return {"title": picture.title, "caption": picture.caption, "svg": to_svg(picture.figure, label)}


def run_cards(facts: RunFacts) -> list[Card]:
    """The headline numbers of a run."""
    cards = []
    if last := last_score(facts.entries):
        scores = _scores(facts.entries)
        best = min(scores, key=lambda entry: entry["validation_loss"])
        cards += [Card(f"final {metric.label}", *shown) for metric, shown in _shown(facts, last)]
        cards += [
            Card(f"best {metric.label}", number, f"at step {best['step']:,}")
            for metric, (number, _) in _shown(facts, best)[:1]
            if best["step"] != last["step"]
        ]
        if scores[0]["step"] == 0:
            before = _shown(facts, scores[0])[:1]
            cards += [Card("before the first step", number, metric.label) for metric, (number, _) in before]
        if facts.baselines:
            count = sum(last["validation_loss"] < nats for nats in facts.baselines.values())
            note = beaten(last["validation_loss"], facts.baselines)
            cards.append(Card("baselines beaten", f"{count} of {len(facts.baselines)}", note))
    if facts.entries:
        done = max(entry["step"] for entry in facts.entries)
        note = "" if done == facts.steps else f"of {facts.steps:,} that the configuration asks for"
        cards.append(Card("steps", f"{done:,}", note))
    cards.append(Card("parameters", f"{facts.parameters:,}"))
    seconds = [entry["seconds"] for entry in facts.entries if entry.get("seconds") is not None]
    if seconds:
        cards.append(Card("wall time", duration(seconds[-1]), "evaluations and saves included"))
    if faults := sum(bool(fault) for _, _, fault in facts.checkpoints):
        cards.append(Card("damaged checkpoints", str(faults), "see below"))
    return cards


def _shown(facts: RunFacts, entry: Mapping[str, Any]) -> list[tuple[Metric, tuple[str, str]]]:
    """The task's metrics of an evaluation, as far as it has them, each with number and unit."""
    score = {name.removeprefix("validation_"): value for name, value in entry.items()}
    shown = [(metric, metric.shown(score)) for metric in facts.metrics]
    return [(metric, found) for metric, found in shown if found is not None]


def last_score(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The entry of the last evaluation; empty without one."""
    scores = _scores(entries)
    return dict(scores[-1]) if scores else {}


def _scores(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [entry for entry in entries if entry.get("validation_loss") is not None]


def duration(seconds: float) -> str:
    """A time in words: '16.6 s', '3 min 20 s', '2 h 5 min'."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _thin(samples: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """At most _SAMPLES_SHOWN samples, the first and the last among them, evenly between."""
    if len(samples) <= _SAMPLES_SHOWN:
        return list(samples)
    last = len(samples) - 1
    return [samples[round(at * last / (_SAMPLES_SHOWN - 1))] for at in range(_SAMPLES_SHOWN)]


def _split_change(line: str) -> tuple[str, str, str]:
    """('section.field', default, value) of 'section.field: default -> value'."""
    name, _, values = line.partition(": ")
    default, _, value = values.partition(" -> ")
    return name, default, value
