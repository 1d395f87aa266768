"""The reference must be there: without torch and transformers these tests fail, they do not skip."""

import torch
import transformers  # noqa: F401 - its absence must be an error of the whole suite

torch.set_num_threads(2)
