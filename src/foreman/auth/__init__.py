"""Authentication: tokens, the credentials that a request carries, and the throttle on guesses."""
