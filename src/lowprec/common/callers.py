"""What becomes of a result in the code that called."""

from __future__ import annotations

import dis
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def is_a_statement(frame: FrameType) -> bool:
    """Whether the call that a frame is in stands alone, and its result is thrown away.

    An interactive session, and a notebook's last line, show the result themselves: it is not thrown
    away there.

    frame: Of the caller.

    Examples
    --------
    >>> import sys
    >>> def called():
    ...     return is_a_statement(sys._getframe(1))
    >>> called()
    False
    """
    after = (one for one in dis.get_instructions(frame.f_code) if one.offset > frame.f_lasti)
    return next((one.opname == "POP_TOP" for one in after), False)
