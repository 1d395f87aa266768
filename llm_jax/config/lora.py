"""Fine-tuning by low-rank adapters (Hu et al. 2021)."""

import dataclasses
from typing import Literal

from llm_jax.config.rules import Whole, at_least, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Adapters beside the blocks' kernels; they and the head of a task are trained, and nothing else."""

    rank: Whole = 0
    """Rank of the adapters; 0 has none, and trains all parameters."""
    alpha: float = 32.0
    """What adapters add is multiplied by alpha / rank."""
    kind: Literal["lora", "dora"] = "lora"
    """dora: the length of each output's weights is trained apart from their direction (Liu et al. 2024)."""
    targets: str = "*"
    """Names of kernels, divided by commas, with * for anything: query,value; all linear layers by default."""

    def __post_init__(self) -> None:
        require(
            at_least(self, 0, "rank")
            | {
                f"alpha ({self.alpha}) must be positive": 0 < self.alpha < float("inf"),
                f"targets ({self.targets}) must be names divided by commas": all(
                    name.strip() for name in self.targets.split(",")
                ),
            }
        )
