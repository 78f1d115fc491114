"""foreman's own routes (health, queue, document), and the relaying of everything else to the target."""
