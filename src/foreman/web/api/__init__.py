"""The routes for people and clients, and the way of everything else to the target."""
