"""The command `dubito`, also as `python -m dubito`.

Its imports take seconds, in which Ctrl-C shall end it as it does later: by exit code 130 alone.
"""

from __future__ import annotations

import os
import signal

_INTERRUPTED = 130


def main() -> None:
    """Import the command, then run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    from dubito import cli

    run = cli.prepared()
    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
