"""The prose of the project uses the field's terms: phrases of the former private vocabulary do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Phrase, as a regular expression, and what to write instead.
PHRASES = {
    r"images? (that|to) (teach|judge|learn from|be judged by)": "training images, validation images",
    r"to be judged|\bjudges?\b|\bjudged\b|\bjudging\b|\bjudgement": "evaluate, validate, score",
    r"cannot be had|can be had|could be had|to be had": "is not available",
    r"cannot be\.": "is invalid",
    r"(?<!there )\b(is|are) no (number|numbers|folder|file|image|images|path|name|names|space|list|dict|run|mapping)\b": "is not a ...",  # noqa: E501
    r"\bwants? a look\b|of no account": "name the problem",
    r"\bgo(es|ing)? on\b|\bwent on\b": "continue, resume",
    r"\bsurer[ _]score": "cross-validated score",
    r"\btwins?\b": "copy that shares parameters",
    r"at hand\b": "available",
    r"comes? down to nothing": "the learning-rate schedule ends",
    r"\bteach(es)?\b": "train on",
    r"(figure|figures) (that|which) (choose|chooses|judge|judges)": "metric",
    r"\bnetworks? (says?|tells?|knows?|thinks?)\b|\bwhat (a|the) network (says|tells)": "outputs, predictions",
    r"\bis told\b|\bare told\b|\btold (of|how|what)\b": "report, receive",
    r"\bsecond try\b": "retry",
    r"\bsubstitutes\b": "fallback networks",
    r"\b(is|are|be) in front\b": "in the top fraction",
    r"\bpromises? (most|more)\b": "expected gain",
    r"\bnobody (needs|compares|knows|says)\b": "use the passive or name who",
    r"for want of": "when there is no",
}


def _prose() -> list[Path]:
    pages = [
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    ]
    return [*(ROOT / "src").rglob("*.py"), *pages]


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrases_of_the_private_vocabulary_do_not_occur(phrase: str) -> None:
    pattern = re.compile(phrase, re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in _prose()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, f"write {PHRASES[phrase]!r} instead:\n" + "\n".join(found)
