"""``foreman completion``: what lets bash, zsh or fish complete foreman's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from foreman.cli.ui.help import HelpfulCommand

#: What a person types once, for each shell.
INSTALL = {
    "bash": [
        "mkdir -p ~/.local/share/bash-completion/completions",
        "foreman completion bash > ~/.local/share/bash-completion/completions/foreman",
    ],
    "zsh": [
        "mkdir -p ~/.zfunc",
        "foreman completion zsh > ~/.zfunc/_foreman",
        "echo 'fpath+=~/.zfunc; autoload -Uz compinit; compinit' >> ~/.zshrc",
    ],
    "fish": ["foreman completion fish > ~/.config/fish/completions/foreman.fish"],
}


@click.command(
    "completion",
    cls=HelpfulCommand,
    short_help="Print what lets a shell complete foreman's commands.",
    examples=[line for lines in INSTALL.values() for line in lines if line.startswith("foreman")]
    + ['eval "$(foreman completion bash)"         # for this shell only'],
)
@click.argument("shell", type=click.Choice(list(INSTALL)))
def command(shell: str) -> None:
    """Print a script that lets SHELL complete foreman's commands and options; its last lines say how to install it."""
    made = get_completion_class(shell)
    assert made is not None, "click knows all three"
    root = click.get_current_context().find_root()
    click.echo(made(root.command, {}, "foreman", "_FOREMAN_COMPLETE").source().rstrip())
    # Behind the script: there a person sees them, and zsh wants its #compdef in the first line.
    click.echo("\n# To have this in every new shell, type:")
    for line in INSTALL[shell]:
        click.echo(f"#   {line}")
