"""The report of a run as a page, from plain values that somebody else has gathered."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from llm_jax.display.figures import to_svg
from llm_jax.display.page import render
from llm_jax.display.words import Language, read_words
from llm_jax.evaluation.diagnosis import diagnose
from llm_jax.reports import curves
from llm_jax.reports.chart import Entries
from llm_jax.reports.curves import Picture, Words, curve, having, loss_picture, named, norms_by_layer
from llm_jax.tasks.task import Metric

_TEMPLATES = Path(__file__).parent / "templates"

_SAMPLES_SHOWN = 8
_LABELS_SHOWN = 40


class Setting(NamedTuple):
    """A setting of a run beside its default."""

    name: str  # section.field
    default: str
    value: str


class Live(NamedTuple):
    """What the page of a run that still trains says of itself."""

    seconds: int  # until it is looked at again
    time: str  # when it was written


class RunFacts(NamedTuple):
    """What a run's report says; an empty field leaves its section out."""

    name: str  # the run's directory
    steps: int  # that the configuration asks for
    parameters: int
    entries: Sequence[Mapping[str, Any]]  # the lines of metrics.jsonl, with "training_tokens"
    samples: Sequence[tuple[int, str]]  # (step, text)
    baselines: Mapping[str, float]  # nats per token
    passage: Sequence[tuple[str, float]]  # (token's text, nats) of a held-out passage
    tokenizer: Sequence[tuple[str, str]]  # (label, value)
    data: Sequence[tuple[str, str]]
    machine: Sequence[tuple[str, str]]
    versions: Sequence[tuple[str, str]]
    command: str
    settings: Sequence[Setting]  # all of them
    checkpoints: Sequence[tuple[int, float | None, str]]  # (step, validation loss, fault or "")
    missing: Sequence[str]  # why a section is not there
    history: Sequence[tuple[int, str]] = ()  # (last step before it, what changed while the run went on)
    memorisation: Sequence[tuple[int, int, int, str]] = ()  # (step, overlap, sample's tokens, text)
    metrics: Sequence[Metric] = ()  # of the task
    told: Mapping[str, Any] = MappingProxyType(
        {}
    )  # what `tasks.label_scores` says of texts that were not seen


class Card(NamedTuple):
    """A headline number."""

    label: str
    number: str
    note: str = ""


def run_pictures(facts: RunFacts, language: Language = "en") -> list[Picture]:
    """Return all pictures of a run's report that it has the numbers for."""
    entries, run, words = facts.entries, {facts.name: facts.entries}, read_words("reports", language)
    measures = (curves.LEARNING_RATE, curves.GRADIENT, curves.UPDATE, curves.SPEED, curves.MFU)
    made = [
        loss_picture(entries, facts.baselines, words),
        *(curve(measure, run, words) for measure in measures),
        norms_by_layer(entries, "grad_norms", words),
        norms_by_layer(entries, "update_norms", words),
    ]
    return [picture for picture in made if picture is not None]


def run_page(
    facts: RunFacts, pictures: Sequence[Picture], language: Language = "en", live: Live | None = None
) -> str:
    """Return the report as HTML.

    Args:
        facts: of the run.
        pictures: those of `run_pictures`.
        language: of the sentences.
        live: of a run that still trains, whose page renews itself.
    """
    words = read_words("reports", language)
    # While it trains nothing is drawn that the page's script draws anyway, but for the loss.
    drawn = {
        picture.name: draw(picture, still=live is None or picture.name == "loss")
        for picture in pictures
        if live is None or picture.chart
    }
    return render(
        _TEMPLATES / "report.html.j2",
        language=language,
        words=words,
        title=f"{words['page']['title']}: {facts.name}",
        live=live,
        facts=facts,
        diagnosis=diagnosis(facts.entries, facts.baselines, words),
        cards=run_cards(facts, words),
        loss=drawn.get("loss"),
        optimisation=[
            drawn[name]
            for name in ("grad_norm", "update_norm", "grad_norms", "update_norms", "learning_rate")
            if name in drawn
        ],
        speed=[drawn[name] for name in ("tokens_per_second", "mfu") if name in drawn],
        samples=_thin(facts.samples),
        labels_shown=_LABELS_SHOWN,
        changes=[each for each in facts.settings if differs(each)],
        differs=differs,
        named=lambda label: named(label, words),
        passage_mean=sum(nats for _, nats in facts.passage) / max(1, len(facts.passage)),
    )


def differs(setting: Setting) -> bool:
    """Return whether a setting is another than the default, its directory aside."""
    return setting.value != setting.default and setting.name != "train.run"


def draw(picture: Picture, *, still: bool = True) -> dict[str, Any]:
    """Return a picture as values for the macro `picture`; unless it is to be `still`, without its SVG."""
    label = f"{picture.title}. {picture.caption}".strip()
    return {
        "title": picture.title,
        "caption": picture.caption,
        "label": label,
        "svg": to_svg(picture.figure, label) if still else "",
        "chart": picture.chart and picture.chart.plain(),
    }


def diagnosis(entries: Entries, baselines: Mapping[str, float], words: Words) -> str:
    """Return what a run's evaluations say of it, in a sentence or two; empty without one."""
    evaluations = [(entry["step"], entry["validation_loss"]) for entry in _scores(entries)]
    found = diagnose(evaluations, baselines)
    if found is None:
        return ""
    said, join = words["diagnosis"], words["join"]
    parts = [
        said[found.trend].format(
            best_step=f"{found.best_step:,}",
            last_step=f"{found.last_step:,}",
            best=f"{found.best_loss:.3f}",
            last=f"{found.last_loss:.3f}",
        )
    ]
    if baselines:
        kind = "beats_all" if not found.missed else "beats_some" if found.beaten else "beats_none"
        beaten, missed = (
            join["list"].join(f"{named(name, words)} ({baselines[name]:.3f})" for name in names)
            for names in (found.beaten, found.missed)
        )
        parts.append(said[kind].format(beaten=beaten, missed=missed))
    return join["sentences"].join(parts)


def run_cards(facts: RunFacts, words: Words) -> list[Card]:
    """Return the headline numbers of a run."""
    cards, said = [], words["card"]
    done = max((entry["step"] for entry in facts.entries), default=0)
    if last := last_score(facts.entries):
        scores = _scores(facts.entries)
        best = min(scores, key=lambda entry: entry["validation_loss"])
        latest = said["final" if done == facts.steps else "latest"]
        cards += [
            Card(latest.format(metric=named(metric.label, words)), *shown)
            for metric, shown in _shown(facts, last, words)
        ]
        cards += [
            Card(
                said["best"].format(metric=named(metric.label, words)),
                number,
                said["at_step"].format(step=f"{best['step']:,}"),
            )
            for metric, (number, _) in _shown(facts, best, words)[:1]
            if best["step"] != last["step"]
        ]
        if scores[0]["step"] == 0:
            before = _shown(facts, scores[0], words)[:1]
            cards += [
                Card(said["before"], number, named(metric.label, words)) for metric, (number, _) in before
            ]
        if facts.baselines:
            beaten = [name for name, nats in facts.baselines.items() if best["validation_loss"] < nats]
            note = words["join"]["list"].join(named(name, words) for name in beaten) or said["none"]
            count = said["beaten_count"].format(count=len(beaten), all=len(facts.baselines))
            cards.append(Card(said["beaten"], count, note))
    if facts.entries:
        note = "" if done == facts.steps else said["steps_of"].format(steps=f"{facts.steps:,}")
        cards.append(Card(said["steps"], f"{done:,}", note))
    cards.append(Card(said["parameters"], f"{facts.parameters:,}"))
    if (seconds := wall_seconds(facts.entries)) is not None:
        cards.append(Card(said["wall"], duration(seconds, words), said["wall_note"]))
    if faults := sum(bool(fault) for _, _, fault in facts.checkpoints):
        cards.append(Card(said["damaged"], str(faults), said["damaged_note"]))
    return cards


def wall_seconds(entries: Entries) -> float | None:
    """Return the seconds that a run took, those of all its starts; None where its record has no times."""
    for key in ("seconds", "elapsed_seconds"):
        # A run that was extended has the seconds of its first steps alone, in the line of the last of them.
        if (found := having(entries, key)) and found[-1]["step"] == entries[-1]["step"]:
            return found[-1][key]
    return None


def _shown(facts: RunFacts, entry: Mapping[str, Any], words: Words) -> list[tuple[Metric, tuple[str, str]]]:
    """The task's metrics of an evaluation, as far as it has them, each with number and unit."""
    score = {name.removeprefix("validation_"): value for name, value in entry.items()}
    shown = [(metric, metric.shown(score)) for metric in facts.metrics]
    nats = "nats per token"
    return [
        (metric, (found[0], found[1].replace(nats, named(nats, words))))
        for metric, found in shown
        if found is not None
    ]


def last_score(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry of the last evaluation; empty without one."""
    scores = _scores(entries)
    return dict(scores[-1]) if scores else {}


def best_score(entries: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the entry of the evaluation with the lowest loss; empty without one."""
    scores = _scores(entries)
    return dict(min(scores, key=lambda entry: entry["validation_loss"])) if scores else {}


def _scores(entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return having(entries, "validation_loss")


def duration(seconds: float, words: Words) -> str:
    """Return a time in words: '16.6 s', '3 min 20 s', '2 h 5 min'."""
    said = words["time"]
    if seconds < 60:
        return said["seconds"].format(seconds=f"{seconds:.1f}")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return said["minutes"].format(minutes=minutes, seconds=rest)
    return said["hours"].format(hours=minutes // 60, minutes=minutes % 60)


def _thin(samples: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
    """At most _SAMPLES_SHOWN samples, the first and the last among them, evenly between."""
    if len(samples) <= _SAMPLES_SHOWN:
        return list(samples)
    last = len(samples) - 1
    return [samples[round(at * last / (_SAMPLES_SHOWN - 1))] for at in range(_SAMPLES_SHOWN)]
