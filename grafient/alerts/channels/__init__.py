"""Where messages go: what each kind of channel asks for, and how a message gets there."""
