"""What data checks have found, as objects, as a frame, as a table for the terminal and as text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
from rich.markup import escape
from rich.table import Table

Severity = Literal["error", "warning", "info"]

_NUM_FILES_SHOWN = 3
_STYLES = {"error": "red", "warning": "yellow", "info": "dim"}


@dataclass(frozen=True)
class FlaggedImage:
    """One image that a check points at: its part, its position there, its name and label, and what is odd."""

    part: str
    position: int
    file: str
    label: Any
    detail: str


@dataclass(frozen=True)
class Finding:
    """What one check has found.

    Parameters
    ----------
    code
        ``IMG001`` and so on; codes never change their meaning.
    title
        The check in a few words.
    severity
        "error": results will mislead; "warning": results will suffer; "info": good to know.
    message
        What was found, in a sentence with numbers.
    what_to_do
        Advice in a sentence.
    flagged
        The images in question; empty where the finding is about the whole.
    """

    code: str
    title: str
    severity: Severity
    message: str
    what_to_do: str
    flagged: tuple[FlaggedImage, ...] = ()

    @property
    def files(self) -> list[str]:
        """Names of the images in question."""
        return [flagged.file for flagged in self.flagged]


@dataclass(frozen=True)
class CheckReport:
    """The findings of all checks, by code.

    Parameters
    ----------
    findings
        One per code that has found something.
    num_images
        Part -> how many images were checked.
    """

    findings: tuple[Finding, ...]
    num_images: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether nothing was found that is an error or a warning."""
        return all(finding.severity == "info" for finding in self.findings)

    @property
    def codes(self) -> list[str]:
        """The codes of the findings."""
        return [finding.code for finding in self.findings]

    def __getitem__(self, code: str) -> Finding:
        for finding in self.findings:
            if finding.code == code:
                return finding
        raise KeyError(f"no finding {code!r}; found: {', '.join(self.codes) or 'nothing'}")

    def to_frame(self) -> pd.DataFrame:
        """Return one row per finding and image (one row without an image for a finding about the whole)."""
        columns = ["code", "title", "severity", "part", "position", "file", "label", "detail"]
        rows: list[tuple[Any, ...]] = []
        for finding in self.findings:
            about = (finding.code, finding.title, finding.severity)
            rows += [(*about, f.part, f.position, f.file, f.label, f.detail) for f in finding.flagged]
            if not finding.flagged:
                rows.append((*about, None, None, None, None, finding.message))
        frame: pd.DataFrame = pd.DataFrame(rows, columns=columns)
        frame["position"] = frame["position"].astype("Int64")
        return frame

    def render(self) -> Table:
        """Return a table for the terminal: one row per finding."""
        table = Table(title=self._headline(), title_justify="left", show_lines=True)
        for column in ("Code", "Finding", "Images", "First files", "What to do"):
            table.add_column(column, justify="right" if column == "Images" else "left", overflow="fold")
        for finding in self.findings:
            style = _STYLES[finding.severity]
            table.add_row(
                f"[{style}]{finding.code}[/]",
                escape(f"{finding.title}: {finding.message}"),
                str(len(finding.flagged) or ""),
                escape("\n".join(_first_files(finding))),
                escape(finding.what_to_do),
            )
        return table

    def __str__(self) -> str:
        lines = [self._headline()]
        for finding in self.findings:
            lines.append(f"{finding.code} {finding.severity}: {finding.title}. {finding.message}")
            lines += [f"    {file}" for file in _first_files(finding)]
            lines.append(f"    -> {finding.what_to_do}")
        return "\n".join(lines)

    def _headline(self) -> str:
        checked = ", ".join(f"{num} {part}" for part, num in self.num_images.items())
        found = count_of(len(self.findings), "finding") if self.findings else "nothing found"
        return f"Checked {checked} images: {found}"


def _first_files(finding: Finding) -> list[str]:
    shown = [f"{flagged.file} ({flagged.detail})" for flagged in finding.flagged[:_NUM_FILES_SHOWN]]
    num_more = len(finding.flagged) - len(shown)
    return [*shown, f"... and {num_more} more"] if num_more else shown


def count_of(num: int, singular: str, plural: str | None = None) -> str:
    """Say how many there are of something: ``3 images``, ``1 class``."""
    return f"{num} {singular if num == 1 else plural or singular + 's'}"
