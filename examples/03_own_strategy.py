"""A search strategy of one's own: hill climbing over a space of ours.

python examples/03_own_strategy.py
"""

import random

import facenas
from facenas.config import Config
from facenas.strategies import Budget, Candidate, Decision, Strategy


class HillClimbing(Strategy):
    """Goes to a random neighbor whenever that is better.

    It is told results and asks for candidates, and does nothing else: so it can be killed, resumed, replayed
    and run on any number of workers, and always takes the same path.
    """

    class Settings(Config):
        """How many neighbors are tried, and for how many epochs each is trained."""

        steps: int = 5
        epochs: int = 1

    # Of the space: one without these is refused before anything runs.
    needs = ("start", "mutate")

    def begin(self):
        """Called once, when settings, space and seed are there."""
        self.rng = random.Random(self.seed)
        self.best, self.accuracy, self.tried = None, -1.0, 0
        self.next = self.space.start()

    def ask(self):
        """The next candidate, until enough were tried."""
        if self.tried > self.settings.steps:
            return []
        return [Candidate(self.next, Budget(self.settings.epochs), "climb", f"step {self.tried}")]

    def tell(self, result):
        """Moves there if it is better, and looks for the next neighbor."""
        better = result.accuracy > self.accuracy  # 0 for a candidate that failed
        if better:
            self.best, self.accuracy = self.next, result.accuracy
        self.tried += 1
        self.next = self.space.mutate(self.best, self.rng)
        return Decision.KEPT if better else Decision.REJECTED

    def result(self):
        """What `best.json` holds."""
        return {"architecture": self.best.to_json(), "accuracy": self.accuracy}


space = facenas.spaces.Plain(min_depth=4, max_depth=8, min_width=4, max_width=8)
found = facenas.search(space=space, strategy=HillClimbing(steps=5), data="digits", run="runs/climb")
print(f"{found.accuracy:.2f} % after {found.trials} trials: {found.architecture.summary()}")
