"""The names that operations of the decoder bear in compiled programs, by part of the model: Flax modules and
named scopes, as they are called beside the layers.
"""

PARTS = {
    "embedding": ("embedding",),
    "layer norms": (
        *("norm_1", "norm_2", "final_norm", "query_norm", "key_norm"),
        *("attention_output_norm", "mlp_output_norm"),
    ),
    "attention projections": ("query", "key", "value", "attention_output"),
    "rotary positions": ("positions",),
    "attention": ("attention", "BNTS"),
    "MLP": ("mlp_up", "mlp_gate", "mlp_down", "activation"),
    "experts": ("router", "experts"),
    "dropout": ("dropout",),
    "blocks, the rest": ("Block",),
    "head and loss": ("head", "loss"),
}
