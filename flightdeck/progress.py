"""Live progress of a long command: stages, figures, seconds, verdicts. Bars on a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

LINE_EVERY_S = 10.0  # without a terminal, say how far a stage is this often


@dataclasses.dataclass
class Stage:
    """One stage of the story: what it is doing, and afterwards what it did.

    Args:
        figures: what happened, in short sentences.
        short: in what it fell short; empty when all is well.
    """

    name: str
    started: float = 0.0
    ended: float | None = None
    doing: str = ""
    done: float = 0.0
    total: float | None = None
    figures: list[str] = dataclasses.field(default_factory=list)
    short: list[str] = dataclasses.field(default_factory=list)

    @property
    def ok(self) -> bool:
        """It came to its end and reached what it should."""
        return self.ended is not None and not self.short

    @property
    def seconds(self) -> float:
        """Real time taken, so far."""
        return (self.ended if self.ended is not None else time.monotonic()) - self.started

    def tell(self, doing: str, done: float | None = None, total: float | None = None) -> None:
        """What it is doing, and how far it is."""
        self.doing = doing
        if done is not None:
            self.done, self.total = done, total

    def figure(self, *sentences: str) -> None:
        """Something that happened."""
        self.figures += sentences

    def expect(self, reached: bool, otherwise: str) -> bool:
        """Note that the stage fell short unless `reached`."""
        if not reached:
            self.short.append(otherwise)
        return reached


class Board:
    """All stages, drawn live. Use as a context manager."""

    def __init__(self, names: list[str], console: Console | None = None, title: str = "Flightdeck lab") -> None:
        self.console, self.title = console or Console(), title
        self.stages = {name: Stage(name) for name in names}
        self.started = time.monotonic()
        self._live: Live | None = None
        self._said: dict[str, float] = {}
        self._width = max(map(len, names))

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            self._live = Live(get_renderable=self._draw, console=self.console, refresh_per_second=8, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """One stage: from here until the block ends, an exception counts as falling short."""
        stage = self.stages[name]
        stage.started = time.monotonic()
        self._line(f"[{self._clock()}] {name} ...")
        try:
            yield stage
        except KeyboardInterrupt:
            stage.short.append("interrupted")
            raise
        except BaseException as error:
            stage.short.append(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
            raise
        finally:
            stage.ended, stage.doing, stage.total = time.monotonic(), "", None
            verdict = "ok" if stage.ok else "FELL SHORT: " + "; ".join(stage.short)
            self._line(f"[{self._clock()}] {name}: {'; '.join(stage.figures)} - {stage.seconds:.1f} s, {verdict}")

    def tick(self, stage: Stage) -> None:
        """Call now and then while a stage works: without a terminal, a line every few seconds."""
        if self._live is None and time.monotonic() - self._said.get(stage.name, stage.started) > LINE_EVERY_S:
            self._said[stage.name] = time.monotonic()
            share = f" {stage.done / stage.total:.0%}" if stage.total else ""
            self._line(f"[{self._clock()}] {stage.name}:{share} {stage.doing}")

    def say(self, text: str) -> None:
        """A sentence of its own."""
        self.console.print(Text(text))

    def table(self) -> Table:
        """What happened: each stage with figures, seconds, ok or in what it fell short."""
        table = Table(title="What happened", title_justify="left", show_lines=False, pad_edge=False, box=None)
        table.add_column("stage", style="bold")
        table.add_column("figures", overflow="fold")
        table.add_column("seconds", justify="right")
        table.add_column("", overflow="fold")
        for stage in self.stages.values():
            seconds = f"{stage.seconds:.1f}" if stage.started else "-"
            if not stage.started:
                verdict = Text("not reached", style="dim")
            elif stage.ok:
                verdict = Text("ok", style="green")
            else:
                verdict = Text("fell short: " + "; ".join(stage.short), style="red")
            table.add_row(stage.name, "\n".join(stage.figures), seconds, verdict)
        return table

    def shortfalls(self) -> list[str]:
        """What fell short, a sentence per stage; said last, since a long table's rows may be cut off by a log."""
        return [f"{it.name} fell short: {'; '.join(it.short)}" for it in self.stages.values() if it.short] + [
            f"{it.name} was not reached" for it in self.stages.values() if not it.started
        ]

    @property
    def ok(self) -> bool:
        """Every stage was reached and none fell short."""
        return all(stage.ok for stage in self.stages.values())

    @property
    def seconds(self) -> float:
        """Real time since the beginning."""
        return time.monotonic() - self.started

    def _clock(self) -> str:
        seconds = int(self.seconds)
        return f"{seconds // 60}:{seconds % 60:02d}"

    def _line(self, text: str) -> None:
        if self._live is None:
            self.console.print(Text(text), soft_wrap=True)

    def _draw(self) -> Group:
        rows = Table.grid(padding=(0, 1))
        rows.add_column(width=1)
        rows.add_column(width=self._width)
        rows.add_column(justify="right", width=6)
        rows.add_column(overflow="fold")
        for stage in self.stages.values():
            if not stage.started:
                rows.add_row("·", Text(stage.name, style="dim"), "", "")
            elif stage.ended is None:
                rows.add_row(
                    Spinner("dots", style="cyan"), Text(stage.name, style="bold cyan"), f"{stage.seconds:.0f} s",
                    self._activity(stage),
                )  # fmt: skip
            else:
                mark = Text("✓", style="green") if stage.ok else Text("✗", style="red")
                told = Text(" · ".join(stage.figures), style="dim", overflow="ellipsis", no_wrap=True)
                if stage.short:
                    told = Text("; ".join(stage.short), style="red")
                rows.add_row(mark, stage.name, f"{stage.seconds:.0f} s", told)
        return Group(Text(f"{self.title}  {self._clock()}", style="bold"), rows)

    @staticmethod
    def _activity(stage: Stage) -> Group | Text:
        if not stage.total:
            return Text(stage.doing)
        bar = Table.grid(padding=(0, 1))
        bar.add_row(
            ProgressBar(total=stage.total, completed=min(stage.done, stage.total), width=30),
            Text(f"{min(stage.done / stage.total, 1):.0%}"),
            Text(stage.doing, overflow="ellipsis", no_wrap=True),
        )
        return Group(bar)
