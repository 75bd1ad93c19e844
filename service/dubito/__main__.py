"""The command `dubito`, also as `python -m dubito`.

Its imports take a second or two, in which Ctrl-C shall end it as it does later: by exit code 130
alone. Nothing that they make is garbage: looking for some is left out, a fifth of their time.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

from dubito import threads

_INTERRUPTED = 130


def main() -> None:
    """Import the command, then run it."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # a shell may have it ignored
        signal.signal(signal.SIGINT, lambda *_: os._exit(_INTERRUPTED))
    gc.disable()
    threads.prepare(os.environ, is_server=sys.argv[1:2] == ["serve"])
    from dubito import cli

    run = cli.prepared()
    gc.freeze()
    gc.enable()
    signal.signal(signal.SIGINT, before)
    run()


if __name__ == "__main__":
    main()
