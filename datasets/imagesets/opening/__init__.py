"""Pictures opened in child processes of bounded memory and time, so that no file can take its reader down."""
