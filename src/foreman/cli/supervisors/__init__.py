"""The unit of systemd and the property list of launchd that run foreman."""
