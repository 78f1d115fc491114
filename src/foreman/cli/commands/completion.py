"""``foreman completion``: print a completion script for bash, zsh or fish."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from foreman.cli.ui.help import HelpfulCommand

#: The commands that install the script, for each shell.
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
    short_help="Print a completion script for bash, zsh or fish.",
    examples=[line for lines in INSTALL.values() for line in lines if line.startswith("foreman")]
    + ['eval "$(foreman completion bash)"         # for this shell only'],
)
@click.argument("shell", type=click.Choice(list(INSTALL)))
def command(shell: str) -> None:
    """Print a script with which SHELL completes the commands and options of foreman. Its last lines say how to install it."""
    completion = get_completion_class(shell)
    assert completion is not None, "click knows all three"
    root = click.get_current_context().find_root()
    click.echo(completion(root.command, {}, "foreman", "_FOREMAN_COMPLETE").source().rstrip())
    # After the script: there a person sees them, and zsh needs its #compdef in the first line.
    click.echo("\n# To install it for every new shell, run:")
    for line in INSTALL[shell]:
        click.echo(f"#   {line}")
