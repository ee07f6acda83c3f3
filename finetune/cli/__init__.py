"""The command `atelier`. Every module here starts without torch; what needs it imports it when it runs."""
