"""Detection methods: an objective, a schedule and a score each."""
