"""From recordings to frames of a frozen encoder, stored once."""
