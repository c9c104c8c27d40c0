"""Who writes into a log: user@host."""

from __future__ import annotations

import getpass
import os
import socket


def author() -> str:
    """user@host; the user's number where nobody has given it a name, as in many containers."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
