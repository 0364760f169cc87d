"""Write the pages of the reference that are made from the code: `python -m tests.documentation`."""

from __future__ import annotations

from tests.documentation.pages import MADE

for path, page in MADE.items():
    path.write_text(page(), encoding="utf-8")
    print(path)
