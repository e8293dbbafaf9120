"""Who says what, and which talkers train, validate and test."""
