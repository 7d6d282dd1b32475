"""The pattern that looks for wanted metrics alone reads what a reader of every line reads."""

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engines.exposition import Sample, parse
from headrace.engines.vllm import DIALECT
from tests.conformance.captures import metrics

LABEL = re.compile(r'\s*([A-Za-z_]\w*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(,\s*)?', re.ASCII)
ESCAPES = {"n": "\n", '"': '"', "\\": "\\"}


def read_every_line(text: bytes, wanted: set[str]) -> tuple[dict[str, list[Sample]], int]:
    """Cut the text into lines, read each one whose name is wanted, and count those that fail."""
    samples, skipped = dict[str, list[Sample]](), 0
    for raw in text.split(b"\n"):
        line = raw.lstrip(b" \t").rstrip(b" \t\r")
        name = re.split(rb"[{ \t\r]", line, maxsplit=1)[0].decode("latin-1")
        if name not in wanted:
            continue
        try:
            labels, rest = read_labels(line[len(name) :].lstrip(b" \t\r").decode())
            number = re.split(r"[ \t]", rest.lstrip(" \t"), maxsplit=1)[0]
            if not number.isascii() or re.search(r"[_\s]", number):
                raise ValueError(number)
            sample = Sample(name, labels, float(number))
        except ValueError:
            skipped += 1
        else:
            samples.setdefault(name, []).append(sample)
    return samples, skipped


def read_labels(text: str) -> tuple[dict[str, str], str]:
    labels = dict[str, str]()
    if not text.startswith("{"):
        return labels, text
    at, more = 1, True
    while more and (found := LABEL.match(text, at)):
        value = re.sub(r"\\(.)", lambda m: ESCAPES.get(m[1], m[0]), found[2])
        labels[found[1]], at, more = value, found.end(), found[3] is not None
    if text[at : at + 1] != "}":
        raise ValueError(text)
    return labels, text[at + 1 :]


def is_same(text: bytes, wanted: set[str]) -> None:
    read, (samples, skipped) = parse(text, wanted), read_every_line(text, wanted)
    # repr: two NaN are not equal.
    assert repr(read.samples) == repr(samples)
    assert read.skipped_lines == skipped


NAMES = ["m", "mm", "m_sum", "m_count", "m_bucket", "n:m", "m_sum_total", "_m", "M"]
TEXT = st.text(st.sampled_from('m_ {}"\\,=#\t\rné\xa0\u0663') | st.characters(codec="utf-8"))
NUMBERS = st.sampled_from(
    ["1", "0.5", "1e-3", "+Inf", "-Inf", "NaN", "nan", "1_0", "x", "", "0x1", "\u0663", "1.", "--1"]
) | st.floats().map(repr)
TAILS = st.sampled_from(
    ["", " ", "\r", " 1700000000000", ' # {trace="m 1"} 0.5', ' # {t="}"} 0.5 17.5', "\t1 x", " }"]
)
GAPS = st.sampled_from([" ", "\t", "  ", " \t", "", "\r", "\x0b", "\xa0"])


@st.composite
def labels(draw) -> str:
    names = st.sampled_from(["a", "le", "m", "1a", "é"])
    pairs = draw(st.lists(st.tuples(names, TEXT), max_size=3))
    escape = draw(st.booleans())
    shown = list[str]()
    for name, value in pairs:
        escaped = value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        shown.append(f'{name}="{escaped if escape else value}"')
    joined = draw(st.sampled_from([",", ", ", " ,"])).join(shown)
    return draw(st.sampled_from(["", "{@}", "{@,}", "{ @ }", "{@", "@}"])).replace("@", joined)


@st.composite
def lines(draw) -> str:
    name = draw(st.sampled_from(NAMES))
    kind = draw(st.sampled_from(["sample"] * 6 + ["help", "type", "eof", "any"]))
    if kind == "help":
        return f"# HELP {name} " + draw(TEXT).replace("\n", r"\n")
    if kind == "type":
        return f"# TYPE {name} histogram"
    if kind == "eof":
        return "# EOF"
    if kind == "any":
        return draw(TEXT)
    lead = draw(st.sampled_from([""] * 6 + [" ", "\t", "\r"]))
    parts = lead, name, draw(GAPS), draw(labels()), draw(GAPS), draw(NUMBERS), draw(TAILS)
    return "".join(parts)


@settings(max_examples=400, deadline=None)  # of up to twelve lines each
@given(st.lists(lines(), max_size=12), st.sets(st.sampled_from(NAMES)), st.booleans())
def test_any_page(page: list[str], wanted: set[str], ends: bool):
    is_same("\n".join(page).encode() + b"\n" * ends, wanted)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_bytes(before: bytes, behind: bytes):
    is_same(before + b"\nm" + behind, {"m", "mm"})


PIECES = [
    "m",
    "mm",
    "m_sum",
    "1",
    "2.5",
    "NaN",
    'a="b"',
    '{a="x"}',
    '{a="x"} ',
    "\nm ",
    "\nm{",
    "\n",
]
PIECES += list(' \t\r{}"\\,=_#é\xa0\x0b\x1c\u0663')


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=14))
def test_any_words(words: list[str]):
    is_same(("\nm" + "".join(words)).encode(), {"m", "mm", "m_sum"})


CAPTURE = metrics("vllm", "metrics-under-load-14conc-8seqs")
MORE = ("vllm:time_to_first_token_seconds_sum", "vllm:cache_config_info")
WANTED = {name for names in DIALECT.sources.values() for name in names}.union(MORE)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_page_of_a_real_engine(data: st.DataObject):
    page = bytearray(CAPTURE)
    for _ in range(data.draw(st.integers(0, 5))):
        at = data.draw(st.integers(0, len(page) - 1))
        page[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    is_same(bytes(page), WANTED)
