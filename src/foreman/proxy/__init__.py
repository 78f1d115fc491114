"""One inference request on its way through the gate to the target and back."""
