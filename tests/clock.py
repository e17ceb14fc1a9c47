"""A clock that goes on when it is told to."""


class Clock:
    """Stands in for the module `time` of what is tested; a busy machine makes it no faster."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds
