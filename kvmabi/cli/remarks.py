# SPDX-License-Identifier: MIT
"""What the report of ``kvmabi run`` says besides the verdict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kvmabi.errors import NOT_MODELLED


class Remarks(NamedTuple):
    """Lines of text of each kind.

    ``warnings`` are about damage that a kernel would have done, ``refused`` the last errors of a program that failed,
    ``not_modelled`` what it asked for that kvmabi does not model, ``faults`` how often each fault that was asked for
    struck, ``failures`` where a guest's script failed, ``notes`` what bears on the whole run, such as a kernel that
    does not exist.
    """

    warnings: Sequence[str] = ()
    refused: Sequence[str] = ()
    not_modelled: Sequence[str] = ()
    faults: Sequence[str] = ()
    failures: Sequence[str] = ()
    notes: Sequence[str] = ()

    def as_dict(self) -> dict[str, list[str]]:
        """Returns them as data for JSON."""
        return {kind: list(lines) for kind, lines in self._asdict().items()}

    def as_lines(self) -> list[str]:
        """Returns them as lines for readers, each kind below its title.

        >>> Remarks(faults=["RUN EINTR once: struck 1 of 3"]).as_lines()
        ['kvmabi: faults that were asked for:', '  RUN EINTR once: struck 1 of 3']
        """
        lines = []
        for title, kind in (
            ("kvmabi: faults that were asked for:", self.faults),
            (f"{NOT_MODELLED}; a kernel may answer otherwise:", self.not_modelled),
            ("kvmabi: warnings:", self.warnings),
            ("kvmabi: the program failed; what was refused last:", self.refused),
        ):
            if kind:
                lines += [title, *(f"  {line}" for line in kind)]
        return [*lines, *(f"kvmabi: note: {note}" for note in self.notes)]
