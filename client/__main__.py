"""`python client COMMAND`: call the services, watch them, and see what they report about it."""

if __name__ == "__main__":
    from programs.start_up import end_at_signals, interrupt_at_sigint, silence_core

    end_at_signals()  # the imports alone take half a second
    silence_core()

from importlib import import_module

import click

from programs.options import run

# A command's module is imported when the command is used: one call should not wait for what another needs.
COMMANDS = {
    "call-echo": "client.calls:call_echo",
    "echo": "client.calls:echo",
    "chat": "client.calls:chat",
    "health-a": "client.calls:health_a",
    "health-b": "client.calls:health_b",
    "demo": "client.demo:demo",
    "trace": "client.jaeger:trace",
    "load": "client.load:load",
}


class Commands(click.Group):
    """The commands, in the order in which a newcomer meets them."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        """Return the commands' names."""
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        """Return a command, or None if there is none of that name."""
        if name not in COMMANDS:
            return None
        module, attribute = COMMANDS[name].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
def client() -> None:
    """
    Call the echo services, and see what they report about it.

    Every call prints one line of JSON per answer on stdout. The exit status is 0 when the call succeeded,
    1 when it failed or its answer could not be written, and 2 when the command was wrong.

    New here? "python client demo" shows everything, and needs nothing to run beforehand.
    """


if __name__ == "__main__":
    interrupt_at_sigint()
    run(client, "python client")
