"""The recognizer behind HTTP: it trusts no byte it is sent, and keeps none."""
