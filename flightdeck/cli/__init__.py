"""The command `flightdeck`. A sub-command is loaded when it is called, so each needs only its own dependency group."""
