"""Which request is next at the gate, and how long the others wait: the gate, the policy, the estimates and the status of the queue."""
