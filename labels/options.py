"""Types that the options of labels share: what a code, a class value and a share may be. Light on purpose."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Le

MAX_CODE = 65535
"""Codes are stored as uint8, or uint16 when one of them is above 254."""

Code = Annotated[int, Ge(0), Le(MAX_CODE)]
ClassValue = str | int
"""A value of the class column: text or a whole number; ``3``, ``3.0`` and ``"3"`` mean the same."""

Share = Annotated[float, Ge(0), Le(1)]
