"""The files with which systemd and launchd run foreman."""
