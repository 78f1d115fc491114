"""Record foreman at work, as docs/foreman.svg: ``make picture``.

A real foreman serves in front of the simulator, real clients send chats, embeddings and a job, and what ``foreman ps``,
``curl`` and ``foreman jobs`` print meanwhile becomes the picture. It takes about three minutes.
"""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import anthropic
import ollama
import openai
from rich.color import ColorType
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURE = Path(__file__).with_name("foreman.svg")
FOREMAN = str(Path(sysconfig.get_path("scripts")) / "foreman")
#: What the picture shows in place of the port that was free.
SHOWN = "127.0.0.1:8080"
MODEL, OTHER, EMBEDDER = "llama3.2:3b", "qwen3:8b", "nomic-embed-text"
#: How many words the prompts have. The simulator repeats 40 of them at most, and adds 20 of its own, three a second.
EARLIER, WORDS = {MODEL: (34, 40, 40), OTHER: (1, 3, 6)}, 40
#: How many columns there are, and how long anything here may take, in seconds.
COLUMNS, PATIENCE = 94, 90.0
#: Of one character in the picture, and of its frame, in pixels.
WIDTH, HEIGHT, MARGIN, BAR = 8.4, 19, 18, 34
BACKGROUND, FRAME, FOREGROUND, PROMPT, DIM = "#1b1f27", "#6b7485", "#d8dee9", "#8fd19e", "#9aa5b5"
FONT = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def until(found: Callable[[], Any]) -> Any:
    """What ``found`` gives, as soon as it counts as true."""
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        if time.monotonic() > end:
            sys.exit("the recording took too long")
        time.sleep(0.05)
    return value


class Recording:
    """One foreman in front of one simulator, its callers, and the lines of the picture."""

    def __init__(self, folder: Path, processes: ExitStack) -> None:
        self.folder, self.processes = folder, processes
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FOREMAN_", "NO_COLOR"))}
        self.environ = clean | {"XDG_STATE_HOME": str(folder), "FOREMAN_TOKENS_FILE": str(folder / "tokens")}
        self.environ |= {"PYTHONUNBUFFERED": "1", "TERM": "xterm-256color", "COLUMNS": str(COLUMNS)}
        (folder / "tokens").touch()
        self.tokens = {name: self.output("token", "new", name).strip() for name in ("alice", "bob", "carol", "dave")}
        speed = ("--rate", "3", "--load-time", "1s", "--prompt-time", "300ms")
        target = self.start("simulate", r"listens on http://(\S+) with", *speed)
        port = self.start("serve", r"starting on (\d+)", "--target-url", target, "--poll-interval", "1s")
        self.address = f"127.0.0.1:{port}"
        self.environ |= {"FOREMAN_URL": f"http://{self.address}"}
        self.lines: list[Text] = []

    def output(self, *words: str, **environ: str) -> str:
        """What a command of foreman prints."""
        return subprocess.check_output(
            [FOREMAN, *words],
            env=self.environ | environ,
            text=True,
            timeout=PATIENCE,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self, command: str, listening: str, *options: str) -> str:
        """Start a daemon; what its log says of where it listens."""
        log = self.folder / command
        with log.open("wb") as output:
            call = [FOREMAN, command, "--listen", "127.0.0.1:0", *options]
            process = subprocess.Popen(call, env=self.environ, stdout=output, stdin=subprocess.DEVNULL)
        self.processes.callback(process.wait, PATIENCE)
        self.processes.callback(process.terminate)
        return str(until(lambda: re.search(listening, log.read_text()))[1])

    def background(self, call: Callable[[], object]) -> None:
        """Let a caller wait for its answer in a thread; when the picture is done, foreman breaks it off."""

        def run() -> None:
            with suppress(Exception):
                call()

        threading.Thread(target=run, daemon=True).start()

    def chat_by_ollama(self, caller: str, model: str, words: int) -> None:
        """One chat by Ollama's own library, to its end."""
        client = ollama.Client(f"http://{self.address}", headers={"Authorization": f"Bearer {self.tokens[caller]}"})
        messages = [{"role": "user", "content": "I " * words}]
        for _ in client.chat(model, messages, stream=True, options={"num_predict": -1}):
            pass

    def chat_by_openai(self, caller: str, model: str) -> None:
        """One chat by OpenAI's library."""
        client = openai.OpenAI(base_url=f"http://{self.address}/v1", api_key=self.tokens[caller])
        for _ in client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Hello"}], stream=True
        ):
            pass

    def chat_by_anthropic(self, caller: str, model: str) -> None:
        """One chat by Anthropic's library."""
        client = anthropic.Anthropic(base_url=f"http://{self.address}", api_key=self.tokens[caller])
        with client.messages.stream(
            model=model, max_tokens=64, messages=[{"role": "user", "content": "Hello"}]
        ) as stream:
            for _ in stream:
                pass

    def embed(self, caller: str, times: int = 1) -> None:
        """Embeddings, one after the other."""
        client = ollama.Client(f"http://{self.address}", headers={"Authorization": f"Bearer {self.tokens[caller]}"})
        for _ in range(times):
            client.embed(EMBEDDER, "A queue")

    def curl(self, caller: str, path: str, output: Path) -> subprocess.Popen[bytes]:
        """One chat by curl, as the picture shows it."""
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
        (self.folder / "hello.json").write_text(json.dumps(body))
        (self.folder / caller).write_text(f"Authorization: Bearer {self.tokens[caller]}")
        call = ["curl", "-sN", "-H", f"@{caller}", "-d", "@hello.json", f"{self.address}{path}"]
        with output.open("wb") as file:
            return subprocess.Popen(call, stdout=file, cwd=self.folder)

    def queue(self) -> Any:
        """What ``/queue`` says."""
        headers = {"Authorization": f"Bearer {self.tokens['alice']}"}
        with urllib.request.urlopen(urllib.request.Request(f"http://{self.address}/queue", headers=headers)) as answer:
            return json.load(answer)

    # -- what is shown

    def type(self, line: str, comment: str = "") -> None:
        """A line as a person types it, and an empty one before it."""
        before = [Text("")] if self.lines else []
        self.lines += [*before, Text.assemble(("$ ", PROMPT), (line, "bold"), (comment, "dim"))]

    def print(self, output: str) -> None:
        """What a program printed, with its colours."""
        output = output.replace(self.address, SHOWN).rstrip()
        self.lines += [Text.from_ansi(line.rstrip()) for line in output.splitlines()]

    def show(self, *words: str, caller: str = "alice") -> None:
        """Type a command of foreman, and show what it prints into a terminal."""
        self.type(shlex.join(["foreman", *words]))
        self.print(in_terminal([FOREMAN, *words], self.environ | {"FOREMAN_TOKEN": self.tokens[caller]}))


def in_terminal(call: list[str], environ: dict[str, str]) -> str:
    """What a program prints where its output is a terminal."""
    parent, child = pty.openpty()
    with subprocess.Popen(call, env=environ, stdout=child, stdin=subprocess.DEVNULL) as process:
        os.close(child)
        printed = b""
        with suppress(OSError), os.fdopen(parent, "rb", buffering=0) as terminal:
            while data := terminal.read(65536):  # ends with EIO when the program does
                printed += data
        process.wait(PATIENCE)
    return printed.decode().replace("\r\n", "\n")


def record(recording: Recording) -> None:
    """Play the scene, and write down what is printed."""
    for model, sizes in EARLIER.items():  # foreman estimates a wait by what the models did lately
        for words in sizes:
            recording.chat_by_ollama("dave", model, words)
    recording.embed("dave")
    recording.background(lambda: recording.chat_by_ollama("alice", MODEL, WORDS))
    until(lambda: recording.queue()["running"])
    heard = recording.folder / "heard"
    bob = recording.curl("bob", "/v1/chat/completions", heard)
    until(lambda: len(recording.queue()["waiting"]) == 1)
    recording.background(lambda: recording.chat_by_openai("dave", OTHER))
    until(lambda: len(recording.queue()["waiting"]) == 2)
    recording.background(lambda: recording.chat_by_anthropic("carol", MODEL))
    until(lambda: len(recording.queue()["waiting"]) == 3)
    recording.output("submit", "--model", OTHER, "Sum the report up", FOREMAN_TOKEN=recording.tokens["alice"])
    for _ in range(3):
        recording.background(lambda: recording.embed("dave", 100))
    until(lambda: recording.queue()["running"][0]["seconds"] > 3)
    until(lambda: recording.queue()["embedding"]["running"])
    recording.show("ps")
    bob.wait(PATIENCE)
    said = [line for line in heard.read_text().splitlines() if line]
    recording.type(f"curl -sN -H @bob -d @hello.json {SHOWN}/v1/chat/completions", "     # bob, meanwhile")
    recording.lines += [Text.assemble((line, "cyan")) for line in said if line.startswith(":")]
    recording.print("\n".join([*[shortened(line) for line in said if '"content":' in line][:4], "…"]))
    until(lambda: recording.queue()["jobs"]["running"] or not recording.queue()["jobs"]["queued"])
    recording.show("jobs")


def shortened(line: str) -> str:
    """An event of a stream without what is the same in all of them."""
    return re.sub(r',"object".*("delta":{).*("content":"(?:[^"\\]|\\.)*").*', r", … \1\2}, … }", line)


# -- the picture


def svg(lines: list[Text]) -> str:
    """The lines in a window, each coming a moment after the one before it; at rest where nothing moves."""
    width, height = COLUMNS * WIDTH + 2 * MARGIN, len(lines) * HEIGHT + BAR + 2 * MARGIN - 6
    rows = [row for number, line in enumerate(lines) for row in _row(number, line)]
    dots = "".join(
        f'<circle cx="{MARGIN + 4 + 18 * number}" cy="{BAR / 2 + 2}" r="5.5" fill="{colour}"/>'
        for number, colour in enumerate(("#ec6a5e", "#f4bf4f", "#61c554"))
    )
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img">
<title>A terminal: foreman ps, a queued stream, and foreman jobs</title>
<style>
@keyframes come {{ from {{ opacity: 0 }} to {{ opacity: 1 }} }}
@media (prefers-reduced-motion: no-preference) {{ .terminal g {{ animation: come .2s backwards }} }}
</style>
<rect x=".5" y=".5" width="{width - 1:g}" height="{height - 1:g}" rx="9" fill="{BACKGROUND}" stroke="{FRAME}"/>
{dots}
<g class="terminal" font-family="{FONT}" font-size="14" fill="{FOREGROUND}">
{chr(10).join(rows)}
</g>
</svg>
"""


def _row(number: int, line: Text) -> Iterator[str]:
    if not line.plain.strip():
        return
    pieces = "".join(_pieces(line, BAR + MARGIN + number * HEIGHT))
    yield f'<g style="animation-delay:{0.4 + number * 0.14:.2f}s">{pieces}</g>'


def _pieces(line: Text, y: float) -> Iterator[str]:
    """The parts of a line, each in its colour and at its column, whatever width the font gives it."""
    column = 0
    for segment in line.render(Console(width=COLUMNS)):
        for part in re.findall(r" {2,}|(?:(?! {2,}).)+", segment.text):
            if shown := part.rstrip():
                x, length = MARGIN + column * WIDTH, len(shown) * WIDTH
                text = f'<text x="{x:.1f}" y="{y:g}" textLength="{length:.1f}" lengthAdjust="spacingAndGlyphs"'
                yield f"{text}{_look(segment.style)}>{escape(shown)}</text>"
            column += len(part)


def _look(style: Style | None) -> str:
    if style is None:
        return ""
    weight = ' font-weight="bold"' if style.bold else ""
    if style.dim:
        return f'{weight} fill="{DIM}"'
    if style.color is None or style.color.type is ColorType.DEFAULT:
        return weight
    return f'{weight} fill="{style.color.get_truecolor(MONOKAI).hex}"'


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder, ExitStack() as processes:
        recording = Recording(Path(folder), processes)
        record(recording)
    PICTURE.write_text(svg(recording.lines), "utf-8")
    print(f"{PICTURE.name}: {len(recording.lines)} lines")
