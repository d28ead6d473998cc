"""The `strongroom` command. Modules import click only; what a command needs is imported when it runs."""
