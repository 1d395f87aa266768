"""What transformers makes of exported models; run as a program, it asks whichever version that process has.

python ask_transformers.py FOLDER   writes FOLDER/MODEL/answers.json for each model in the folder
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, __version__

WINDOW = np.random.default_rng(0).integers(0, 211, (1, 600))
PROMPT = WINDOW[:, :10]
# Its readable code rather than kernels, some of which want wider rows.
PLAIN = {"attn_implementation": "eager"}
PLAIN |= {} if __version__.startswith("4.") else {"experts_implementation": "eager"}
LONGEST = 12  # tokens that are generated where nothing ends them
TEXT = "<|im_start|>It hums, it's 12 lamps.<|im_end|>\n"


def answers(folder: Path) -> dict[str, Any]:
    """Logits of a long text, the greedy continuation of a short one, and ids where there is a tokenizer.

    Nothing is said of ends: they must be the model's own.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, **PLAIN).eval()
    prompt = torch.tensor(PROMPT)
    with torch.no_grad():
        made = model.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=LONGEST, do_sample=False
        )
        said = {
            "version": __version__,
            "logits": model(torch.tensor(WINDOW)).logits[0].tolist(),
            "made": made[0, prompt.shape[1] :].tolist(),
            "ends": model.generation_config.eos_token_id,
        }
    if (folder / "tokenizer.json").exists():
        tokenizer = AutoTokenizer.from_pretrained(folder)
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        said |= {"ids": tokenizer(TEXT)["input_ids"], **{name: getattr(tokenizer, name) for name in names}}
    return said


if __name__ == "__main__":
    for model in sorted(Path(sys.argv[1]).iterdir()):
        (model / "answers.json").write_text(json.dumps(answers(model)))
