"""Who is next at the gate, and how long that takes: the gate, the policy, the estimates and the status of the queue."""
