"""Writes a GGUF model as a Hugging Face folder: weights in bfloat16, tokenizer, chat template.

Runs inside vLLM's environment: `python tools/gguf_to_hf.py MODEL.gguf FOLDER`. The quantised
weights are expanded as they are, so that the answers are those of the quantised model.
"""

import sys
from pathlib import Path

import torch  # pyright: ignore[reportMissingImports] - only vLLM's environment has these
from gguf import GGUFReader  # pyright: ignore[reportMissingImports]
from transformers import (  # pyright: ignore[reportMissingImports]
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
)


def convert(gguf: Path, folder: Path) -> None:
    """Fill `folder` with what `vllm serve FOLDER` reads."""
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    tokenizer.chat_template = tokenizer.chat_template or chat_template(gguf)
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    # The weights are plain now; saying otherwise would make the reader dequantise them again.
    model.hf_quantizer = None
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def chat_template(gguf: Path) -> str | None:
    """The template that the file carries in its metadata."""
    field = GGUFReader(gguf).get_field("tokenizer.chat_template")
    return field.contents() if field is not None else None


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
