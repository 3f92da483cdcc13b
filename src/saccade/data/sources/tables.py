"""Read tables of image paths and labels, without changing a value."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from saccade.data.sources.folders import IMAGE_EXTENSIONS
from saccade.errors import DataError
from saccade.remote.urls import is_url

_SEPARATORS = (",", ";", "\t", "|")
_TYPED = (".parquet", ".json", ".jsonl", ".ndjson")  # tables with types of values
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_DECIMAL = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

MAX_NAMED_NUMBERS = 20
"""Up to this many different numbers with padded decimals, such as 1.10, may be names (of versions): they stay text."""


def is_table(source: str) -> bool:
    """Return whether the source is a CSV, TSV, Parquet or JSON file, or the URL of one."""
    name = source.split("?")[0].split("#")[0] if is_url(source) else source
    return name.lower().endswith((".csv", ".tsv", *_TYPED)) and not Path(source).is_dir()


def read_table(file: Path, text_column: str, sep: str | None = None, encoding: str | None = None) -> pd.DataFrame:
    """Read a table with a header; only empty fields are missing values. Raises a DataError if it is not such a table.

    Values stay as they are written: 007, 1.0, NA, None and True are text. A column is made of numbers only if no number
    would be written differently: whole numbers without leading zeros, or decimal numbers, some of them with a
    fractional part. `text_column`, that of the images, always stays text. An extra field at the end of all lines must
    be empty. Without `sep`, it is a comma, semicolon, tab or vertical bar, as in the header; without `encoding`, UTF-8,
    or what a byte order mark says. Values in Parquet and JSON files keep their types.
    """
    if file.name.lower().endswith(_TYPED):
        return _read_typed(file)
    text = _decoded(file, encoding)
    header_line = next(iter(io.StringIO(text, newline=None)), "").rstrip("\n")
    sep = sep or _separator(file, header_line, text_column)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=sep, strict=True))
    except (csv.Error, TypeError) as error:
        raise DataError(
            f"{file} is not a valid table with the separator {sep!r}: {error}. Pass another sep=…"
        ) from None
    lines = [(number, row) for number, row in enumerate(rows, start=1) if any(row)]
    if not lines:
        raise DataError(f"{file} is empty; expected a table with a header and one row per image")
    names = [name.strip() for name in lines[0][1]]
    while names and not names[-1]:
        names.pop()
    if any(name.lower().endswith(IMAGE_EXTENSIONS) for name in names):
        raise DataError(f"The first line of {file} must name the columns, such as image{sep}label; it is {header_line}")
    if twice := [name for name, num in Counter(names).items() if num > 1 and name]:
        raise DataError(f"{file} has several columns {twice[0]!r}. Give each column a name of its own")
    for number, row in lines:
        if any(map(str.strip, row[len(names) :])):
            raise DataError(
                f"Row {number} of {file} has {len(row)} fields, but the header names {len(names)} columns. Name all "
                "columns in the first line, and put quotation marks around a field that contains the separator"
            )
    columns = {
        name: [row[position] if position < len(row) else "" for _, row in lines[1:]]
        for position, name in enumerate(names)
    }
    frame: pd.DataFrame = pd.DataFrame({name: _column(values, name != text_column) for name, values in columns.items()})
    return frame


def _read_typed(file: Path) -> pd.DataFrame:
    frame: pd.DataFrame
    try:
        if file.suffix.lower() == ".parquet":
            frame = pd.read_parquet(file)
        else:
            text = file.read_text(encoding="utf-8-sig")
            is_list = text.lstrip().startswith("[")
            rows = json.loads(text) if is_list else [json.loads(line) for line in text.splitlines() if line.strip()]
            frame = pd.DataFrame(rows)
    except ImportError:
        raise DataError(f"{file} is a Parquet file, which pyarrow reads. Install it: pip install pyarrow") from None
    except (ValueError, OSError) as error:  # pyarrow's errors are of these classes
        raise DataError(f"{file} is not a valid table: {str(error)[:200]}. Expected Parquet, or JSON records") from None
    frame.columns = frame.columns.map(str)
    return frame


def _decoded(file: Path, encoding: str | None) -> str:
    content = file.read_bytes()
    found = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "utf-8")
    if content.startswith((b"PK\3\4", b"\x1f\x8b", b"\xd0\xcf\x11\xe0")):
        raise DataError(f"{file} is a spreadsheet or compressed, not a text file. Save it as CSV, or unpack it")
    advice = "encoding='cp1252' for Western European text of Windows"
    if b"\0" in content[:1000]:
        advice = f"encoding='utf-16-{'be' if content[:1] == bytes(1) else 'le'}'"
    try:
        text = content.decode(encoding or found)
        if "\0" in text:
            raise DataError(f"{file} contains NUL characters, so it is not UTF-8 text. Pass {advice}")
    except LookupError as error:
        raise DataError(f"{error}; expected an encoding of Python, such as 'utf-8', 'cp1252' or 'utf-16'") from None
    except UnicodeError:
        raise DataError(
            f"{file} is not {(encoding or found).upper()} text. Pass the encoding in which it was written "
            f"({advice}), or save it as UTF-8"
        ) from None
    return text.removeprefix("\ufeff")


def _separator(file: Path, header: str, column: str) -> str:
    """Return the separator by which the header has the column, else the one that makes the most columns of it."""
    candidates = sorted(_SEPARATORS, key=lambda sep: sep != ("\t" if file.suffix.lower() == ".tsv" else ","))
    fields = {sep: [name.strip().strip('"') for name in header.split(sep)] for sep in candidates}
    return max(candidates, key=lambda sep: (column in fields[sep], len(fields[sep])))


def _column(values: list[str], may_be_numbers: bool) -> pd.Series[Any]:
    """Return the values of a column, as numbers if these are written in the same way."""
    given = [value for value in values if value]
    distinct = set(given)
    if may_be_numbers and distinct:
        if all(_INTEGER.fullmatch(value) for value in distinct):
            dtype = "int64" if len(given) == len(values) else "Int64"
            return pd.Series([int(value) if value else None for value in values], dtype=dtype)
        if all(_DECIMAL.fullmatch(value) for value in distinct) and _are_measurements(distinct):
            return pd.Series([float(value) if value else None for value in values], dtype="float64")
    return pd.Series([value or None for value in values], dtype=object)


def _are_measurements(distinct: set[str]) -> bool:
    """Return whether decimal numbers are quantities, rather than names such as 1.0 or 1.10."""
    numbers = {float(value) for value in distinct}
    if len(numbers) < len(distinct) or not any(number % 1 for number in numbers):
        return False
    are_written_alike = all(repr(float(value)) == value or _INTEGER.fullmatch(value) for value in distinct)
    return are_written_alike or len(distinct) > MAX_NAMED_NUMBERS
