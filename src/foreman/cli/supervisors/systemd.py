"""The unit with which systemd runs foreman, for the system or for one user."""

from __future__ import annotations

import math
from string import Template

from foreman.cli.supervisors.service import Service

_UNIT = Template("""\
# foreman as a $whose service. `foreman install-service` writes this file$option.
# To change something, use `$systemctl edit foreman`: its drop-in file is kept when this file is rewritten.

[Unit]
Description=foreman, the daemon in front of an Ollama server
$after
[Service]
# foreman notifies systemd when its port is open.
Type=notify
ExecStart=$command serve
# Reloads the tokens in FOREMAN_TOKENS_FILE.
ExecReload=/bin/kill -HUP $$MAINPID
# The settings, as printed by `foreman settings --env`.
EnvironmentFile=-$settings

$token
# Running responses may finish within FOREMAN_DRAIN_TIMEOUT; systemd must wait 10 s longer. Ending by SIGTERM is a success.
Environment=FOREMAN_DRAIN_TIMEOUT=${drain}s
TimeoutStopSec=$stop_timeout
SuccessExitStatus=143
Restart=on-failure
RestartSec=5
# A restart does not fix invalid settings.
RestartPreventExitStatus=2

# Each connection needs a file descriptor, and each running chat two.
LimitNOFILE=65536
UMask=0077

# The directories that foreman may write to: its state, and $runtime for a socket.
StateDirectory=foreman
StateDirectoryMode=0700
RuntimeDirectory=foreman
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
${only_system}RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM

[Install]
WantedBy=$wanted_by
""")

#: Restrictions that only the system manager can apply.
_ONLY_SYSTEM = """\
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
# For a port below 1024, set this and AmbientCapabilities= to CAP_NET_BIND_SERVICE.
CapabilityBoundingSet=
# Run as a user that exists only while foreman runs.
DynamicUser=yes
"""
_AFTER = """\
Wants=network-online.target
After=network-online.target ollama.service
"""


def unit(service: Service, *, system: bool) -> str:
    """The text of ``foreman.service``.

    :param system: for the system, installed by root; otherwise for one user.
    """
    return _UNIT.substitute(
        whose="system" if system else "user",
        option=" with --system" if system else "",
        systemctl="systemctl" if system else "systemctl --user",
        after=_AFTER if system else "",
        command=_quoted(str(service.command)),
        settings=_escaped(str(service.settings)),
        token=_token(service, system=system),
        drain=f"{service.drain:g}",
        stop_timeout=math.ceil(service.stop_timeout),
        runtime="/run/foreman" if system else "$XDG_RUNTIME_DIR/foreman",
        only_system=_ONLY_SYSTEM if system else "",
        wanted_by="multi-user.target" if system else "default.target",
    )


def read_options(text: str) -> tuple[str | None, str | None]:
    """The token file and the drain timeout in a ``foreman.service``; None for each that it lacks."""
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "LoadCredential" and value.startswith("auth-token:"):
            values["token"] = value.removeprefix("auth-token:").replace("%%", "%")
        elif key == "Environment":
            name, _, value = _unquoted(value).partition("=")
            # In a system unit the variable names the credential; LoadCredential has the path.
            values.setdefault(
                {"FOREMAN_AUTH_TOKEN_FILE": "token", "FOREMAN_DRAIN_TIMEOUT": "drain"}.get(name, ""), value
            )
    return values.get("token"), values.get("drain")


def _token(service: Service, *, system: bool) -> str:
    """The lines that pass the token: as a credential in a system unit, as a file in a user unit."""
    path = service.token or service.settings.with_name("token")
    if system:
        comment = "# A token that every client must send. Only root needs to be able to read its file."
        lines = [
            f"LoadCredential=auth-token:{_escaped(str(path))}",
            "Environment=FOREMAN_AUTH_TOKEN_FILE=%d/auth-token",
        ]
    else:
        comment = "# A token that every client must send."
        lines = [f"Environment={_quoted(f'FOREMAN_AUTH_TOKEN_FILE={path}')}"]
    off = "" if service.token else "#"
    return "\n".join([comment, *(off + line for line in lines)]) + "\n"


def _escaped(text: str) -> str:
    """A path with its specifiers escaped, for a value that systemd does not split into words."""
    return text.replace("%", "%%")


def _quoted(text: str) -> str:
    """One word of a value that systemd splits into words, quoted if necessary (systemd.service(5))."""
    escaped = _escaped(text).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"' if any(character in " \t'\"\\;" for character in text) else escaped


def _unquoted(word: str) -> str:
    """The inverse of ``_quoted``."""
    if word.startswith('"'):
        word = word[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return word.replace("%%", "%")
