"""The run folder: the protocol between a training run and everything that watches it. Imports no torch.

The trainer is the only writer of events; the terminal, the page and scripts read them and leave commands. Nothing
here knows what a model is.
"""

from finetune.run.commands import Command, discard_commands, finish_command, poll_commands, send_command
from finetune.run.events import EVENT_KINDS, Event, EventLog, read_events
from finetune.run.folder import RunFolder

__all__ = [
    "EVENT_KINDS",
    "Command",
    "Event",
    "EventLog",
    "RunFolder",
    "discard_commands",
    "finish_command",
    "poll_commands",
    "read_events",
    "send_command",
]
