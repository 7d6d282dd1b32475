"""Writes a LoRA adapter with random weights for a model folder: enough to serve and to route by.

Runs inside vLLM's environment: `python tools/random_adapter.py MODEL_FOLDER ADAPTER_FOLDER`.
"""

import json
import sys
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports] - only vLLM's environment has these
from safetensors.torch import save_file  # pyright: ignore[reportMissingImports]

RANK = 8
DEVIATION = 0.05  # enough to change the answers, too little to turn them into noise


def write(model: Path, folder: Path) -> None:
    """Fill `folder` with an adapter of every layer's query projection, in PEFT's format."""
    config = json.loads((model / "config.json").read_text())
    hidden = config["hidden_size"]
    heads = config["num_attention_heads"]
    query = heads * (config.get("head_dim") or hidden // heads)
    torch.manual_seed(1)
    weights = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        for part, shape in (("lora_A", (RANK, hidden)), ("lora_B", (query, RANK))):
            weights[f"{name}.{part}.weight"] = DEVIATION * torch.randn(shape, dtype=torch.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    about = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": 2 * RANK,
        "target_modules": ["q_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(about))


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
