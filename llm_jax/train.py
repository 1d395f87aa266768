"""Door: `python -m llm_jax.train [CONFIG.toml ...] [--section.field VALUE ...]`."""

import json
import time
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from llm_jax import command
from llm_jax.compilation import CompileTime, compile_time
from llm_jax.config import Config, SamplingConfig
from llm_jax.settings import to_dict

if TYPE_CHECKING:
    from llm_jax.materials import Materials
    from llm_jax.training.progress import LiveLine
    from llm_jax.tree import Tree


def train(*, config: Annotated[Config, Parameter(name="*")] = Config()) -> None:
    """Trains a decoder on a text: prepares tokens, trains, evaluates, samples, saves; goes on where it was
    stopped.

    Values come from the TOML files, the last one first, then from the options. The defaults are
    configs/tutorial.toml. A run directory that already holds a run of the same configuration is continued;
    Ctrl-C and SIGTERM save first (exit status 75).

    Example: python -m llm_jax.train configs/tutorial.toml --data.corpus my_book.txt --train.run runs/mine
    """
    from llm_jax import materials
    from llm_jax.training import loop, record
    from llm_jax.training.checkpoint import Checkpoints, read_about

    print(f"data: {config.data.corpus} -> {config.data.prepared}", flush=True)
    material = materials.gather(config, report=print)
    config = material.config
    about = {
        "config": to_dict(config),
        "tokenizer": material.store.tokenizer.to_dict(),
        "data_fingerprint": material.store.fingerprint,
        "versions": record.versions(),
    }
    run = config.train.run
    directory = materials.checkpoint_directory(run)
    with Checkpoints(directory, keep=config.train.keep, about=about) as checkpoints:
        if checkpoints.latest_step() is not None:
            record.refuse_other_run(read_about(directory), config, material.store.fingerprint)
        state = loop.start_state(config, checkpoints)
        start = int(state["counters"]["step"])
        with record.RunRecord(run, to_dict(config), start) as run_record, compile_time() as compiling:
            _train(material, checkpoints, state, run_record, compiling)


def _train(
    material: "Materials",
    checkpoints: Any,
    state: dict[str, Any],
    run_record: Any,
    compiling: CompileTime,
) -> None:
    from llm_jax.reporting import leave_report
    from llm_jax.training import loop
    from llm_jax.training.progress import LiveLine
    from llm_jax.training.throughput import flops_per_token, measure_peak_flops
    from llm_jax.tree import count_parameters

    config, began, start = material.config, time.perf_counter(), int(state["counters"]["step"])
    settings, floors = config.train, material.floors()
    live = LiveLine(
        steps=settings.steps,
        start=start,
        tokens_per_step=settings.batch_size * config.model.context_length,
        flops_per_token=flops_per_token(config.model),
        peak_flops=measure_peak_flops(config.model.dtype),
    )
    live.say(
        f"model: {count_parameters(state['params']):,} parameters, {config.model.vocab_size:,} token ids"
    )
    live.say("floors, nats per token: " + ", ".join(f"{name} {nats:.3f}" for name, nats in floors.items()))
    if start:
        live.say(f"continuing {settings.run} at step {start}")
    around = _surroundings(material, live, run_record)
    try:
        state, score = loop.train(config, checkpoints, state, around)
    finally:
        live.close()
    if settings.sample_tokens:
        text = settings.prompt + _sample(material, loop.evaluated_params(state), settings.sample_tokens)
        live.say(f"\n{text}\n")
        if start < settings.steps:
            run_record.write_sample(settings.steps, text)
    seconds = round(time.perf_counter() - began, 1)
    if start == 0:  # Of a run that was stopped, nobody knows the time as a whole.
        run_record.write(settings.steps, seconds=seconds)
    page = leave_report(material, loop.evaluated_params(state), lambda text: live.say(f"warning: {text}"))
    if page:
        live.say(f"report: {page}")
    live.say(f"run: {settings.run}   again from it: python -m llm_jax.generate {settings.run}")
    summary = {"run": str(settings.run), "step": settings.steps, **score, "floors": floors}
    times = {"seconds": seconds, "compile_seconds": round(compiling.seconds, 1)}
    print(json.dumps(summary | times | {"report": page}))


def _surroundings(material: "Materials", live: "LiveLine", run_record: Any) -> Any:
    from llm_jax.training.loop import Surroundings, is_logged

    settings, floors = material.config.train, material.floors()

    def on_step(step: int, metrics: dict[str, Any]) -> None:
        loss = metrics["loss_sum"] / metrics["weight"] if metrics["weight"] else float("nan")
        speed = live.step(step, loss)
        run_record.add_step(step, metrics, speed if is_logged(settings, step) else None)

    def evaluate(params: "Tree") -> dict[str, float]:
        return {f"validation_{name}": value for name, value in material.evaluate(params)._asdict().items()}

    def on_evaluation(step: int, params: "Tree", score: dict[str, float]) -> None:
        run_record.write(step, **score)
        beaten = [name for name, floor in floors.items() if score["validation_loss"] < floor]
        live.say(
            f"step {step}: validation {score['validation_loss']:.3f} "
            f"+- {score['validation_standard_error']:.3f} nats, "
            f"perplexity {score['validation_perplexity']:.1f}, "
            f"{score['validation_bits_per_byte']:.3f} bits per byte; "
            f"beats {beaten[-1] if beaten else 'no floor'}"
        )
        if step < settings.steps and settings.sample_tokens:
            text = _sample(material, params, min(settings.sample_tokens, 24))
            live.say(f"    {settings.prompt}{text}".replace("\n", " "))
            run_record.write_sample(step, settings.prompt + text)
        live.pause()

    return Surroundings(
        material.batch_at, evaluate, on_step, on_evaluation, lambda text: live.say(f"warning: {text}")
    )


def _sample(material: "Materials", params: "Tree", num_tokens: int) -> str:
    from llm_jax.trained import Trained

    settings = material.config.train
    model = Trained(material.config.model, params, material.store.tokenizer, {})
    return model.generate(
        settings.prompt, max_new_tokens=num_tokens, sampling=SamplingConfig(), seed=settings.seed
    )


if __name__ == "__main__":
    command.run(train, takes_files=True)
