"""The loops, and the one place where corpus, frames, nn, baselines and evaluate meet."""
