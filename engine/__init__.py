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


# for this project's commands alone, not for programs that import parts of it; run_command() takes over from here.
# Without pathlib, whose import takes as long as all the rest of this.
_script = os.path.realpath(getattr(sys.modules.get("__main__"), "__file__", None) or "")
_ours = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))  # noqa: PTH120
if os.path.dirname(_script) == _ours and signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # noqa: PTH120
    signal.signal(signal.SIGINT, end_at_once)
