"""The numbers that the walkthrough shows, beside torch's for the golden model."""

import dataclasses
import html
import math
import re

import numpy as np
import pytest
import torch

from llm_jax.base.batch import Batch
from llm_jax.config.run import Config, TrainConfig
from llm_jax.display.words import read_words
from llm_jax.interop.pytorch.tutorial import import_params, infer_config
from llm_jax.tokenization.plain import ByteTokenizer
from llm_jax.training.head import cross_entropy
from llm_jax.training.state import init_state
from llm_jax.walkthrough.gather import Subject, make_lesson
from llm_jax.walkthrough.page import explain_page
from llm_jax.walkthrough.stages import stages
from tests.parity.torch_tutorial import TorchTutorial
from tests.support.shared_data import SharedData


@pytest.fixture(scope="module")
def golden(shared_data: SharedData) -> dict[str, np.ndarray]:
    with np.load(shared_data / "torch_tutorial_golden.npz") as file:
        return dict(file)


def shown_numbers(golden: dict[str, np.ndarray]) -> dict[str, list[np.ndarray]]:
    """Stage -> the numbers in its tables, as they stand on the page."""
    weights = {name[5:]: value for name, value in golden.items() if name.startswith("init/")}
    model = dataclasses.replace(infer_config(weights, int(golden["hyper"][4])), dropout=0.0)
    config = Config(model=model, train=TrainConfig(batch_size=4))
    state = init_state(config) | {"params": import_params(weights, model)}
    tokens = golden["tokens"][0]
    batch = Batch(tokens[:, :-1], tokens[:, 1:], np.ones((4, 16), np.float32))
    text = golden["tokens"].reshape(-1)
    lesson = make_lesson(Subject(config, state, ByteTokenizer(), text, text[:0], 0), batch)
    page = explain_page(
        lesson,
        stages(lesson, cross_entropy),
        label=str,
        words=read_words("walkthrough", "en"),
        language="en",
        about="",
        xray=None,
    )
    found: dict[str, list[np.ndarray]] = {}
    for stage, table in re.findall(r'<table data-stage="(\w+)".*?<tbody>(.*?)</tbody>', page, re.DOTALL):
        rows = [re.findall(r'<td class="number">(.*?)</td>', row) for row in table.split("</tr>")[:-1]]
        cells = [[html.unescape(cell).replace(",", "").replace("−∞", "-inf") for cell in row] for row in rows]
        found.setdefault(stage, []).append(np.array(cells, np.float64))
    return found


def torch_numbers(golden: dict[str, np.ndarray]) -> dict[str, list[torch.Tensor]]:
    """Stage -> torch's tensors, computed step by step from the tutorial's own modules."""
    model = TorchTutorial(*map(int, golden["hyper"][:5]), dropout=0.0)
    weights = {name[5:]: torch.tensor(value) for name, value in golden.items() if name.startswith("init/")}
    model.load_state_dict(weights, strict=False)
    tokens = torch.tensor(golden["tokens"], dtype=torch.int64)
    x, y = tokens[0][:, :-1], tokens[0][:, 1:]
    table, block = model.token_embedding_lookup_table, model.transformer_blocks[0]
    positions = model._positions(torch.float32)
    stream = table(x) + positions
    normed = block.layer_norm_1(stream)
    attention = block.multi_head_attention_layer
    heads = [
        torch.stack([getattr(head, f"{name}_layer")(normed) for head in attention.heads], dim=1)
        for name in ("query", "key", "value")
    ]
    q, k, v = heads  # [4, 4, 16, 16] each, heads first
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    mask = torch.full((16, 16), -torch.inf).triu(1)
    weights_after = torch.softmax(scores + mask, dim=-1)
    mixed = weights_after @ v
    joined = mixed.transpose(1, 2).flatten(2)
    projected = attention.projection_layer(joined)
    residual = stream + projected
    up = torch.relu(block.feed_forward_layer.ffn[0](block.layer_norm_2(residual)))
    output = residual + block.feed_forward_layer.ffn[2](up)
    hidden = model.transformer_blocks(stream)
    together = [head.transpose(1, 2).flatten(2) for head in heads]
    return {
        "whole_text": [tokens.flatten()],
        "batch": [x, y],
        "table": [table.weight],
        "embedded": [table(x), table(y)],
        "positions": [positions, positions.expand(4, -1, -1)],
        "input": [stream],
        "attention_norm": [normed],
        "projections": together,
        "split": [head.transpose(1, 2) for head in heads],
        "heads_first": heads,
        "scores": [scores],
        "mask": [mask, scores + mask],
        "softmax": [weights_after],
        "mixed": [mixed],
        "joined": [joined],
        "projection": [projected],
        "residual": [residual],
        "mlp": [up, output],
        "final_norm": [hidden],
        "logits": [model(x)],
        "loss": [model.loss(x, y)],
    }


def test_every_number_on_the_page_is_torchs(golden: dict[str, np.ndarray]) -> None:
    shown, wanted = shown_numbers(golden), torch_numbers(golden)
    assert list(shown) == list(wanted)
    for stage, tensors in wanted.items():
        assert len(shown[stage]) == len(tensors), stage
        for numbers, tensor in zip(shown[stage], tensors, strict=True):
            array = np.atleast_2d(tensor.detach().numpy())
            corner = array.reshape(-1, *array.shape[-2:])[0][:8, :8]
            # Half of the last digit that is shown, and a little for float32.
            np.testing.assert_allclose(numbers, corner, rtol=0, atol=5.2e-5, err_msg=stage)
