"""All that the page of a search for a front shows, beside what every page has."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from facenas.report.figures import Figure
from facenas.report.front.beside import Beside, set_beside
from facenas.report.front.budget import Budget
from facenas.report.front.charts import JUDGED, front_chart
from facenas.report.front.costs import ERROR, LABELS, capitalise, exactly, listed, told
from facenas.report.front.csv_table import front_csv
from facenas.report.front.generations import Generation, generations
from facenas.report.front.growth import clock_chart, hypervolume_chart
from facenas.report.front.members import Member, front_of, values_of, weighed
from facenas.report.front.picking import pick_command
from facenas.report.front.recommending import Recommendation, advise
from facenas.report.front.trained import Trained, trainings
from facenas.report.front.trust import Trust, read_trust
from facenas.report.front.trust_charts import rank_chart, supernet_course
from facenas.report.reading import RunFolder
from facenas.report.records import Trial
from facenas.report.summary import STRATEGIES, Network, where
from facenas.report.tiles import Tile, clock, result
from facenas.report.wording import count, many, percent
from facenas.strategies.pareto import Objective


@dataclass(frozen=True)
class Front:
    """A search for a front, as far as it has come; `members` from the lowest error on."""

    run: RunFolder
    objectives: list[Objective]
    members: tuple[Member, ...]
    generations: list[Generation]
    beside: Beside | None
    recommended: Recommendation | None
    trust: Trust | None
    trained: tuple[Trained, ...]

    @property
    def costs(self) -> list[str]:
        """The objectives but the error."""
        return [o.name for o in self.objectives if o.name != ERROR]

    @property
    def names(self) -> list[str]:
        """The objectives, the error first."""
        return [o.name for o in self.objectives]

    @property
    def title(self) -> str:
        """What is searched how."""
        settings = self.run.front_settings
        assert settings is not None
        goals = listed(LABELS[name] for name in self.names)
        size = f"{many(settings.generations, 'generation')} of {settings.population} candidates"
        how = f"{size}, {many(settings.epochs, 'epoch')} each"
        if self.trust:
            how = f"{size}, judged by a supernet of {many(self.trust.settings.epochs, 'epoch')}"
        what = capitalise(STRATEGIES[settings.owner.name])
        return f"{what} {where(self.run)}: {how}; {goals} are to be small."

    @property
    def limits(self) -> str:
        """The limits of costs in words; empty when there are none."""
        limited = [o for o in self.objectives if o.name != ERROR and o.limit < float("inf")]
        return listed(exactly(o.name, o.limit) for o in limited) if limited else ""

    @property
    def box(self) -> str:
        """The far corner of the box that hypervolumes are shares of, in words."""
        return listed(exactly(o.name, o.scale) for o in self.objectives)

    @property
    def judge(self) -> str:
        """What follows the word accuracy: empty when it is that of a network trained alone."""
        return JUDGED if self.trust else ""

    @property
    def picked(self) -> Member | None:
        """The member shown first: the recommended one, else the most accurate."""
        if self.recommended and self.recommended.member:
            return self.recommended.member
        return self.members[0] if self.members else None

    @property
    def csv(self) -> str:
        """The table of the front."""
        return front_csv(self.members, self.names)

    @property
    def csv_address(self) -> str:
        """The same as an address that needs no network."""
        return f"data:text/csv;charset=utf-8;base64,{base64.b64encode(self.csv.encode()).decode()}"

    def on_front(self, trial: int) -> bool:
        """Whether this trial is on the front as it is now."""
        return any(member.id == trial for member in self.members)

    def value(self, trial: Trial, name: str) -> float:
        """An objective of any trial."""
        objective = next(o for o in self.objectives if o.name == name)
        return values_of(trial, [objective])[0]

    def pick_command(self, member: Member) -> str:
        """What trains it from scratch."""
        return pick_command(self.run, member.id)

    def remarks(self, member: Member) -> Iterator[str]:
        """What is special about a member."""
        if member is self.members[0]:
            yield "most accurate"
        if self.recommended and member is self.recommended.member:
            yield "recommended"
        yield from (t.words for t in self.trained if t.architecture == member.architecture)


def read_front(run: RunFolder, beside: Path | None, budget: Budget | None) -> Front:
    """What the run tells of its front. Raises UserError when a file is damaged or `beside` does not fit."""
    objectives = weighed(run)
    members = front_of(run, objectives)
    return Front(
        run=run,
        objectives=objectives,
        members=members,
        generations=generations(run.trials, objectives),
        beside=set_beside(run, beside, objectives),
        recommended=advise(members, budget) if budget else None,
        trust=read_trust(run),
        trained=trainings(run),
    )


def figures(front: Front) -> Iterator[tuple[str, Figure]]:
    """The charts by name; of the front one for each cost."""
    if front.trust and front.trust.epochs:
        yield "supernet", supernet_course(front.trust)
    if front.trust and front.trust.ranked:
        yield "ranks", rank_chart(front.trust)
    if not front.generations:
        return
    for cost in front.costs:
        chart = front_chart(front.run.trials, front.members, front.objectives, cost)
        yield f"front-{cost}", chart
    settings = front.run.front_settings
    assert settings is not None
    name = STRATEGIES[settings.owner.name] if front.beside else "this search"
    yield "hypervolume", hypervolume_chart(front.generations, front.beside, name)
    yield "clock", clock_chart(front.generations)


def network(front: Front) -> Network | None:
    """The network that a final training trains: the most accurate."""
    if not front.members:
        return None
    best = front.members[0]
    title = "The networks of the front" + ("" if front.run.best else " so far")
    final = front.run.final
    head = final.head_parameters if final else None
    arch = best.architecture
    return Network(title, arch, best.trial.parameters, best.trial.macs, head)


def front_tiles(front: Front) -> Iterator[Tile]:
    """The key figures, as far as they are known."""
    run = front.run
    failed = sum(trial.failed for trial in run.trials)
    yield Tile("Trials", count(len(run.trials)), f"{failed} failed" if failed else "none failed")
    yield clock(run)
    yield Tile("On the front", count(len(front.members)), _spread(front))
    if front.members:
        best = front.members[0]
        costs = listed(f"{told(n, best.values[n])} {LABELS[n]}" for n in front.costs)
        how = f",{front.judge}" if front.judge else ""
        yield Tile("Lowest error", percent(best.values[ERROR]), f"trial {best.id}{how}: {costs}")
    if front.generations:
        yield Tile("Hypervolume", f"{front.generations[-1].hypervolume:.4f}", _other(front))
    if run.final:
        yield result(run.final)


def _spread(front: Front) -> str:
    """From the smallest to the largest of the first cost."""
    if not front.members:
        return "none keeps all limits" if front.generations else "no trial yet"
    cost = front.costs[0]
    values = sorted(member.values[cost] for member in front.members)
    ends: Sequence[str] = [told(cost, value) for value in (values[0], values[-1])]
    return f"{' to '.join(dict.fromkeys(ends))} {LABELS[cost]}"


def _other(front: Front) -> str:
    if front.beside and front.beside.generations:
        return f"{front.beside.label}: {front.beside.generations[-1].hypervolume:.4f}"
    return "share of the box that the front dominates"
