"""Writes docs/reference/config.md and the JSON Schema: `python -m tools.config_reference`."""

from pathlib import Path

from headrace.config.json_schema import schema_text
from headrace.config.render import plain_value
from headrace.config.schema import Config
from headrace.config.shapes import (
    Either,
    Entry,
    Kind,
    Named,
    Scalar,
    Section,
    Several,
    Shape,
    section_of,
)
from headrace.core.quantities import format_duration

_ROOT = Path(__file__).resolve().parent.parent
PAGE = _ROOT / "docs" / "reference" / "config.md"
SCHEMA = _ROOT / "src" / "headrace" / "config.schema.json"

_HEAD = """\
# Configuration

`headrace serve -c headrace.yaml` reads one YAML file; `headrace check headrace.yaml` prints it with
every default filled in, or everything that is wrong with it. Numbered examples are in
[`examples/`](../../examples). Editors complete and check it with the JSON Schema that ships in the
package: `headrace check --schema`. This page is made from the code:
`python -m tools.config_reference`.

- A **duration** is written `500ms`, `2s`, `5m`, `1h`, or as a number of seconds; a **size** is
  written `64KiB`, `16MiB`, or as a number of bytes.
- An unknown key, a key given twice, and a value of the wrong type or out of range are errors. Each
  names its line, its path, the value and what is expected.
- Relative paths start at the folder of the file.
- Values are what they are written as: `no` is the text "no" where text is expected, and only
  `true` and `false` are flags.
- No secret stands in the file: keys and tokens come from files or the environment, and are never
  printed.
- Listening beyond loopback needs `api_keys_file`, for the control plane `control.token_file` or
  `control.token_env`, or else `--insecure` on the command line. The token is asked for what writes;
  reading `/metrics`, the fleet and decisions (names and sizes, never prompts) takes none, so that
  Prometheus scrapes as it is: keep that port inside the network of your operators.
"""


def page() -> str:
    """The whole page."""
    sections: dict[str, Section] = {}
    _collect("", section_of(Config), sections)
    return _HEAD + "".join(_part(path, section) for path, section in sections.items())


def _collect(path: str, shape: Shape, sections: dict[str, Section]) -> None:
    """Every section with the path it is first met at, outermost first."""
    match shape:
        case Section():
            if any(known is shape for known in sections.values()):
                return
            sections[path] = shape
            for key, entry in shape.entries.items():
                _collect(f"{path}.{key}" if path else key, entry.shape, sections)
        case Several(item):
            _collect(f"{path}[]", item, sections)
        case Named(item):
            _collect(f"{path}.NAME", item, sections)
        case Either(_, section):
            _collect(path, section, sections)
        case Scalar():
            pass


def _part(path: str, section: Section) -> str:
    title = f"## `{path}`" if path else "## The file"
    lines = [title, "", section.doc.partition("\n\nRaises")[0], ""]
    if section.short is not None:
        lines += [f"The value of `{section.short}` may stand alone in place of this section.", ""]
    lines += ["| key | what it is | default | meaning |", "|---|---|---|---|"]
    lines += [_row(entry) for entry in section.entries.values()]
    return "\n" + "\n".join(lines) + "\n"


def _row(entry: Entry) -> str:
    doc = " ".join(entry.doc.split()).replace("|", "\\|")
    return f"| `{entry.key}` | {_kind(entry.shape)} | {_default(entry)} | {doc} |"


def _default(entry: Entry) -> str:
    if entry.required:
        return "**required**"
    if not isinstance(entry.shape, Scalar | Either) or entry.default is None:
        return "" if isinstance(entry.shape, Section) and entry.default else "none"
    value = plain_value(entry)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _kind(shape: Shape) -> str:
    match shape:
        case Section():
            return "section"
        case Several(item):
            return (
                f"list of {_kind(item)}s" if isinstance(item, Section) else f"list of {_kind(item)}"
            )
        case Named(item):
            return f"names, each a {_kind(item)}"
        case Either(text, section):
            return f"{_kind(text)} (a path) or {_kind(section)}"
        case Scalar():
            return _scalar(shape)


def _scalar(shape: Scalar) -> str:
    if shape.choices:
        behind = ", each with `:parameter=number,…` or without" if shape.parameters else ""
        return " or ".join(f"`{choice}`" for choice in shape.choices) + behind
    if shape.kind in {Kind.TEXT, Kind.FLAG}:
        return shape.kind.value
    words = [shape.kind.value]
    if shape.above is not None:
        words.append(f"above {shape.above:g}")
    if shape.minimum:
        words.append(f"from {shape.minimum:g}")
    if shape.maximum is not None:
        is_long = shape.kind is Kind.DURATION
        words.append(f"to {format_duration(shape.maximum) if is_long else f'{shape.maximum:g}'}")
    if shape.below is not None:
        words.append(f"and below {shape.below:g}")
    return " ".join(words)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_text(), encoding="utf-8")
