"""The checks that a study of drop triggers rests on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

from tradingbot.api.drop_facts import MAIN
from tradingbot.api.drop_tables import plural
from tradingbot.ops.checkup import Finding, Verdict, run_checks
from tradingbot.research.outcomes import FEW, HORIZONS_MIN

if TYPE_CHECKING:
    from tradingbot.api.drop_triggers import DropTriggerStudy

__all__ = ["study_findings"]

ENOUGH_PCT = 90.0


def study_findings(study: DropTriggerStudy) -> list[Finding]:
    """Return the checks of a study: coverage, the same triggers again, enough of them, luck, and damage."""
    if study.is_empty:
        says = f"nothing is recorded under {study.recorded.state_dir}"
        return [Finding("recorded", Verdict.NOT_APPLICABLE, says, fix="run a bot, or name its home")]
    checks: list[tuple[str, Callable[[], Finding | Iterable[Finding]]]] = [
        ("coverage", lambda: _coverage(study)),
        ("again", lambda: _again(study)),
        ("triggers", lambda: _enough(study)),
        ("luck", lambda: list(_luck(study))),
        ("damage", lambda: _damage(study)),  # last: what could not be read is known once all has been read
    ]
    return list(run_checks(checks))


def _coverage(study: DropTriggerStudy) -> Finding:
    seen = study.coverage_by_symbol
    if not seen:
        says = "no ticks are recorded: of triggers the journal alone tells"
        return Finding("coverage", Verdict.NOT_APPLICABLE, says, fix="tradingbot flags set FEATURE_PERSIST_STREAMS=on")
    low = min(seen.values(), key=lambda one: one.covered_pct)
    evidence = {one.symbol: round(one.covered_pct, 2) for one in seen.values()}
    says = f"{low.symbol} is covered least, {low.covered_pct:.1f} % of its time"
    if low.covered_pct < ENOUGH_PCT:
        return Finding("coverage", Verdict.WARNING, says, evidence, "read the picture of coverage before any number")
    return Finding("coverage", Verdict.OK, says, evidence)


def _damage(study: DropTriggerStudy) -> Finding:
    count, places = study.recorded.damaged, study.recorded.damage
    if not count:
        return Finding("damage", Verdict.OK, "every line could be read")
    fix = f"tradingbot fsck {study.recorded.state_dir}"
    says = f"{count} damaged line{'' if count == 1 else 's'} left out, the first: {places[0]}"
    return Finding("damage", Verdict.WARNING, says, {"places": places[:20]}, fix)


def _enough(study: DropTriggerStudy) -> Finding:
    episodes = study.luck(MAIN).episodes
    says = f"{plural(study.triggers, 'trigger')}, {episodes} of them {HORIZONS_MIN[MAIN]} recorded minutes apart"
    if episodes < FEW:
        return Finding("triggers", Verdict.NOT_APPLICABLE, f"{says}: fewer than {FEW} say nothing about the rule")
    return Finding("triggers", Verdict.OK, says)


def _luck(study: DropTriggerStudy) -> Iterator[Finding]:
    for column, ahead in enumerate(HORIZONS_MIN):
        found = study.luck(column)
        verdict = Verdict.NOT_APPLICABLE if found.p is None else Verdict.OK
        yield Finding(f"after {ahead} min", verdict, found.says, {"excess_pct": found.excess_pct, "p": found.p})


def _again(study: DropTriggerStudy) -> Finding:
    """Hold the triggers of the recorded settings, run again, against those of the journal."""
    found = study.variants
    if found is None:
        return Finding("run again", Verdict.NOT_APPLICABLE, "what is recorded cannot be run again")
    if found.is_cut_off or found.unrecorded:
        limit, gaps = f"the limit of {study.limit_s:g} s came first", plural(len(found.unrecorded), "stretch", "es")
        why = limit if found.is_cut_off else f"{gaps} not recorded; tradingbot prove says more"
        return Finding("run again", Verdict.NOT_APPLICABLE, f"not all of it was run again: {why}")
    ours = {one.decision_id for one in found.variants[0].decisions if study.is_told(one.decision_id)}
    theirs = {name for name in study.recorded.decisions["decision_id"] if study.is_told(name)}
    if ours == theirs:
        same = f"the same {plural(len(theirs), 'trigger')} again" if theirs else "no trigger either"
        return Finding("run again", Verdict.OK, f"the recorded settings give {same}")
    says = f"{len(theirs - ours)} recorded triggers do not come again, {len(ours - theirs)} others do"
    examples = sorted(ours ^ theirs)[:10]
    return Finding("run again", Verdict.FAILED, says, {"differ": examples}, "tradingbot prove")
