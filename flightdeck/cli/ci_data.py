"""`flightdeck ci data`: are the sample and the source's newest days fit for the lake?"""

from __future__ import annotations

from flightdeck.delivery.outcome import Outcome


def data() -> None:
    """The lake's checks over a committed sample and the newest days; a note on drift. Example: flightdeck ci data"""
    from flightdeck.cli.ci import finish

    def judge() -> Outcome:
        from flightdeck.delivery import data as gate
        from flightdeck.delivery.outcome import Finding
        from pipelines.use_case import USE_CASE_ENV, load_use_case

        try:
            use_case = load_use_case()
        except Exception as error:  # its modules are the use case's own code
            words = f"the use case cannot be loaded: {type(error).__name__}: {error}"
            return Outcome(gate=gate.GATE, findings=(Finding(what=words, do=f"mend it, or {USE_CASE_ENV}"),))
        return gate.check(use_case)

    finish(judge)
