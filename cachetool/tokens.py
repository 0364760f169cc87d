"""Layout and names of tokens: which positions of a sequence hold [CLS], the registers and the patches."""

from __future__ import annotations

from dataclasses import dataclass

TOKEN_TYPES = ("cls", "registers", "patches")
"""Names of the token types, in the order in which they are stored and shown."""

MOST_TOKENS = 2**20
"""No sequence is longer: neither a slip of the keyboard nor a false document may fill the memory with positions."""


@dataclass(frozen=True)
class TokenLayout:
    """Where each token type lies in a backbone's sequence: [CLS], then registers, then patches row by row."""

    cls: int
    """Number of [CLS] tokens: 0 or 1."""
    registers: int
    """Number of register tokens; 0 where the model has none."""
    rows: int
    """Rows of the patch grid."""
    columns: int
    """Columns of the patch grid."""

    @property
    def patches(self) -> int:
        """Number of patch tokens."""
        return self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return self.cls + self.registers + self.patches

    @property
    def types(self) -> tuple[str, ...]:
        """The token types that this model has, in the order of `TOKEN_TYPES`."""
        return tuple(name for name in TOKEN_TYPES if self.count(name) > 0)

    def count(self, token_type: str) -> int:
        """Number of tokens of one type."""
        return len(range(*self.slice(token_type).indices(self.tokens)))

    def slice(self, token_type: str) -> slice:
        """Positions of one token type in the sequence. Raises `KeyError` for an unknown type."""
        first_patch = self.cls + self.registers
        return {
            "cls": slice(0, self.cls),
            "registers": slice(self.cls, first_patch),
            "patches": slice(first_patch, self.tokens),
        }[token_type]
