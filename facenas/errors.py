"""The errors a user can mend: each carries one sentence that names the fault and the remedy."""


class UserError(Exception):
    """Wrong usage or bad input: the command line prints its sentence and exits with 2."""


class UnknownClassError(UserError):
    """Settings name a strategy, a space or a head that is not to be found from here."""


class SearchStoppedError(Exception):
    """A search that cannot go on though its input was fine: exit code 1, the journal stays whole."""


class CandidateError(Exception):
    """A candidate's own fault, such as a loss that diverged: its trial has failed, and the search goes on."""


class StoppedError(Exception):
    """The caller asked a trial to stop before its end: it has no result."""


def counted(number: int, noun: str) -> str:
    """Such as `1 epoch`, `1,200 epochs`, `2 identities` and `2 people`."""
    return f"{number:,} {noun if number == 1 else _plural(noun)}"


def _plural(noun: str) -> str:
    if noun == "person":
        return "people"
    return f"{noun[:-1]}ies" if noun.endswith("ity") else f"{noun}s"


def first_line(error: BaseException) -> str:
    """What an error of a library says, for a sentence of ours."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(". ")
