"""The property list with which launchd runs foreman as an agent of one user, on macOS."""

from __future__ import annotations

import math
import plistlib
from pathlib import Path
from string import Template
from xml.sax.saxutils import escape

from foreman.cli.supervisors.service import Service

#: The label of the agent.
LABEL = "dev.foreman"

_PLIST = Template("""\
<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<!-- foreman as a user agent. `foreman install-service` writes this file. -->
<plist version="1.0">
<dict>
  <key>Label</key>
  <string>$label</string>
  <!-- The shell reads the settings file, and then executes foreman in its place. -->
  <key>ProgramArguments</key>
  <array>
    <string>/bin/sh</string>
    <string>-c</string>
    <string>set -a; if [ -r "$$1" ]; then . "$$1"; fi; exec "$$0" serve</string>
    <string>$command</string>
    <string>$settings</string>
  </array>
  <key>EnvironmentVariables</key>
  <dict>
    <key>FOREMAN_DRAIN_TIMEOUT</key>
    <string>${drain}s</string>
$token  </dict>
  <key>RunAtLoad</key>
  <true/>
  <key>KeepAlive</key>
  <true/>
  <!-- Running responses may finish within FOREMAN_DRAIN_TIMEOUT; launchd must wait 10 s longer. -->
  <key>ExitTimeOut</key>
  <integer>$stop_timeout</integer>
  <!-- Otherwise launchd throttles foreman, which slows down every token. -->
  <key>ProcessType</key>
  <string>Interactive</string>
  <!-- Each connection needs a file descriptor, and each running chat two; the default of launchd is 256. -->
  <key>SoftResourceLimits</key>
  <dict>
    <key>NumberOfFiles</key>
    <integer>10240</integer>
  </dict>
  <!-- 63 is 077 in octal. -->
  <key>Umask</key>
  <integer>63</integer>
  <key>StandardOutPath</key>
  <string>$log</string>
  <key>StandardErrorPath</key>
  <string>$log</string>
</dict>
</plist>
""")

_TOKEN = Template("""\
    <key>FOREMAN_AUTH_TOKEN_FILE</key>
    <string>$path</string>
""")


def plist(service: Service, log: Path) -> str:
    """The text of ``dev.foreman.plist``.

    :param log: the file to which foreman's output is appended.
    """
    return _PLIST.substitute(
        label=LABEL,
        command=escape(str(service.command)),
        settings=escape(str(service.settings)),
        drain=f"{service.drain:g}",
        token="" if service.token is None else _TOKEN.substitute(path=escape(str(service.token))),
        stop_timeout=math.ceil(service.stop_timeout),
        log=escape(str(log)),
    )


def read_options(text: str) -> tuple[str | None, str | None]:
    """The token file and the drain timeout in a property list; None for each that it lacks."""
    try:
        variables = plistlib.loads(text.encode())["EnvironmentVariables"]
        return variables.get("FOREMAN_AUTH_TOKEN_FILE"), variables.get("FOREMAN_DRAIN_TIMEOUT")
    except Exception:  # noqa: BLE001 - plistlib raises many kinds of exceptions
        return None, None
