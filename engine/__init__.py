"""What `common.main()` runs, one noun a module. Nothing here imports a script or `common`."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # the exit code of a shell's command that Ctrl-C ended


def end_at_once(*_: int | FrameType | None) -> None:
    """What Ctrl-C does while modules are imported: there is nothing to lose yet, and an import may swallow an exception
    or show it from its middle."""
    os._exit(INTERRUPTED)


def _of_a_command() -> bool:
    """Whether it is one of this project's commands that imports this, and no other program."""
    script: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
    if not script:
        return False
    # without pathlib, whose import takes as long as all the rest of this
    ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
    return os.path.dirname(os.path.realpath(script)) == ours  # noqa: PTH120


# run_command() takes over from here
if _of_a_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, end_at_once)
