"""llm_jax: a language model from a text file, as a functional JAX/Flax program."""
