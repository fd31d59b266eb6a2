"""The dashboard itself."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import Binding
from textual.containers import Horizontal, Vertical
from textual.widgets import Footer

from ..errors import Error
from .panels import SHORT, TINY, Ended, Hardware, Log, Loss, Model, Panel, Sample_, Speed, Status
from .session import Session
from .sources import Child

FRAME = 0.5  # seconds from one to the next, at least


class Dash(App[None]):
    """Shows a session. ``live``: follows it, else it is shown as it is."""

    CSS_PATH = "dash.tcss"
    TITLE = "anex dash"
    ENABLE_COMMAND_PALETTE = False
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (72, "-wide")]  # noqa: RUF012 - as App declares it
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (TINY, "-short"), (SHORT, "-tall")]  # noqa: RUF012
    BINDINGS: ClassVar = [
        Binding("r", "restart", "resume or restart"),
        Binding("g", "generate", "generate now"),
        Binding("q", "leave", "quit"),
        Binding("ctrl+c", "leave", show=False, priority=True),
    ]

    def __init__(self, session: Session, live: bool = True) -> None:
        super().__init__()
        self.session, self.live = session, live
        self.shown: object = None

    def compose(self) -> ComposeResult:
        yield Status()
        with Horizontal(id="columns"):
            with Vertical(id="left"):
                yield Loss()
                yield Ended()
                yield Sample_()
                yield Log(wrap=True, min_width=0, max_lines=self.session.run.log.maxlen)
            with Vertical(id="right"):
                yield Model()
                yield Speed()
                yield Hardware()
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        if not self.live:
            return
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, lambda: self.run_worker(self.action_leave()))
        loop.add_signal_handler(signal.SIGHUP, lambda: self.run_worker(self.hang_up()))
        self.run_worker(self.follow(), group="source")
        self.run_worker(self.session.watch())
        self.run_worker(self.session.generate())
        self.drawing = self.set_interval(FRAME, self.show_what_is_new)

    def on_ready(self) -> None:
        self.show()

    def on_resize(self) -> None:
        self.call_after_refresh(self.show)

    def show_what_is_new(self) -> None:
        known = self.session.version
        if known != self.shown:
            self.show()
        self.shown = known

    def show(self) -> None:
        for panel in self.query(Panel):
            panel.show(self.session, self.size.height)
        self.query_one(Loss).show(self.session)
        self.query_one(Log).show(self.session.run)

    async def follow(self) -> None:
        try:
            await self.session.source.live()
        except Error as error:
            self.session.run.note(str(error))

    async def action_restart(self) -> None:
        """End the run, and start it again from its last checkpoint."""
        source = self.session.source
        if not isinstance(source, Child):
            self.notify("a file is followed; there is no run here to start again")
            return
        if source.pid:
            await source.end()
        self.run_worker(self.follow(), group="source", exclusive=True)

    def action_generate(self) -> None:
        if self.session.generator is None:
            self.notify(f"no text: {self.session.why_no_text}")
        else:
            self.run_worker(self.session.generator.generate())

    async def action_leave(self) -> None:
        """End what was started, and this."""
        await self.session.end()
        self.exit()

    async def hang_up(self) -> None:
        """The terminal is gone: end what was started, and then at once, for Textual would wait to write to it."""
        self.drawing.stop()
        await self.session.end()
        os._exit(128 + signal.SIGHUP)

    async def on_unmount(self) -> None:
        """Also where the dashboard itself fails."""
        if self.live:
            await self.session.end()


def text_of(app: App[None]) -> str:
    """What stands on its screen, without colours."""
    return "\n".join(strip.text.rstrip() for strip in app.screen._compositor.render_strips())


async def frame(session: Session, width: int, height: int) -> tuple[str, str]:
    """(text, SVG) of the dashboard as it is."""
    app = Dash(session, live=False)
    async with app.run_test(size=(width, height)) as pilot:
        await pilot.pause()
        app.show()
        await pilot.pause()
        return text_of(app), app.export_screenshot()
