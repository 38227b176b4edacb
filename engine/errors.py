"""The two ways a command can end badly, and the exit codes that tell them apart."""


class UserError(Exception):
    """The user can mend it. The message says what was found, what was expected and how to fix it. Exit code 2."""

    exit_code = 2


class RunError(Exception):
    """The run itself failed (a non-finite loss, no memory left, a full disk). Exit code 3."""

    exit_code = 3


class DivergedError(RunError):
    """The loss, or what the model puts out, is not finite."""


def out_of_memory(problem: BaseException) -> bool:
    """Whether a lack of memory raised it, which PyTorch tells by the type only for CUDA's own allocator."""
    plain = ("out of memory", "can't allocate memory", "not enough memory")
    of_libraries = ("_STATUS_ALLOC_FAILED", "could not create a primitive", "could not create a memory object")
    return isinstance(problem, MemoryError) or any(word in str(problem) for word in plain + of_libraries)
